"""The record a launcher leaves, and who believes it."""

import stat
from pathlib import Path

import pytest

from shared import discovery
from shared.settings import SettingsError
from tests.fakes.redis_server import RedisServer, own_redis

__all__ = ["own_redis"]

KEYS = {"API_KEY": "sk-launcher", "SECRET_KEY": "s" * 40}


def test_a_process_started_alone_takes_over_what_the_launcher_published(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    path = discovery.record_path(str(tmp_path), "file")
    discovery.publish(path, {"REDIS_URL": own_redis.url, **KEYS})
    found = discovery.load_settings({"DATA_DIR": str(tmp_path), "SERVICE_PORT": "4000"})
    assert (found.redis_url, found.api_key, found.service_port) == (
        own_redis.url,
        "sk-launcher",
        4000,
    )


def test_the_environment_wins_over_the_record_and_empty_means_unset(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    path = discovery.record_path(str(tmp_path), "file")
    discovery.publish(path, {"REDIS_URL": own_redis.url, **KEYS})
    found = discovery.load_settings(
        {"DATA_DIR": str(tmp_path), "API_KEY": "sk-mine", "SECRET_KEY": ""}
    )
    assert (found.api_key, found.secret_key) == ("sk-mine", "s" * 40)


def test_a_record_whose_server_is_gone_is_not_believed(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    path = discovery.record_path(str(tmp_path), "file")
    discovery.publish(path, {"REDIS_URL": own_redis.url, **KEYS})
    own_redis.stop()
    with pytest.raises(SettingsError, match="no launcher runs"):
        discovery.load_settings({"DATA_DIR": str(tmp_path)})


@pytest.mark.parametrize("text", ["", "{}", "nonsense", '{"pid": 1}'])
def test_a_broken_record_is_none(tmp_path: Path, text: str) -> None:
    discovery.record_path(str(tmp_path), "file").write_text(text)
    assert discovery.find(str(tmp_path), "file") is None


def test_a_redis_url_of_ones_own_needs_no_launcher(tmp_path: Path) -> None:
    given = {"REDIS_URL": "redis://elsewhere", "DATA_DIR": str(tmp_path), **KEYS}
    assert discovery.load_settings(given).redis_url == "redis://elsewhere"


def test_the_record_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = discovery.record_path(str(tmp_path), "file")
    path.write_text("open to all")
    path.chmod(0o644)
    discovery.publish(path, KEYS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_launcher_withdraws_its_own_record_only(tmp_path: Path) -> None:
    path = discovery.record_path(str(tmp_path), "file")
    path.write_text('{"pid": 1, "variables": {}}')
    discovery.publish(path, KEYS, replace=False)
    discovery.withdraw(path)
    assert path.exists()
    discovery.publish(path, KEYS)
    discovery.withdraw(path)
    assert not path.exists()


def test_a_demos_record_lies_elsewhere(tmp_path: Path) -> None:
    memory = discovery.record_path(str(tmp_path), "none")
    assert tmp_path not in memory.parents
    assert memory == discovery.record_path(f"{tmp_path}/./", "none")
    assert memory != discovery.record_path(f"{tmp_path}/other", "none")
