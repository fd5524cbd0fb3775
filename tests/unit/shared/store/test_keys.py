"""The names of keys."""

import pytest

from shared.store import keys


def test_a_key_is_a_name_made_of_its_parts() -> None:
    assert keys.ready("chat", "1", "direct") == "gw:{pool}:ready:chat:1:direct"
    assert keys.leases() == "gw:{pool}:leases"


def test_a_missing_part_is_an_error() -> None:
    with pytest.raises(TypeError, match="3 parts"):
        keys.ready("chat")


@pytest.mark.parametrize("key", keys.ALL, ids=lambda key: key.template)
def test_every_key_is_documented_and_finds_itself(key: keys.Key) -> None:
    assert key.type in ("string", "hash", "zset", "set", "list", "stream")
    assert all((key.owner, key.ttl, key.holds))
    name = key(*(f"part{number}" for number in range(key.parts)))
    assert name.startswith("gw:")
    assert keys.find(name) is key


def test_an_account_id_may_hold_anything() -> None:
    assert keys.find(keys.account("odd:name\n@example.org")) is keys.account


def test_a_foreign_name_is_nobodys() -> None:
    assert keys.find("gw:{pool}:leases:more") is None
    assert keys.find("rq:queues") is None


def test_all_keys_of_the_pool_lie_on_one_node_of_a_cluster() -> None:
    pool = {"accounts", "leases", "waiters", "logins", "store"}
    for key in keys.ALL:
        assert key.owner not in pool or key.prefix.startswith("gw:{pool}:")


def test_the_table_has_a_line_for_every_key() -> None:
    table = keys.markdown_table()
    assert all(f"`{key.template}`" in table for key in keys.ALL)
    assert table.count("\n") == len(keys.ALL) + 2
