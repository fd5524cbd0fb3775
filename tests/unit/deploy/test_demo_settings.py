"""What a demo takes from the environment, without starting one."""

from pathlib import Path

import pytest

from deploy import local
from shared.settings import SettingsError


def test_a_demo_is_in_memory_unless_the_environment_says_otherwise() -> None:
    assert local.demo_settings({}).data_save_mode == "none"
    assert local.demo_settings({"DATA_SAVE_MODE": ""}).data_save_mode == "none"
    assert local.demo_settings({"DATA_SAVE_MODE": "file"}).data_save_mode == "file"


def test_what_a_demo_keeps_lies_apart_from_real_accounts() -> None:
    assert local.demo_settings({"DATA_SAVE_MODE": "file"}).data_dir == "./data/demo"
    chosen = {"DATA_SAVE_MODE": "file", "DATA_DIR": "/elsewhere"}
    assert local.demo_settings(chosen).data_dir == "/elsewhere"
    assert local.demo_settings({}).data_dir == "./data"


def test_a_demo_honours_the_environment() -> None:
    given = local.demo_settings({"SERVICE_PORT": "4000", "WORKERS": "1", "API_KEY": "sk-mine"})
    assert (given.service_port, given.workers, given.api_key) == (4000, 1, "sk-mine")


def test_a_demo_refuses_a_wrong_value() -> None:
    with pytest.raises(SettingsError):
        local.demo_settings({"WORKERS": "many"})


def test_dotenv_is_made_once_and_never_overwritten(tmp_path: Path) -> None:
    path = local.own_dotenv(tmp_path)
    assert path.read_text() == (local.ROOT / ".env.example").read_text()
    path.write_text("MAX_BODY_MB=1\n")
    assert local.own_dotenv(tmp_path).read_text() == "MAX_BODY_MB=1\n"
