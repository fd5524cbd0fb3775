"""Lua files and their heads."""

import pytest

from shared.store import scripts

GOOD = """-- Does one thing.
-- KEYS[1] string: what it is
-- ARGV[1] ttl: ms
-- returns done: 1
return redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])
"""


@pytest.mark.parametrize("name", scripts.names())
def test_every_script_has_a_head_that_fits_its_body(name: str) -> None:
    script = scripts.load(name)
    assert len(script.sha) == 40
    assert "K_" not in script.text.replace("local K_", "") or "local K_" in script.text


def test_a_good_head_is_accepted() -> None:
    scripts.check_head("good", GOOD)


def test_a_head_without_a_body_is_one_that_uses_nothing() -> None:
    scripts.check_head(
        "idle", GOOD.partition("return redis")[0].replace("-- ARGV[1] ttl: ms\n", "")
    )


def test_a_key_that_is_not_in_the_table_of_keys_is_refused() -> None:
    with pytest.raises(scripts.ScriptError, match="K_NOWHERE is no key"):
        scripts.assemble("bad", GOOD.replace("KEYS[1], 1", "K_NOWHERE .. KEYS[1], 1"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("-- Does one thing.\n", ""), "first line"),
        (("-- returns done: 1\n", ""), "returns"),
        (("-- KEYS[1] string: what it is\n", ""), "KEYS"),
        (("-- ARGV[1] ttl: ms\n", ""), "ARGV"),
        (("-- ARGV[1] ttl: ms\n", "-- ARGV[1] ttl: ms\n-- ARGV[3] more: x\n"), "gap"),
        (("ARGV[1])", "ARGV[2])"), "ARGV"),
        (("KEYS[1], 1", "KEYS[2], 1"), "KEYS"),
    ],
)
def test_a_head_that_contradicts_its_body_is_refused(
    change: tuple[str, str], complaint: str
) -> None:
    with pytest.raises(scripts.ScriptError, match=complaint):
        scripts.check_head("bad", GOOD.replace(*change, 1))


def test_an_included_prelude_comes_first_and_key_names_before_all() -> None:
    text = scripts.load("lease_release").text
    assert text.startswith("local K_")
    assert "local K_ACCOUNT = 'gw:{pool}:account:'" in text
    assert text.index("The pool's rules") < text.index("Gives a slot back")
