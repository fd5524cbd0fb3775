"""The archive of a backup opens with its password only, and only whole."""

import msgspec
import pytest

from shared.store.api_keys import ApiKey
from shared.store.archive import AccountCopy, Archive, ArchiveBroken, Contents, Kdf, pack, unpack

CONTENTS = Contents(
    accounts=[
        AccountCopy(email="a@example.org", password="pässword", proxy="http://u:p@proxy:1"),
        AccountCopy(email="b@example.org", password="pw", token="jwt", token_expires_at=9e9),
    ],
    keys=[ApiKey(id="0" * 32, name="ci", models=["qwen3-max"])],
    settings={"chat_retry_count": 5, "model_aliases": {"gpt-*": "qwen3-max"}},
    fingerprint_keys=[bytes(range(32))],
)


@pytest.fixture(scope="module")
def archive() -> Archive:
    return pack(CONTENTS, "the password", created_at=1_795_438_104)


def test_what_was_packed_comes_out_again(archive: Archive) -> None:
    assert unpack(archive, "the password") == CONTENTS


def test_it_survives_being_written_as_json(archive: Archive) -> None:
    text = msgspec.json.format(msgspec.json.encode(archive), indent=2)
    assert unpack(msgspec.json.decode(text, type=Archive), "the password") == CONTENTS


@pytest.mark.parametrize("password", ["", "the passwor", "THE PASSWORD", "the password "])
def test_another_password_opens_nothing(archive: Archive, password: str) -> None:
    with pytest.raises(ArchiveBroken):
        unpack(archive, password)


@pytest.mark.parametrize(
    "change",
    [
        {"created_at": 1},
        {"nonce": "AAAAAAAAAAAAAAAA"},
        {"nonce": "no base64"},
        {"data": ""},
        {"data": "AAAA"},
        {"kdf": Kdf(salt="AAAAAAAAAAAAAAAAAAAAAA==")},
        {"kdf": Kdf(salt="x", n=2**10)},
        {"kdf": Kdf(salt="AAAAAAAAAAAAAAAAAAAAAA==", n=1025)},
    ],
)
def test_what_was_changed_opens_nothing(archive: Archive, change: dict[str, object]) -> None:
    with pytest.raises(ArchiveBroken):
        unpack(msgspec.structs.replace(archive, **change), "the password")


def test_nothing_of_its_content_can_be_read_without_the_password(archive: Archive) -> None:
    text = msgspec.json.encode(archive).decode()
    for secret in ("pässword", "example.org", "jwt", "proxy", "chat_retry_count"):
        assert secret not in text
    assert archive.data != pack(CONTENTS, "the password", created_at=archive.created_at).data


def test_a_kdf_that_would_eat_the_machine_is_refused(archive: Archive) -> None:
    body = msgspec.json.encode(archive).replace(b'"n":32768', b'"n":1073741824')
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=Archive)


def test_no_secret_is_in_a_repr() -> None:
    assert "pässword" not in repr(CONTENTS) + repr(CONTENTS.accounts[0])
