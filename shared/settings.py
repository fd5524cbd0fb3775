"""Configuration, declared once.

Every variable of the product is one field of `Settings`: name, type, default, bounds, sentence.
`.env.example`, the table in the README and the checks of a start are generated from it.

    python -m shared.settings env      prints .env.example
    python -m shared.settings table    prints the README table
    python -m shared.settings check    reads the environment and `.env`, reports what is wrong

A setting can be changed while the fleet runs (`PATCH /api/settings`) unless its field says under
`fixed` why it can't; `shared/store/settings.py` holds what is in force.

Knows: names, defaults, bounds, old names. Does not know: who uses which setting.
"""

import math
import os
import re
import sys
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

MODEL_ALIASES_DEFAULT = '{"claude-*":"qwen3-coder-plus"}'


class SettingsError(ValueError):
    """A variable is wrong, missing or unknown. The message names it and says what is accepted.

    `setting`: its name in lower case, where it was to be changed while the fleet runs.
    """

    def __init__(self, message: str, *, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting


class UnknownSetting(SettingsError):
    """There is no setting of that name, or none that may be changed while the fleet runs."""


def _m(
    description: str,
    *,
    group: str,
    secret: bool = False,
    fixed: str | None = None,
    shown: str | None = None,
    accepts: str | None = None,
    holds_json: bool = False,
    **bounds: Any,  # of msgspec's Meta
) -> Meta:
    """What a field means.

    Args:
        shown: replaces the default in the table.
        secret: masks the value wherever it is shown.
        fixed: why it holds from a start to the next one; whoever uses a setting without `fixed`
            reads it from the settings in force, each time anew.
        accepts: what a refusal says is accepted, where type and bounds don't say it.
        holds_json: its text is JSON; in the admin's API it is what that text says.
    """
    extra = {
        "group": group,
        "secret": secret,
        "fixed": fixed,
        "shown": shown,
        "accepts": accepts,
        "holds_json": holds_json,
    }
    return Meta(description=description, extra=extra, **bounds)


_LISTENS = "the gateway listens already"
_PROCESSES = "processes are started with it"
_DRAIN = "a process that stops asks nobody"
_ROOT = "everything sealed depends on it"
_LAYERS = "the layers around every request are built at a start"
_LOG = "the log is open"
_STORE = "it says where stored settings lie"
_UPSTREAM = "tokens and model list belong to the upstream that gave them"
_LANE = "the lane is set up at a start"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of one process. Field name in capitals = environment variable."""

    # -- service
    listen_address: Annotated[
        str, _m("Address the gateway listens on.", group="service", fixed=_LISTENS)
    ] = "127.0.0.1"
    service_port: Annotated[
        int, _m("Port the gateway listens on.", group="service", fixed=_LISTENS, ge=1, le=65535)
    ] = 3000
    workers: Annotated[
        int,
        _m(
            "Gateway processes; `auto` = cores.",
            group="service",
            fixed=_PROCESSES,
            shown="auto",
            accepts="auto or a whole number from 1 up",
            ge=0,
        ),
    ] = 0
    worker_max_memory: Annotated[
        str,
        _m(
            "Restart a gateway process above this (`300M`, `1G`).",
            group="service",
            fixed=_PROCESSES,
            accepts="megabytes, or a size like 300M or 1G",
            pattern=r"^([1-9][0-9]*[MG]?)?$",
        ),
    ] = ""
    worker_processes: Annotated[
        int, _m("Job processes.", group="service", fixed=_PROCESSES, ge=1)
    ] = 1
    max_body_mb: Annotated[
        int, _m("Largest request body in MB; above it 413.", group="service", ge=1)
    ] = 64
    drain_delay_seconds: Annotated[
        float,
        _m(
            "On SIGTERM, keep accepting this long with `/readyz` 503 so that balancers notice "
            "(SIGINT skips it).",
            group="service",
            fixed=_DRAIN,
            ge=0,
        ),
    ] = 5
    drain_seconds: Annotated[
        float,
        _m(
            "Then the longest wait for open streams, after which they end with an in-band error.",
            group="service",
            fixed=_DRAIN,
            ge=0,
        ),
    ] = 30
    cors_origins: Annotated[
        str,
        _m(
            "Comma list of origins allowed by CORS; `*` for all.",
            group="service",
            fixed=_LAYERS,
        ),
    ] = ""
    trusted_proxies: Annotated[
        str,
        _m(
            "Comma list of addresses whose `X-Forwarded-*` headers are believed.",
            group="service",
            fixed=_LAYERS,
        ),
    ] = ""
    metrics_token: Annotated[
        str, _m("Bearer token of `/metrics`; empty = open.", group="service", secret=True)
    ] = ""

    # -- keys and accounts
    api_key: Annotated[
        str,
        _m(
            "Comma list; the first is the admin key, the others are regular keys.",
            group="keys and accounts",
            fixed="it must hold while Redis is away; further keys come from /api/keys",
            secret=True,
            shown="generated on first start, printed once, kept under `DATA_DIR`",
        ),
    ] = ""
    accounts: Annotated[
        str,
        _m(
            "`email:password[|proxy_url]`, comma separated. Start adds the missing ones and takes "
            "over changed passwords; a deleted account stays deleted until its entry changes.",
            group="keys and accounts",
            fixed="accounts are added and changed through /api/accounts",
            secret=True,
        ),
    ] = ""
    rate_limit_per_minute: Annotated[
        int,
        _m(
            "Default requests per minute per API key, 0 = no limit.",
            group="keys and accounts",
            ge=0,
        ),
    ] = 0
    secret_key: Annotated[
        str,
        _m(
            "Seals passwords and tokens at rest (AES-256-GCM), at least 32 characters. Required "
            "with `DATA_SAVE_MODE=redis`.",
            group="keys and accounts",
            fixed=_ROOT,
            secret=True,
            shown="generated and kept under `DATA_DIR`",
            accepts="at least 32 characters",
            pattern=r"^(.{32,})?$",
        ),
    ] = ""
    secret_key_previous: Annotated[
        str,
        _m(
            "The secret key before a rotation: what it sealed can still be read.",
            group="keys and accounts",
            fixed=_ROOT,
            secret=True,
            accepts="at least 32 characters",
            pattern=r"^(.{32,})?$",
        ),
    ] = ""
    account_concurrency: Annotated[
        int, _m("Streams one account carries at once.", group="keys and accounts", ge=1)
    ] = 2
    account_min_interval_ms: Annotated[
        int, _m("Pause between two requests of one account.", group="keys and accounts", ge=0)
    ] = 0
    account_wait_seconds: Annotated[
        float,
        _m(
            "How long a turn waits for a busy account (keep-alives run; not part of the "
            "first-token deadline), then 503 `no_account`.",
            group="keys and accounts",
            ge=1,
        ),
    ] = 30
    login_min_interval_ms: Annotated[
        int,
        _m(
            "Pause between two logins through one egress address.",
            group="keys and accounts",
            ge=0,
        ),
    ] = 1000
    batch_login_concurrency: Annotated[
        int,
        _m("Logins at once across all job processes.", group="keys and accounts", ge=1, le=50),
    ] = 5
    lease_ttl_seconds: Annotated[
        float,
        _m(
            "After this a lease that nobody extended is free again.",
            group="keys and accounts",
            fixed="leases that are lent keep the life they were lent with",
            ge=1,
        ),
    ] = 30
    auto_refresh: Annotated[
        bool, _m("Refresh account tokens before they lapse.", group="keys and accounts")
    ] = True

    # -- answers
    search_info_mode: Annotated[
        Literal["table", "text"], _m("How search sources are shown.", group="answers")
    ] = "table"
    output_think: Annotated[
        bool, _m("Whether reasoning reaches the client at all.", group="answers")
    ] = True
    legacy_reasoning_in_content: Annotated[
        bool, _m("Reasoning inside `content` as `<think>…</think>`.", group="answers")
    ] = False
    simple_model_map: Annotated[bool, _m("List base models only.", group="answers")] = False
    models_cache_ttl: Annotated[
        int, _m("Life of the model list in seconds; 0 = until restart.", group="answers", ge=0)
    ] = 3600
    model_aliases: Annotated[
        str,
        _m(
            "JSON object from foreign model names to ours, `*` allowed, first match wins.",
            group="answers",
            holds_json=True,
        ),
    ] = MODEL_ALIASES_DEFAULT

    # -- upstream
    qwen_chat_proxy_url: Annotated[
        str,
        _m(
            "Base URL of the web upstream.",
            group="upstream",
            fixed=_UPSTREAM,
            accepts="an http:// or https:// URL",
            pattern=r"^https?://.+",
        ),
    ] = "https://chat.qwen.ai"
    qwen_cli_proxy_url: Annotated[
        str,
        _m(
            "Base URL of the portal upstream.",
            group="upstream",
            fixed=_UPSTREAM,
            accepts="an http:// or https:// URL",
            pattern=r"^https?://.+",
        ),
    ] = "https://portal.qwen.ai"
    proxy_url: Annotated[
        str,
        _m(
            "Egress proxy for everything (http, https, socks5); an account's own proxy wins.",
            group="upstream",
            fixed="connections through it are open",
            secret=True,
            accepts="an http://, https:// or socks5:// URL",
            pattern=r"^((https?|socks5h?)://.+)?$",
        ),
    ] = ""
    site_cookies: Annotated[
        str,
        _m(
            "Cookies an operator supplies for the upstream site, sent as they are.",
            group="upstream",
            secret=True,
        ),
    ] = ""
    site_headers: Annotated[
        str,
        _m(
            "JSON object of headers in place of ours at the upstream site, for the day it wants "
            'others (`{"version":"0.2.64"}`); an empty text leaves one out.',
            group="upstream",
            holds_json=True,
        ),
    ] = "{}"
    upload_endpoint_url: Annotated[
        str,
        _m(
            "Where uploads go, path style; empty = the host named by the upload credential.",
            group="upstream",
            fixed=_UPSTREAM,
            accepts="an http:// or https:// URL",
            pattern=r"^(https?://.+)?$",
        ),
    ] = ""
    allow_private_urls: Annotated[
        bool, _m("Allow media addresses in private ranges.", group="upstream")
    ] = False
    chat_retry_count: Annotated[
        int,
        _m(
            "Further attempts before the first byte, on other accounts.",
            group="upstream",
            ge=0,
        ),
    ] = 2
    chat_retry_backoff_ms: Annotated[
        int, _m("Base of the jittered back-off.", group="upstream", ge=0)
    ] = 400
    first_token_timeout_seconds: Annotated[
        float, _m("Longest wait of one attempt for its first token.", group="upstream", ge=1)
    ] = 120
    stream_idle_timeout_seconds: Annotated[
        float, _m("Longest silence of an upstream stream.", group="upstream", ge=1)
    ] = 60
    keepalive_seconds: Annotated[
        float, _m("Longest silence on an open stream towards the client.", group="upstream", ge=1)
    ] = 15
    video_poll_interval_seconds: Annotated[
        float, _m("Pause between two looks at a video.", group="upstream", ge=1)
    ] = 10
    video_deadline_seconds: Annotated[
        float, _m("After this a video has failed.", group="upstream", ge=1)
    ] = 1200
    video_create_waits: Annotated[
        bool, _m("`POST /v1/videos` answers when the video is done.", group="upstream")
    ] = False
    cli_oauth_enabled: Annotated[
        bool,
        _m(
            "Use the free device-login lane (it was ended upstream in April 2026).",
            group="upstream",
            fixed=_LANE,
        ),
    ] = False
    cli_base_url: Annotated[
        str,
        _m(
            "Base URL of the official OpenAI-compatible service for `/cli`.",
            group="upstream",
            fixed=_LANE,
            accepts="an http:// or https:// URL",
            pattern=r"^(https?://.+)?$",
        ),
    ] = ""
    cli_api_keys: Annotated[
        str,
        _m("Comma list of official keys for `/cli`.", group="upstream", fixed=_LANE, secret=True),
    ] = ""

    # -- storage
    data_save_mode: Annotated[
        Literal["none", "file", "redis"],
        _m(
            "`none`: embedded Redis, nothing on disk · `file`: embedded Redis persisted under "
            "`DATA_DIR` · `redis`: `REDIS_URL`.",
            group="storage",
            fixed=_STORE,
        ),
    ] = "file"
    redis_url: Annotated[
        str,
        _m(
            "`redis://`, `rediss://`, `unix://`, `redis+sentinel://` or `redis+cluster://`; "
            "implies `DATA_SAVE_MODE=redis`.",
            group="storage",
            fixed=_STORE,
            secret=True,
            accepts="a redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL",
            pattern=r"^((redis|rediss|unix|redis\+sentinel|redis\+cluster)://.+)?$",
        ),
    ] = ""
    data_dir: Annotated[
        str, _m("Embedded Redis files and generated secrets.", group="storage", fixed=_STORE)
    ] = "./data"
    cache_mode: Annotated[
        Literal["default", "file"],
        _m(
            "Kept for old files: both mean the shared image cache in Redis.",
            group="storage",
            fixed="it changes nothing",
        ),
    ] = "default"

    # -- logging
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        _m("Least level that is logged.", group="logging"),
    ] = "INFO"
    enable_file_log: Annotated[bool, _m("Also log to files.", group="logging", fixed=_LOG)] = False
    log_dir: Annotated[str, _m("Where log files go.", group="logging", fixed=_LOG)] = "./logs"
    max_log_file_size: Annotated[
        int,
        _m("Size in MB at which a log file is rotated.", group="logging", fixed=_LOG, ge=1),
    ] = 10
    max_log_files: Annotated[
        int, _m("Rotated log files kept.", group="logging", fixed=_LOG, ge=1)
    ] = 5

    def __repr__(self) -> str:
        """Secrets are masked: a settings object may end up in a log line or a traceback."""
        shown = (
            f"{name}={'***' if is_secret(name) and getattr(self, name) else getattr(self, name)!r}"
            for name in self.__struct_fields__
        )
        return f"Settings({', '.join(shown)})"

    @property
    def max_body_bytes(self) -> int:
        return self.max_body_mb * 1024 * 1024

    @property
    def gateway_processes(self) -> int:
        """`WORKERS`, with `auto` resolved to the cores this process may use."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def api_keys(self) -> tuple[str, ...]:
        """The keys of `API_KEY`, the admin key first."""
        return tuple(key.strip() for key in self.api_key.split(",") if key.strip())

    @property
    def secret_values(self) -> frozenset[str]:
        """Every secret of this configuration, whole and in its parts: what no log line may hold."""
        lists = (self.api_key, self.cli_api_keys)
        values = {part.strip() for text in lists for part in text.split(",")}
        values |= {self.secret_key, self.secret_key_previous, self.metrics_token, self.site_cookies}
        entries = parse_accounts(self.accounts)
        values |= {entry.password for entry in entries}
        for url in (self.redis_url, self.proxy_url, *(entry.proxy for entry in entries)):
            password = urllib.parse.urlsplit(url).password or ""
            values |= {password, urllib.parse.unquote(password)}
        return frozenset(value for value in values if value)

    @property
    def aliases(self) -> dict[str, str]:
        return msgspec.json.decode(self.model_aliases, type=dict[str, str])

    @property
    def changed_site_headers(self) -> dict[str, str]:
        """Lower-case names."""
        headers = msgspec.json.decode(self.site_headers, type=dict[str, str])
        return {name.lower(): value for name, value in headers.items()}

    @property
    def worker_max_memory_mb(self) -> int | None:
        if not self.worker_max_memory:
            return None
        digits = self.worker_max_memory.rstrip("MG")
        return int(digits) * (1024 if self.worker_max_memory.endswith("G") else 1)


# Old name → its successor. The old name is accepted, with a notice.
RENAMED = {"PM2_INSTANCES": "WORKERS", "PM2_MAX_MEMORY": "WORKER_MAX_MEMORY"}

# Variables of processes we start or of tools around us that share our `.env`; accepted, not ours.
FOREIGN = {"PROMETHEUS_MULTIPROC_DIR", "RQ_KEY_PREFIX"}

_HINTS = get_type_hints(Settings, include_extras=True)
_DEFAULTS = dict(  # all fields have one
    zip(Settings.__struct_fields__, Settings.__struct_defaults__, strict=True)
)


def is_secret(name: str) -> bool:
    return bool(_meta(name)["secret"])


def names() -> tuple[str, ...]:
    return Settings.__struct_fields__


def group_of(name: str) -> str:
    return str(_meta(name)["group"])


def fixed_because(name: str) -> str | None:
    """Why this setting holds from a start to the next one; None: it can be changed meanwhile."""
    reason: str | None = _meta(name)["fixed"]
    return reason


def description_of(name: str) -> str:
    return str(_meta(name)["description"])


def default_of(name: str) -> object:
    """The default as the admin's API shows it."""
    return _told(name, _DEFAULTS[name])


def value_of(settings: Settings, name: str) -> object:
    """A setting as the admin's API shows it; a secret is masked."""
    value = getattr(settings, name)
    if is_secret(name):
        return "***" if value else ""
    return _told(name, value)


def text_of(settings: Settings, name: str) -> str:
    """A setting as the environment would have it; never a secret."""
    return "" if is_secret(name) else _text(_unless_auto(name, getattr(settings, name)))


def choices_of(name: str) -> tuple[str, ...]:
    """All the texts that this setting takes; none where they can't be listed."""
    hint: Any = get_args(_HINTS[name])[0]  # a type, or typing's form of one
    return ("true", "false") if hint is bool else get_args(hint)


def is_default(settings: Settings, name: str) -> bool:
    return bool(getattr(settings, name) == _DEFAULTS[name])


def require_changeable(name: str) -> None:
    """
    Raises:
        UnknownSetting: there is no setting of that name, or it is fixed until the next start.
    """
    if name not in _HINTS:
        raise UnknownSetting(f"{name}: there is no such setting{_suggestion(name)}", setting=name)
    if reason := fixed_because(name):
        raise UnknownSetting(
            f"{name}: changes with the next start only, because {reason}", setting=name
        )


def changed(settings: Settings, name: str, value: object) -> Settings:
    """`settings` with one setting changed while the fleet runs.

    Args:
        value: as JSON or the environment has it.

    Raises:
        UnknownSetting: see `require_changeable`.
        SettingsError: wrong value.
    """
    require_changeable(name)
    try:
        return _changed(settings, name, value)
    except SettingsError as error:
        error.setting = name
        raise


def _changed(settings: Settings, name: str, value: object) -> Settings:
    if _meta(name)["holds_json"] and not isinstance(value, str):
        value = msgspec.json.encode(value).decode()
    if isinstance(value, str) and ("\n" in value or "\0" in value):
        raise SettingsError(f"{name.upper()}: a line break or NUL in the value")
    if name == "log_level" and isinstance(value, str):
        value = _log_level(value)
    try:
        read = msgspec.convert(value, _HINTS[name], strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_refusal(name, value)) from error
    new = msgspec.structs.replace(settings, **{name: read})
    _check(new)
    return new


def _told(name: str, value: object) -> object:
    if _meta(name)["holds_json"]:
        return msgspec.json.decode(str(value))
    return _unless_auto(name, value)


def _unless_auto(name: str, value: object) -> object:
    return "auto" if name == "workers" and value == 0 else value


def _suggestion(name: str) -> str:
    import difflib

    names = [known for known in _HINTS if fixed_because(known) is None]
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _meta(name: str) -> dict[str, Any]:
    meta: Meta = get_args(_HINTS[name])[1]
    return {"description": meta.description, **(meta.extra or {})}


def load(environ: Mapping[str, str], dotenv: Mapping[str, str | None] | None = None) -> Settings:
    """Read the settings; the environment wins over `.env`, an empty value means unset.

    Raises:
        SettingsError: a wrong value, an unknown name in `.env`, a missing required one.
    """
    values = _from_dotenv(dotenv or {}) | _known(environ)
    for name, text in values.items():
        if "\n" in text or "\0" in text:
            raise SettingsError(f"{name.upper()}: a line break or NUL in the value")
    if values.get("workers") == "0":  # our own word for auto, below
        raise SettingsError(_refusal("workers", "0"))
    if values.get("workers", "").lower() in ("auto", "max"):
        values["workers"] = "0"
    if "redis_url" in values:
        values["data_save_mode"] = "redis"
    if "log_level" in values:
        values["log_level"] = _log_level(values["log_level"])
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), values)) from error
    _check(settings)
    return settings


def _log_level(text: str) -> str:
    level = text.upper()
    return "WARNING" if level == "WARN" else level


def notices(
    environ: Mapping[str, str], dotenv: Mapping[str, str | None] | None = None
) -> list[str]:
    """One line for each accepted old name or value that means less than it did."""
    given = {**{k: v for k, v in (dotenv or {}).items() if v}, **environ}
    lines = [
        f"{old} is now called {new}; it was accepted"
        for old, new in RENAMED.items()
        if given.get(old)
    ]
    if given.get("CACHE_MODE") == "file":
        lines.append("CACHE_MODE=file: images are cached in Redis, shared by all processes")
    return lines


def _known(environ: Mapping[str, str]) -> dict[str, str]:
    names = {name.upper(): name for name in Settings.__struct_fields__}
    renamed = {old: new.lower() for old, new in RENAMED.items()}
    both = {**renamed, **names}  # a new name given beside the old one wins: it comes later
    return {
        field: environ[variable].strip() if field != "accounts" else environ[variable]
        for variable, field in both.items()
        if environ.get(variable)
    }


def _from_dotenv(dotenv: Mapping[str, str | None]) -> dict[str, str]:
    known = {name.upper() for name in Settings.__struct_fields__} | set(RENAMED) | FOREIGN
    for name in dotenv:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; see .env.example for all names"
            raise SettingsError(f"{name} in .env is not a setting{hint}")
    return _known({name: value for name, value in dotenv.items() if value})


def _explain(message: str, values: Mapping[str, str]) -> str:
    """`Expected `int` >= 1 - at `$.max_body_mb`` → what the operator reads.

    `MAX_BODY_MB: expected a whole number from 1 up, got '0'`
    """
    _, _, where = message.partition(" - at `$.")
    name = where.rstrip("`")
    if not name:
        return message
    return _refusal(name, values.get(name))


def _refusal(name: str, value: object) -> str:
    got = "a secret value" if is_secret(name) else repr(value)
    return f"{name.upper()}: expected {_accepted(name)}, got {got}"


def _accepted(name: str) -> str:
    """What a field takes, in words."""
    hint, meta = get_args(_HINTS[name])
    told = _meta(name)["accepts"]
    if told:
        return str(told)
    if hint is bool:
        return "true or false (1 and 0 work too)"
    if get_args(hint):
        return "one of " + ", ".join(map(str, get_args(hint)))
    kind = {int: "a whole number", float: "a number"}.get(hint, "text")
    if meta.ge is not None and meta.le is not None:
        return f"{kind} from {meta.ge} to {meta.le}"
    return f"{kind} from {meta.ge} up" if meta.ge is not None else kind


def _check(settings: Settings) -> None:
    """What one field alone, or its type, can't say."""
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(_refusal(name, str(value)))
    if settings.data_save_mode == "redis":
        if not settings.redis_url:
            raise SettingsError("REDIS_URL: required with DATA_SAVE_MODE=redis")
        for name in ("secret_key", "api_key"):
            if not getattr(settings, name):
                raise SettingsError(
                    f"{name.upper()}: required with DATA_SAVE_MODE=redis (or REDIS_URL), because "
                    "every host must share it"
                )
    try:
        aliases = settings.aliases
    except msgspec.DecodeError as error:
        raise SettingsError(
            f"MODEL_ALIASES: expected a JSON object of strings, for example {MODEL_ALIASES_DEFAULT}"
        ) from error
    if any(not name or not target for name, target in aliases.items()):
        raise SettingsError("MODEL_ALIASES: empty names are not accepted")
    _check_site_headers(settings)
    for url in ("qwen_chat_proxy_url", "qwen_cli_proxy_url", "upload_endpoint_url", "proxy_url"):
        value = getattr(settings, url)
        if value and not _host_of(value):
            raise SettingsError(f"{url.upper()}: expected a URL with a host")
    parse_accounts(settings.accounts)


# What a request is made of, or what says who asks: nobody's to change.
OWN_HEADERS = frozenset(
    {
        "accept", "accept-encoding", "authorization", "connection", "content-length",
        "content-type", "cookie", "host", "te", "timezone", "trailer", "transfer-encoding",
        "upgrade", "x-request-id",
    }
)  # fmt: skip


def _check_site_headers(settings: Settings) -> None:
    try:
        headers = settings.changed_site_headers
    except msgspec.DecodeError as error:
        raise SettingsError(
            'SITE_HEADERS: expected a JSON object of strings, for example {"version":"0.2.64"}'
        ) from error
    for name, value in headers.items():
        if not re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]+", name):
            raise SettingsError(f"SITE_HEADERS: {name!r} is no name of a header")
        if name in OWN_HEADERS:
            raise SettingsError(f"SITE_HEADERS: {name} is the gateway's own")
        if not re.fullmatch(r"[\x20-\x7e]*", value):
            raise SettingsError(f"SITE_HEADERS: the value of {name} is not plain ASCII")


def _host_of(url: str) -> str | None:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname


class AccountEntry(msgspec.Struct, frozen=True):
    """One entry of `ACCOUNTS` or one valid line of a batch."""

    email: str
    password: str
    proxy: str = ""


def parse_accounts(text: str) -> list[AccountEntry]:
    """`email:password[|proxy_url]`, comma separated; split at the first `:` and the last `|`.

    Raises:
        SettingsError: an entry without e-mail or password; its number is named, never its text.
    """
    entries = []
    for number, raw in enumerate(text.split(","), start=1):
        entry = raw.strip()
        if not entry:
            continue
        email, colon, rest = entry.partition(":")
        password, bar, proxy = rest.rpartition("|")
        if not bar:
            password, proxy = rest, ""
        elif not proxy.startswith(("http://", "https://", "socks5://", "socks5h://")):
            # The bar belongs to the password: what follows is no proxy.
            password, proxy = rest, ""
        if not colon or "@" not in email or not password:
            raise SettingsError(
                f"ACCOUNTS: entry {number} is not `email:password` or `email:password|proxy_url` "
                "(a password with a comma needs a batch file)"
            )
        entries.append(AccountEntry(email=email.strip(), password=password, proxy=proxy.strip()))
    return entries


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables that make a child process load these very settings."""
    values: dict[str, str] = {}
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        if value != _DEFAULTS[name]:
            values[name.upper()] = _text(value)
    return values


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def read_dotenv(path: Path) -> dict[str, str | None]:
    """The names and values of a `.env` file; no interpolation: passwords contain `$` and `#`."""
    if not path.exists():
        return {}
    from dotenv import dotenv_values

    return dict(dotenv_values(path, interpolate=False))


def render_env() -> str:
    """`.env.example`."""
    lines = [
        "# Every setting with its default. Copy to .env and change what you need:",
        "# `make run` does that on its first use. An empty value means unset; the process",
        "# environment wins; nothing is interpolated. Quote a value that contains a blank or a #.",
        "# Generated by `make docs`.",
    ]
    group = None
    for name in Settings.__struct_fields__:
        meta = _meta(name)
        if meta["group"] != group:
            group = meta["group"]
            lines += ["", f"# -- {group}"]
        shown = f" Default: {meta['shown']}." if meta["shown"] else ""
        lines += [f"# {meta['description']}{shown}", f"{name.upper()}={_default_text(name)}"]
    return "\n".join(lines) + "\n"


def _default_text(name: str) -> str:
    if _meta(name)["shown"]:
        return ""
    value = _DEFAULTS[name]
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"'{text}'" if any(c in text for c in ' #"') else text


def render_table() -> str:
    """The configuration table of the README; ✓ = can be changed while the fleet runs."""
    rows = ["| name | default | | meaning |", "|---|---|---|---|"]
    group = None
    for name in Settings.__struct_fields__:
        meta = _meta(name)
        if meta["group"] != group:
            group = meta["group"]
            rows.append(f"| **{group}** | | | |")
        default = meta["shown"] or _default_text(name).strip("'") or "empty"
        shown = default if meta["shown"] or default == "empty" else f"`{default}`"
        live = "✓" if meta["fixed"] is None else ""
        description = meta["description"].replace("|", "\\|")
        rows.append(f"| `{name.upper()}` | {shown} | {live} | {description} |")
    return "\n".join(rows) + "\n"


def _main(arguments: list[str]) -> int:
    match arguments:
        case ["env"]:
            print(render_env(), end="")
        case ["table"]:
            print(render_table(), end="")
        case ["check"]:
            try:
                settings = load(os.environ, read_dotenv(Path(".env")))
            except SettingsError as error:
                print(error, file=sys.stderr)
                return 2
            print(f"{settings!r}")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
