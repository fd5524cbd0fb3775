"""What the upstream's refusals mean: one table, in the order in which its signs must be tested.

Source: protocol sheet 7 and 15.4. "In progress" and "not exist" come first because they are told
under codes that mean other things elsewhere; quota words come last because they are the vaguest.

    row = signs (codes, phrases, or a test of its own) → the error, which carries its remedy

Knows: codes, phrases, statuses. Does not know: accounts, cooldowns, who tries again.
"""

import re
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from shared.errors import (
    AccountDead,
    ChatGone,
    ClientError,
    ContentRefused,
    ContextTooLong,
    InputRefused,
    LoginFailed,
    LoginsTooFast,
    TokenRejected,
    UnknownModel,
    UpstreamBlocked,
    UpstreamBusy,
    UpstreamEmpty,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamQuota,
    UpstreamRejected,
    UpstreamUnavailable,
)
from shared.upstream.wire import read_failure

Operation = Literal[
    "sign_in", "profile", "models", "open_chat", "completion", "stop", "delete_chat"
]
AnyFailure = UpstreamError | ClientError

MAX_BODY_BYTES = 64 * 1024
"""As much of a failing answer as is worth reading."""


class Refusal(msgspec.Struct, frozen=True):
    """A failing answer, read once: what every row of the table looks at.

    `status` is the real one (`x-actual-status-code` wins over a blanket 200). `codes` are lower
    case; `said` is everything the answer says, codes included, lower case. `is_json`: the body is a
    JSON object, so codes and prose were told apart.
    """

    operation: Operation
    status: int
    codes: frozenset[str]
    said: str
    text: str
    hours: float | None
    retry_after_seconds: float | None
    is_json: bool
    is_html: bool
    is_empty: bool


class Row(msgspec.Struct, frozen=True):
    """One row of 15.4. Any sign is enough."""

    name: str
    error: Callable[[Refusal], AnyFailure]
    codes: frozenset[str] = frozenset()
    phrases: tuple[str, ...] = ()
    test: Callable[[Refusal], bool] | None = None

    def fits(self, refusal: Refusal) -> bool:
        return (
            not self.codes.isdisjoint(refusal.codes)
            or any(phrase in refusal.said for phrase in self.phrases)
            or (self.test is not None and self.test(refusal))
        )


def classify(
    *,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    operation: Operation,
) -> AnyFailure:
    """The error that a failing answer means; call it only when the answer is known to be none.

    Args:
        status: as on the status line.
        headers: lower-case names; `x-actual-status-code` and `retry-after` are looked at.
        body: the beginning of the body, or the data of a failing frame.
    """
    refusal = _read(status, headers, body, operation)
    for row in TABLE:
        if row.fits(refusal):
            return row.error(refusal)
    return _by_status(refusal)


def actual_status(status: int, headers: Mapping[str, str]) -> int:
    """The real status: a 200 may be a blanket one (2)."""
    told = headers.get("x-actual-status-code", "")
    return int(told) if status == 200 and told.isdigit() and len(told) == 3 else status


def _read(status: int, headers: Mapping[str, str], body: bytes, operation: Operation) -> Refusal:
    body = body[:MAX_BODY_BYTES]
    failure = read_failure(body)
    is_html = failure is None and body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    text = failure.text if failure else body.decode("utf-8", "replace")
    codes = failure.codes if failure else ()
    return Refusal(
        operation=operation,
        status=actual_status(status, headers),
        codes=frozenset(code.lower() for code in codes),
        said=" ".join((*codes, text)).lower(),
        text=text if failure else "",
        hours=failure.hours if failure else None,
        retry_after_seconds=_seconds(headers.get("retry-after")),
        is_json=failure is not None,
        is_html=is_html,
        is_empty=not body.strip(),
    )


def _seconds(value: str | None) -> float | None:
    """`Retry-After` as seconds; the date form is not worth reading here."""
    return float(value) if value and value.isdigit() and len(value) < 7 else None


# -- errors, with what the upstream said

# Tokens, API keys, e-mails, and the 64 hexadecimal digits that are as good as a password (1).
_SECRET = re.compile(r"eyJ[\w.-]{8,}|sk-[\w-]{8,}|[\w.+-]+@[\w-]+\.[\w.]+|[0-9a-fA-F]{64}")


def _worded(refusal: Refusal, words: str) -> str:
    """Our words and, when there are any, the upstream's, shortened and without anything secret."""
    said = _SECRET.sub("…", " ".join(refusal.text.split()))[:200]
    return f"{words}: {said}" if said else words


def _busy(words: str, pause_seconds: float) -> Callable[[Refusal], AnyFailure]:
    def error(refusal: Refusal) -> AnyFailure:
        pause = refusal.retry_after_seconds
        return UpstreamBusy(
            _worded(refusal, words), pause_seconds=pause_seconds if pause is None else pause
        )

    return error


def _quota(refusal: Refusal) -> AnyFailure:
    return UpstreamQuota(_worded(refusal, "This account's quota is used up"), hours=refusal.hours)


def _blocked(refusal: Refusal) -> AnyFailure:
    """Its own words are a challenge's markup or address: not repeated."""
    return UpstreamBlocked(
        "The upstream's firewall refuses this address",
        retry_after_seconds=refusal.retry_after_seconds,
    )


def _token(refusal: Refusal) -> AnyFailure:
    if refusal.operation == "sign_in":
        return _dead(refusal)
    return TokenRejected(_worded(refusal, "The upstream does not accept the access token"))


def _dead(refusal: Refusal) -> AnyFailure:
    return AccountDead(_worded(refusal, "The upstream refuses this account"))


def _rejected(refusal: Refusal) -> AnyFailure:
    if refusal.operation == "sign_in":
        return LoginFailed(_worded(refusal, "The upstream did not let this account log in"))
    return UpstreamRejected(_worded(refusal, "The upstream refused the request"))


def _input_refused(refusal: Refusal) -> AnyFailure:
    if refusal.operation != "completion":
        return _rejected(refusal)  # the caller's input is in a completion only
    return InputRefused(_worded(refusal, "The upstream does not take this input"))


def _unavailable(refusal: Refusal) -> AnyFailure:
    if refusal.operation == "sign_in":
        return LoginFailed(
            f"The upstream is broken ({refusal.status}); logging in failed",
            retry_after_seconds=refusal.retry_after_seconds,
        )
    words = "The upstream is broken" if refusal.status < 400 else f"It answered {refusal.status}"
    return UpstreamUnavailable(
        _worded(refusal, words), retry_after_seconds=refusal.retry_after_seconds
    )


def _too_many(refusal: Refusal) -> AnyFailure:
    if refusal.operation == "sign_in":
        return LoginsTooFast(
            _worded(refusal, "Logins come too fast for the upstream"),
            told_seconds=refusal.retry_after_seconds,
        )
    return _busy("Too many requests at once", 2)(refusal)


def _simple(kind: type[AnyFailure], words: str) -> Callable[[Refusal], AnyFailure]:
    return lambda refusal: kind(_worded(refusal, words))


# -- tests that are more than a word


def _model_is_unknown(refusal: Refusal) -> bool:
    """ "not exist" alone is the chat's row; here the sentence must be about a model."""
    return _MODEL_UNKNOWN.search(refusal.said) is not None and "chat" not in refusal.said


_MODEL_UNKNOWN = re.compile(r"\bmodel\b[^.]{0,80}\b(not (found|exist)|does not exist|unknown)")


def _prompt_is_too_long(refusal: Refusal) -> bool:
    if refusal.operation != "completion":
        return False
    return refusal.status == 413 or _TOO_LONG.search(refusal.said) is not None


_TOO_LONG = re.compile(
    r"context[ _](length|window)|maximum context|range of input length|input[ _]length"
    r"|(?<!took )(?<!taking )(?<!taken )too long|too many (input )?tokens|prompt[ _]too[ _]long"
    r"|exceeds? (the )?(max(imum)?|model'?s?)[^.]{0,30}(tokens|length|context)"
)


def _is_firewall_page(refusal: Refusal) -> bool:
    """A page in place of an answer. Balancers have pages of their own for 401, 404, 429 and 5xx."""
    return refusal.is_html and refusal.status < 500 and refusal.status not in (401, 404, 429)


def _is_password_refused(refusal: Refusal) -> bool:
    """1, 15.1: 400, 401 or 403 with a `detail` in prose."""
    return (
        refusal.operation == "sign_in"
        and refusal.status in (400, 401, 403)
        and refusal.is_json
        and bool(refusal.text)
        and not refusal.codes
    )


def _is_pending(refusal: Refusal) -> bool:
    return refusal.operation == "sign_in" and re.search(r"\bpending\b", refusal.said) is not None


def _chat_is_missing(refusal: Refusal) -> bool:
    """A bare `Not_Found` or 404 is about the chat when the request named one."""
    missing = "not_found" in refusal.codes or (refusal.status == 404 and refusal.is_json)
    return missing and refusal.operation in ("completion", "stop", "delete_chat")


TABLE: tuple[Row, ...] = (
    Row(
        "chat in progress",
        # One generation per chat, locked for 2–6 s after its end; a new chat is free at once.
        _busy("The chat is still busy with an earlier answer", 0),
        phrases=("chat is in progress",),
    ),
    Row(
        "model unknown",
        _simple(UnknownModel, "The upstream does not know this model"),
        codes=frozenset({"model_not_found", "modelnotfound"}),
        test=_model_is_unknown,
    ),
    Row(
        "chat gone",
        _simple(ChatGone, "The upstream does not know this chat any more"),
        codes=frozenset({"chat_not_found", "parent_not_found"}),
        phrases=("is not exist",),
    ),
    Row(
        "account unusable",
        _dead,
        codes=frozenset({"invalidpassword", "pending"}),
        phrases=("pending activation",),
        test=_is_pending,
    ),
    Row(
        "firewall",
        _blocked,
        codes=frozenset({"captcha"}),
        phrases=(
            "fail_sys_user_validate",
            "rgv587",
            "/punish",
            "x5sec",
            "aliyun_waf",
            "captcha",
        ),
        test=_is_firewall_page,
    ),
    Row("password refused", _dead, test=_is_password_refused),
    Row(
        "token dead",
        _token,
        codes=frozenset({"unauthorized", "401"}),
        phrases=("token has expired", "token is expired", "invalid token", "token expired"),
        test=lambda refusal: refusal.status == 401,
    ),
    Row(
        "moderation",
        _simple(ContentRefused, "The upstream's moderation refused this content"),
        codes=frozenset({"data_inspection_failed", "datainspectionfailed", "content_filter"}),
        phrases=("data_inspection_failed", "datainspectionfailed"),
    ),
    Row(
        "prompt too long",
        _simple(ContextTooLong, "The prompt is longer than the model takes"),
        codes=frozenset({"context_length_exceeded"}),
        test=_prompt_is_too_long,
    ),
    Row(
        "input refused",
        _input_refused,
        codes=frozenset({"invalid_input"}),
        phrases=("invalid attachment",),
    ),
    Row(
        "burst",
        _busy("The upstream asks for a slower pace", 3),
        phrases=("rate increased too quickly", "high demand"),
    ),
    Row(
        "too many at once",
        _too_many,
        codes=frozenset({"parallellimited", "too_many_requests"}),
    ),
    Row(
        "transient",
        _unavailable,
        codes=frozenset({"internal_error", "server_busy"}),
        phrases=("internal error",),
    ),
    Row(
        "chat missing",
        _simple(ChatGone, "The upstream does not know this chat"),
        test=_chat_is_missing,
    ),
    Row(
        "quota",
        _quota,
        codes=frozenset(
            {
                "ratelimited",
                "quotalimited",
                "exceedlimit",
                "quota_exhausted",
                "membership_limit",
                "insufficient_quota",
            }
        ),
        phrases=("upper limit for today", "allocated quota exceeded"),
    ),
    Row("forbidden", _token, codes=frozenset({"forbidden"})),
    Row("bad request", _rejected, codes=frozenset({"bad_request"})),
)
"""15.4, first match wins. The last two rows and everything by status: section 7."""


def _by_status(refusal: Refusal) -> AnyFailure:
    """No known sign: the status speaks, then the shape."""
    status = refusal.status
    if status == 429:
        return _too_many(refusal)
    if status >= 500 or status == 408:
        return _unavailable(refusal)
    if status in (401, 403):
        return _token(refusal)
    if status >= 400:
        return _rejected(refusal)
    if refusal.is_empty and status < 300:
        return UpstreamEmpty()
    if refusal.codes or refusal.text:
        # A failure under a code nobody has seen: another account may fare better.
        return _unavailable(refusal)
    return UpstreamProtocolError("The upstream's answer makes no sense")
