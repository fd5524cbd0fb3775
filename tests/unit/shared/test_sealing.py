"""Secrets at rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.sealing import SealBroken, Sealer

KEY = "k" * 32
OTHER = "o" * 32
PLACE = "gw:{pool}:account:a@example.org#password"


@given(st.text())
def test_what_was_sealed_unseals_to_the_same(plain: str) -> None:
    sealer = Sealer(KEY)
    assert sealer.unseal(sealer.seal(plain, place=PLACE), place=PLACE) == plain


def test_a_sealed_value_has_the_documented_form_and_never_the_plain_text() -> None:
    sealed = Sealer(KEY).seal("pa$$word:with#signs", place=PLACE)
    version, key_id, nonce, ciphertext = sealed.split(":")
    assert (version, len(key_id), len(nonce)) == ("v1", 8, 16)
    assert "word" not in ciphertext


def test_two_sealings_of_the_same_text_differ() -> None:
    sealer = Sealer(KEY)
    assert sealer.seal("x", place=PLACE) != sealer.seal("x", place=PLACE)


def test_nothing_sealed_is_nothing() -> None:
    assert Sealer(KEY).seal("", place=PLACE) == ""
    assert Sealer(KEY).unseal("", place=PLACE) == ""


@pytest.mark.parametrize("place", [PLACE.replace("a@", "b@"), PLACE.replace("password", "token")])
def test_a_value_moved_to_another_record_or_field_does_not_unseal(place: str) -> None:
    sealer = Sealer(KEY)
    with pytest.raises(SealBroken, match="moved"):
        sealer.unseal(sealer.seal("secret", place=PLACE), place=place)


def test_any_changed_character_is_noticed() -> None:
    sealer = Sealer(KEY)
    sealed = sealer.seal("secret", place=PLACE)
    for position in range(len(sealed) - 1):  # the last one may carry unused bits
        changed = "A" if sealed[position] != "A" else "B"
        with pytest.raises(SealBroken):
            sealer.unseal(sealed[:position] + changed + sealed[position + 1 :], place=PLACE)


def test_another_key_does_not_unseal_and_says_so_without_the_value() -> None:
    sealed = Sealer(KEY).seal("secret", place=PLACE)
    with pytest.raises(SealBroken, match="another SECRET_KEY") as broken:
        Sealer(OTHER).unseal(sealed, place=PLACE)
    assert sealed not in str(broken.value)


def test_the_previous_key_still_unseals_and_seals_no_more() -> None:
    old = Sealer(KEY).seal("secret", place=PLACE)
    rotated = Sealer(OTHER, KEY)
    assert rotated.unseal(old, place=PLACE) == "secret"
    assert not rotated.is_current(old)
    new = rotated.seal("secret", place=PLACE)
    assert rotated.is_current(new)
    with pytest.raises(SealBroken):
        Sealer(KEY).unseal(new, place=PLACE)


def test_fingerprints_depend_on_text_key_and_purpose() -> None:
    sealer = Sealer(KEY)
    one = sealer.fingerprint("sk-1", purpose="api key")
    assert one == sealer.fingerprint("sk-1", purpose="api key")
    others = {
        sealer.fingerprint("sk-2", purpose="api key"),
        sealer.fingerprint("sk-1", purpose="egress"),
        Sealer(OTHER).fingerprint("sk-1", purpose="api key"),
    }
    assert one not in others
    assert len(others) == 3


def test_a_changed_key_goes_on_with_the_fingerprints_there_are() -> None:
    old, new = (Sealer(key).fingerprint("sk-1", purpose="api key") for key in (KEY, OTHER))
    assert Sealer(OTHER, KEY).fingerprints("sk-1", purpose="api key") == [old, new]
    later = Sealer(OTHER)
    later.adopt(Sealer(KEY).fingerprint_keys)
    assert later.fingerprint("sk-1", purpose="api key") == old
    assert later.fingerprints("sk-1", purpose="api key") == [old, new]


@pytest.mark.parametrize("plain", ["a", "a password", "ü" * 5000])
def test_what_the_previous_key_sealed_is_sealed_anew_in_the_same_form(plain: str) -> None:
    old, rotating, new = Sealer(KEY), Sealer(OTHER, KEY), Sealer(OTHER)
    text = rotating.seal_anew(old.seal(plain, place=PLACE).encode(), place=PLACE)
    assert new.unseal(text.decode(), place=PLACE) == plain
    assert new.is_current(text.decode())
    packed = rotating.seal_anew(old.seal_bytes(plain.encode(), place=PLACE), place=PLACE)
    assert new.unseal_bytes(packed, place=PLACE) == plain.encode()
    with pytest.raises(SealBroken):
        rotating.seal_anew(old.seal(plain, place=PLACE).encode(), place="elsewhere#field")


@given(st.binary())
def test_what_was_sealed_as_bytes_unseals_to_the_same(plain: bytes) -> None:
    sealer = Sealer(KEY)
    assert sealer.unseal_bytes(sealer.seal_bytes(plain, place=PLACE), place=PLACE) == plain


def test_any_changed_byte_is_noticed() -> None:
    sealed = Sealer(KEY).seal_bytes(b"a conversation", place=PLACE)
    assert b"conversation" not in sealed
    for position in range(len(sealed)):
        changed = bytes([sealed[position] ^ 1])
        with pytest.raises(SealBroken):
            Sealer(KEY).unseal_bytes(
                sealed[:position] + changed + sealed[position + 1 :], place=PLACE
            )
    for short in (b"", b"v1", b"v1:", sealed[:20]):
        with pytest.raises(SealBroken):
            Sealer(KEY).unseal_bytes(short, place=PLACE)


def test_bytes_are_bound_to_their_place_and_survive_a_rotation_of_the_key() -> None:
    sealed = Sealer(KEY).seal_bytes(b"x", place=PLACE)
    assert Sealer(OTHER, KEY).unseal_bytes(sealed, place=PLACE) == b"x"
    with pytest.raises(SealBroken, match="moved"):
        Sealer(KEY).unseal_bytes(sealed, place="elsewhere")
    with pytest.raises(SealBroken, match="another SECRET_KEY"):
        Sealer(OTHER).unseal_bytes(sealed, place=PLACE)
