"""Everything about a simulator that can be adjusted while it runs."""

from typing import Any, Literal

import msgspec

from tests.simulator.models import DEFAULT_MODELS

SigninVariant = Literal["flat", "token", "access_token", "pair", "cookie", "gone"]


class Config(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Everything adjustable; the body of `POST /_sim/config` holds any of these fields. See README.md."""

    # -- sign-in and tokens (1, 15.1)
    signin_v1: SigninVariant = "flat"
    signin_v2: SigninVariant = "token"
    token_lifetime_seconds: float = 30 * 86400
    token_form: Literal["jwt", "no_exp", "undecodable"] = "jwt"
    wrong_password: Literal["detail", "envelope"] = "detail"
    wrong_password_status: int = 400
    login_limit: int = 0  # logins per window and address; 0 = no limit
    login_window_seconds: float = 360
    login_min_interval_ms: float = 0
    login_limit_form: Literal["429", "waf"] = "429"
    unauthorized: Literal["status", "blanket"] = "status"

    # -- strictness (2, 5)
    check_cookie: bool = True
    check_version: bool = True
    check_timestamps: bool = True
    check_model: bool = True
    check_media: bool = True
    prompt_limit_bytes: int = 180000  # about 60,000 Chinese characters (5)
    concurrency_limit: int = 0  # streams per account; 0 = measured only
    lock_after_end_ms: float = 2000  # how long a chat stays "in progress" after its answer (15.4)
    lock_after_abort_ms: float = 6000

    # -- answers
    latency_ms: dict[str, float] = {}  # per operation, "*" for all
    delay_ms: float = 2  # between two frames when nothing else is said
    gzip: bool = False
    models: list[dict[str, Any]] = msgspec.field(default_factory=lambda: DEFAULT_MODELS)
    models_need_login: bool = False

    # -- media and files (8, 9, 15.5)
    task_polls: int = 1
    detail_polls: int = 1  # how often the chat detail shows nothing yet
    credential_seconds: float = 300
    file_url_seconds: float = 300
    sts_form: Literal["bare", "envelope"] = "bare"
    clock_skew_seconds: float = 0  # of the storage host's clock
    parse_polls: int = 1

    # -- device flow and portal (10, 11)
    device_pending_polls: int = 0  # authorization_pending answers after the approval
    device_interval_ms: float = 0  # polling faster gets slow_down
    device_code_seconds: float = 900
    cli_token_seconds: float = 21600
    refresh_rotates: bool = (
        True  # false: a refresh brings no new refresh token, the old one lives (10.4)
    )
    resource_url: str = "portal.qwen.ai"
    portal_keys: list[str] = []  # API keys the portal takes beside CLI tokens (15.6)
    portal_closed: bool = False  # fresh device logins get 401 from the portal (15.6)

    # -- canned completions
    canned: bool = False
    canned_frames: int = 64
    canned_delay_ms: float = 0
    canned_stamped: bool = False  # a paced frame says when it was sent
