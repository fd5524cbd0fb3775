import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import settings
from shared.settings import (
    AccountEntry,
    Settings,
    SettingsError,
    changed,
    choices_of,
    default_of,
    description_of,
    environment_of,
    fixed_because,
    is_default,
    load,
    names,
    text_of,
    value_of,
)

REDIS = {
    "REDIS_URL": "redis://localhost/0",
    "API_KEY": "sk-a",
    "SECRET_KEY": "s" * 32,
}


def test_nothing_set_gives_the_defaults() -> None:
    assert load({}) == Settings()


# The contract's table (section 2): name → default as it stands there.
CONTRACT = {
    "LISTEN_ADDRESS": "127.0.0.1",
    "SERVICE_PORT": "3000",
    "API_KEY": "",
    "ACCOUNTS": "",
    "SEARCH_INFO_MODE": "table",
    "OUTPUT_THINK": "true",
    "LEGACY_REASONING_IN_CONTENT": "false",
    "SIMPLE_MODEL_MAP": "false",
    "MODELS_CACHE_TTL": "3600",
    "QWEN_CHAT_PROXY_URL": "https://chat.qwen.ai",
    "QWEN_CLI_PROXY_URL": "https://portal.qwen.ai",
    "PROXY_URL": "",
    "DATA_SAVE_MODE": "file",
    "REDIS_URL": "",
    "BATCH_LOGIN_CONCURRENCY": "5",
    "CACHE_MODE": "default",
    "CHAT_RETRY_COUNT": "2",
    "CHAT_RETRY_BACKOFF_MS": "400",
    "LOG_LEVEL": "INFO",
    "ENABLE_FILE_LOG": "false",
    "LOG_DIR": "./logs",
    "MAX_LOG_FILE_SIZE": "10",
    "MAX_LOG_FILES": "5",
    "WORKERS": "",
    "WORKER_MAX_MEMORY": "",
    "WORKER_PROCESSES": "1",
    "DATA_DIR": "./data",
    "SECRET_KEY": "",
    "SECRET_KEY_PREVIOUS": "",
    "ACCOUNT_CONCURRENCY": "2",
    "ACCOUNT_MIN_INTERVAL_MS": "0",
    "ACCOUNT_WAIT_SECONDS": "30",
    "LOGIN_MIN_INTERVAL_MS": "1000",
    "LEASE_TTL_SECONDS": "30",
    "FIRST_TOKEN_TIMEOUT_SECONDS": "120",
    "STREAM_IDLE_TIMEOUT_SECONDS": "60",
    "KEEPALIVE_SECONDS": "15",
    "VIDEO_POLL_INTERVAL_SECONDS": "10",
    "VIDEO_DEADLINE_SECONDS": "1200",
    "VIDEO_CREATE_WAITS": "false",
    "MAX_BODY_MB": "64",
    "RATE_LIMIT_PER_MINUTE": "0",
    "AUTO_REFRESH": "true",
    "MODEL_ALIASES": '\'{"claude-*":"qwen3-coder-plus"}\'',
    "METRICS_TOKEN": "",
    "CORS_ORIGINS": "",
    "TRUSTED_PROXIES": "",
    "ALLOW_PRIVATE_URLS": "false",
    "UPLOAD_ENDPOINT_URL": "",
    "DRAIN_DELAY_SECONDS": "5",
    "DRAIN_SECONDS": "30",
    "SITE_COOKIES": "",
    "CLI_OAUTH_ENABLED": "false",
    "CLI_BASE_URL": "",
    "CLI_API_KEYS": "",
}
# What the contract is silent about (issue 3: headers from configuration).
OURS = {"SITE_HEADERS": "{}"}


def test_the_example_holds_every_name_of_the_contract_with_its_default() -> None:
    lines = settings.render_env().splitlines()
    pairs = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert pairs == CONTRACT | OURS


def test_the_example_as_it_is_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(settings.render_env())
    assert load({}, settings.read_dotenv(tmp_path / ".env")) == Settings()


def test_the_table_of_the_readme_has_a_row_per_setting() -> None:
    rows = settings.render_table().splitlines()
    named = [row for row in rows if re.match(r"\| `[A-Z_]+` \|", row)]
    assert len(named) == len(CONTRACT | OURS)
    assert all(row.replace(r"\|", "").count("|") == 5 for row in rows)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SERVICE_PORT", "0", "SERVICE_PORT: expected a whole number from 1 to 65535, got '0'"),
        (
            "SERVICE_PORT",
            "70000",
            "SERVICE_PORT: expected a whole number from 1 to 65535, got '70000'",
        ),
        (
            "SERVICE_PORT",
            "http",
            "SERVICE_PORT: expected a whole number from 1 to 65535, got 'http'",
        ),
        ("WORKERS", "0", "WORKERS: expected auto or a whole number from 1 up, got '0'"),
        ("WORKERS", "many", "WORKERS: expected auto or a whole number from 1 up, got 'many'"),
        ("WORKERS", "-1", "WORKERS: expected auto or a whole number from 1 up, got '-1'"),
        (
            "OUTPUT_THINK",
            "yes",
            "OUTPUT_THINK: expected true or false (1 and 0 work too), got 'yes'",
        ),
        ("SEARCH_INFO_MODE", "list", "SEARCH_INFO_MODE: expected one of table, text, got 'list'"),
        ("LOG_LEVEL", "LOUD", "LOG_LEVEL: expected one of DEBUG, INFO, WARNING, ERROR, got 'LOUD'"),
        ("KEEPALIVE_SECONDS", "0.5", "KEEPALIVE_SECONDS: expected a number from 1 up, got '0.5'"),
        ("CHAT_RETRY_COUNT", "-1", "CHAT_RETRY_COUNT: expected a whole number from 0 up, got '-1'"),
        (
            "BATCH_LOGIN_CONCURRENCY",
            "51",
            "BATCH_LOGIN_CONCURRENCY: expected a whole number from 1 to 50, got '51'",
        ),
        ("REDIS_URL", "http://x", "REDIS_URL: "),
        ("PROXY_URL", "ftp://x", "PROXY_URL: "),
        ("QWEN_CHAT_PROXY_URL", "chat.qwen.ai", "QWEN_CHAT_PROXY_URL: "),
        ("QWEN_CHAT_PROXY_URL", "https://:99", "QWEN_CHAT_PROXY_URL: expected a URL with a host"),
        ("WORKER_MAX_MEMORY", "lots", "WORKER_MAX_MEMORY: expected megabytes, or a size like"),
        ("MODEL_ALIASES", "[]", "MODEL_ALIASES: expected a JSON object"),
        ("MODEL_ALIASES", "nonsense", "MODEL_ALIASES: expected a JSON object"),
        ("MODEL_ALIASES", '{"":"x"}', "MODEL_ALIASES: empty names"),
        ("SITE_HEADERS", "version=1", "SITE_HEADERS: expected a JSON object"),
        ("SITE_HEADERS", '{"version": 1}', "SITE_HEADERS: expected a JSON object"),
        ("SITE_HEADERS", '{"a b": "c"}', "SITE_HEADERS: 'a b' is no name of a header"),
        ("SITE_HEADERS", '{"Cookie": "a=b"}', "SITE_HEADERS: cookie is the gateway's own"),
        ("SITE_HEADERS", '{"bx-v": "1\\r\\nhost: x"}', "SITE_HEADERS: the value of bx-v is not"),
        ("ACCOUNTS", "a@b.c:pw,nobody", "ACCOUNTS: entry 2 is not"),
        ("SECRET_KEY", "short", "SECRET_KEY: expected at least 32 characters, got a secret value"),
        ("DATA_SAVE_MODE", "redis", "REDIS_URL: required with DATA_SAVE_MODE=redis"),
        ("DRAIN_SECONDS", "nan", "DRAIN_SECONDS: "),
        ("DRAIN_SECONDS", "inf", "DRAIN_SECONDS: "),
        ("LISTEN_ADDRESS", "a\nb", "LISTEN_ADDRESS: a line break or NUL"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_is_accepted(
    name: str, value: str, message: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load({name: value})
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "hunter2"),
        ("PROXY_URL", "ftp://u:hunter2@x"),
        ("REDIS_URL", "http://:hunter2@x"),
        ("ACCOUNTS", "nobody-hunter2"),
        ("SECRET_KEY_PREVIOUS", "hunter2"),
    ],
)
def test_a_refusal_never_shows_a_secret(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({name: value})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("missing", ["API_KEY", "SECRET_KEY"])
def test_redis_mode_requires_what_every_host_must_share(missing: str) -> None:
    given = {name: value for name, value in REDIS.items() if name != missing}
    with pytest.raises(SettingsError, match=f"^{missing}: required with DATA_SAVE_MODE=redis"):
        load(given)


def test_a_redis_url_implies_redis_mode() -> None:
    assert load(REDIS).data_save_mode == "redis"
    assert load({**REDIS, "DATA_SAVE_MODE": "file"}).data_save_mode == "redis"


def test_an_empty_value_means_unset() -> None:
    assert load({"SERVICE_PORT": "", "API_KEY": ""}) == Settings()
    assert load({"SERVICE_PORT": ""}, {"SERVICE_PORT": "4000"}).service_port == 4000


def test_the_environment_wins_over_dotenv() -> None:
    given = load({"SERVICE_PORT": "1"}, {"SERVICE_PORT": "2", "MAX_BODY_MB": "3"})
    assert (given.service_port, given.max_body_mb) == (1, 3)


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("false", False), ("1", True), ("0", False)]
)
def test_switches_take_true_false_and_digits(value: str, expected: bool) -> None:
    assert load({"SIMPLE_MODEL_MAP": value}).simple_model_map is expected


@pytest.mark.parametrize("value", ["True", "FALSE", "TRUE"])
def test_switches_are_read_in_any_case(value: str) -> None:
    assert load({"SIMPLE_MODEL_MAP": value}).simple_model_map is (value.lower() == "true")


def test_an_unknown_name_in_dotenv_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        SettingsError, match=r"SERVICE_PROT in \.env is not a setting; did you mean SERVICE_PORT\?"
    ):
        load({}, {"SERVICE_PROT": "1"})
    with pytest.raises(SettingsError, match=r"see \.env\.example"):
        load({}, {"ZZZ": "1"})


def test_an_unknown_name_in_the_environment_is_not_ours_to_judge() -> None:
    assert load({"SERVICE_PROT": "1", "PATH": "/bin"}) == Settings()


@pytest.mark.parametrize(
    ("old", "new", "value", "read"),
    [("PM2_INSTANCES", "workers", "3", 3), ("PM2_MAX_MEMORY", "worker_max_memory", "300M", "300M")],
)
def test_old_names_are_accepted_with_a_notice(old: str, new: str, value: str, read: object) -> None:
    assert getattr(load({old: value}), new) == read
    assert getattr(load({}, {old: value}), new) == read
    assert settings.notices({old: value}) == [f"{old} is now called {new.upper()}; it was accepted"]
    assert settings.notices({}, {old: value}) != []
    assert settings.notices({}) == []


def test_a_new_name_wins_over_its_old_one() -> None:
    assert load({"PM2_INSTANCES": "3", "WORKERS": "2"}).workers == 2


@pytest.mark.parametrize("value", ["auto", "AUTO", "max"])
def test_workers_auto_is_the_cores(value: str) -> None:
    assert load({"WORKERS": value}).gateway_processes >= 1


def test_cache_mode_file_says_what_it_means_now() -> None:
    assert len(settings.notices({"CACHE_MODE": "file"})) == 1


def test_dotenv_keeps_dollars_and_quoted_hashes(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "HOME_OF=ignored\n"
        "ACCOUNTS='a@example.com:pa$$word${HOME}#1,b@example.com:x y'\n"
        "API_KEY=sk-$HOME\n"
        "SITE_COOKIES=a=b#c\n"
    )
    read = settings.read_dotenv(tmp_path / ".env")
    assert read["ACCOUNTS"] == "a@example.com:pa$$word${HOME}#1,b@example.com:x y"
    assert read["API_KEY"] == "sk-$HOME"
    assert read["SITE_COOKIES"] == "a=b#c"


def test_a_missing_dotenv_is_an_empty_one(tmp_path: Path) -> None:
    assert settings.read_dotenv(tmp_path / ".env") == {}


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        (" , ", []),
        ("a@b.c:pw", [("a@b.c", "pw", "")]),
        ("a@b.c:p:w", [("a@b.c", "p:w", "")]),
        ("a@b.c:p|w", [("a@b.c", "p|w", "")]),
        ("a@b.c:pw|http://p:1", [("a@b.c", "pw", "http://p:1")]),
        ("a@b.c:p|w|socks5://u:x@h:1", [("a@b.c", "p|w", "socks5://u:x@h:1")]),
        ("a@b.c:1, d@e.f:2 ", [("a@b.c", "1", ""), ("d@e.f", "2", "")]),
        ("a@b.c:pa$$#word", [("a@b.c", "pa$$#word", "")]),
    ],
)
def test_accounts_are_split_at_the_first_colon_and_the_last_bar(
    text: str, entries: list[tuple[str, str, str]]
) -> None:
    assert settings.parse_accounts(text) == [AccountEntry(*entry) for entry in entries]


@pytest.mark.parametrize("text", ["a@b.c", "a@b.c:", "nobody:pw", ":pw"])
def test_an_account_without_email_or_password_is_named_by_its_number(text: str) -> None:
    with pytest.raises(SettingsError, match="entry 1"):
        settings.parse_accounts(text)


def test_printing_settings_masks_every_secret() -> None:
    given = load(
        {
            **REDIS,
            "REDIS_URL": "redis://:hunter2@h",
            "API_KEY": "sk-hunter2",
            "ACCOUNTS": "a@b.c:hunter2",
            "SECRET_KEY": "hunter2" * 6,
            "METRICS_TOKEN": "hunter2",
            "PROXY_URL": "http://u:hunter2@h",
            "SITE_COOKIES": "a=hunter2",
            "CLI_API_KEYS": "hunter2",
        }
    )
    assert "hunter2" not in repr(given)
    assert "hunter2" not in f"{given}"
    assert "service_port=3000" in repr(given)


@given(
    port=st.integers(1, 65535),
    workers=st.integers(0, 64),
    seconds=st.floats(1, 10_000),
    think=st.booleans(),
    key=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1).map(str.strip),
)
def test_a_child_loads_the_very_settings_it_was_handed(
    port: int, workers: int, seconds: float, think: bool, key: str
) -> None:
    given = Settings(
        service_port=port,
        workers=workers,
        keepalive_seconds=seconds,
        output_think=think,
        api_key=key,
        accounts="a@b.c:p$#'\"w|http://p:1",
    )
    assert load(environment_of(given)) == given


@pytest.mark.parametrize(
    ("text", "megabytes"), [("", None), ("300M", 300), ("1G", 1024), ("500", 500)]
)
def test_memory_is_read_in_megabytes(text: str, megabytes: int | None) -> None:
    assert load({"WORKER_MAX_MEMORY": text}).worker_max_memory_mb == megabytes


# -- changed while the fleet runs


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("batch_login_concurrency", 50, 50),
        ("batch_login_concurrency", "7", 7),
        ("output_think", False, False),
        ("keepalive_seconds", 3, 3.0),
        ("search_info_mode", "text", "text"),
        ("log_level", "debug", "DEBUG"),
        ("model_aliases", {"a": "b"}, '{"a":"b"}'),
        ("model_aliases", '{"a":"b"}', '{"a":"b"}'),
        ("site_cookies", "", ""),
    ],
)
def test_a_changed_setting_is_read_as_the_environments(
    name: str, value: object, read: object
) -> None:
    before = Settings(chat_retry_count=9)
    after = changed(before, name, value)
    assert getattr(after, name) == read
    assert after == msgspec.structs.replace(before, **{name: read})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_login_concurrency", 0, "BATCH_LOGIN_CONCURRENCY: expected a whole number from 1"),
        ("batch_login_concurrency", 51, "BATCH_LOGIN_CONCURRENCY: expected a whole number from 1"),
        ("batch_login_concurrency", None, "BATCH_LOGIN_CONCURRENCY: expected a whole number"),
        ("batch_login_concurrency", [1], "BATCH_LOGIN_CONCURRENCY: expected a whole number"),
        ("batch_login_concurrency", True, "BATCH_LOGIN_CONCURRENCY: expected a whole number"),
        ("chat_retry_count", 1.5, "CHAT_RETRY_COUNT: expected a whole number from 0 up, got 1.5"),
        ("keepalive_seconds", 0.5, "KEEPALIVE_SECONDS: expected a number from 1 up, got 0.5"),
        ("keepalive_seconds", "nan", "KEEPALIVE_SECONDS: "),
        ("output_think", "perhaps", "OUTPUT_THINK: expected true or false"),
        ("search_info_mode", "list", "SEARCH_INFO_MODE: expected one of table, text, got 'list'"),
        ("model_aliases", {"a": 1}, "MODEL_ALIASES: expected a JSON object of strings"),
        ("model_aliases", {"": "b"}, "MODEL_ALIASES: empty names"),
        ("model_aliases", 5, "MODEL_ALIASES: expected a JSON object of strings"),
        ("site_cookies", 5, "SITE_COOKIES: expected text, got a secret value"),
        ("site_cookies", "a\nb", "SITE_COOKIES: a line break or NUL in the value"),
        ("batch_login_concurency", 5, "batch_login_concurency: there is no such setting; did you "),
        ("BATCH_LOGIN_CONCURRENCY", 5, "BATCH_LOGIN_CONCURRENCY: there is no such setting; did "),
        ("", 5, ": there is no such setting"),
        ("__class__", 5, "__class__: there is no such setting"),
        ("service_port", 5, "service_port: changes with the next start only, because the gateway "),
        ("api_key", "sk-1", "api_key: changes with the next start only, because it must hold "),
    ],
)
def test_a_wrong_change_is_refused_with_the_settings_name(
    name: str, value: object, message: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        changed(Settings(), name, value)
    assert str(refused.value).startswith(message)
    assert refused.value.setting == name


def test_what_holds_sockets_processes_or_seals_changes_with_a_start_only() -> None:
    for name in ("service_port", "workers", "secret_key", "api_key", "redis_url", "data_dir"):
        assert fixed_because(name), name
    named_by_the_contract = (
        "batch_login_concurrency", "chat_retry_count", "search_info_mode", "output_think",
        "simple_model_map", "rate_limit_per_minute", "model_aliases", "auto_refresh",
    )  # fmt: skip
    for name in named_by_the_contract:
        assert fixed_because(name) is None, name


def test_every_setting_is_shown_with_default_and_description_and_no_secret() -> None:
    settings = Settings(site_cookies="hidden", api_key="sk-hidden", accounts="a@b.c:hidden")
    for name in names():
        assert description_of(name)
        assert "hidden" not in str(value_of(settings, name))
    assert value_of(settings, "site_cookies") == "***"
    assert value_of(settings, "metrics_token") == ""
    assert default_of("model_aliases") == {"claude-*": "qwen3-coder-plus"}
    assert not is_default(settings, "api_key")
    assert value_of(settings, "workers") == text_of(settings, "workers") == "auto"
    assert text_of(settings, "site_cookies") == ""
    assert text_of(settings, "keepalive_seconds") == "15"
    assert text_of(settings, "output_think") == "true"
    assert choices_of("output_think") == ("true", "false")
    assert choices_of("search_info_mode") == ("table", "text")
    assert choices_of("keepalive_seconds") == ()
