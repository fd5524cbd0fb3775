import re
import stat
from pathlib import Path

from deploy import generated_keys


def test_an_api_key_is_sk_and_43_characters_of_base64url() -> None:
    keys = {generated_keys.make_api_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", key) for key in keys)


def test_a_secret_key_is_long_enough_to_be_accepted() -> None:
    from shared.settings import load

    assert load({"SECRET_KEY": generated_keys.make_secret_key()})


def test_a_key_is_kept_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "api_key"
    first = generated_keys.kept(path, "one")
    second = generated_keys.kept(path, "two")
    assert (first.value, first.is_new) == ("one", True)
    assert (second.value, second.is_new) == ("one", False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["api_key"]


def test_a_kept_key_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "api_key"
    path.write_text("mine\n")
    path.chmod(0o644)
    assert generated_keys.kept(path, "fresh").value == "mine"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_of_many_first_starts_one_makes_the_key(tmp_path: Path) -> None:
    import multiprocessing

    path = tmp_path / "api_key"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        made = pool.starmap(generated_keys.kept, [(path, f"key-{n}") for n in range(8)])
    assert sum(key.is_new for key in made) == 1
    assert len({key.value for key in made}) == 1
