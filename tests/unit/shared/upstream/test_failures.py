"""The table of protocol sheet 15.4, a test row per row of the sheet, and the forms of section 7."""

import pytest

from shared import errors
from shared.errors import GatewayError, UpstreamBusy, UpstreamQuota
from shared.upstream.failures import MAX_BODY_BYTES, TABLE, AnyFailure, Operation, classify
from tests.simulator.connection import Response
from tests.simulator.failures import NAMES, answer_of
from tests.simulator.frames import encode, envelope, firewall_page, punish
from tests.simulator.script import Action

TODAY = "You have reached the upper limit for today's usage."


def classified(
    body: bytes | dict[str, object],
    status: int = 200,
    operation: Operation = "completion",
    **headers: str,
) -> AnyFailure:
    data = body if isinstance(body, bytes) else encode(body)
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(status=status, headers=told, body=data, operation=operation)


# (row of 15.4, code, details, error); every one is told as an envelope, as an SSE error object and,
# where the details alone are the sign, as an error text.
ROWS: list[tuple[str, str, str, type[GatewayError]]] = [
    ("Unauthorized", "Unauthorized", "", errors.TokenRejected),
    ("Token has expired", "Bad_Request", "Token has expired.", errors.TokenRejected),
    ("InvalidPassword", "InvalidPassword", "wrong", errors.AccountDead),
    ("pending", "pending", "Your account is pending activation.", errors.AccountDead),
    ("in progress", "Bad_Request", "The chat is in progress!", errors.UpstreamBusy),
    ("in progress, limited", "RateLimited", "The chat is in progress!", errors.UpstreamBusy),
    ("CHAT_NOT_FOUND", "CHAT_NOT_FOUND", "", errors.ChatGone),
    ("PARENT_NOT_FOUND", "PARENT_NOT_FOUND", "", errors.ChatGone),
    ("is not exist", "Not_Found", "The chat is not exist", errors.ChatGone),
    ("is not exist, odd code", "Bad_Request", "The chat c1 is not exist", errors.ChatGone),
    ("RateLimited", "RateLimited", "", errors.UpstreamQuota),
    ("upper limit", "Odd", TODAY, errors.UpstreamQuota),
    ("burst", "RateLimited", "Your request rate increased too quickly.", errors.UpstreamBusy),
    ("high demand", "RateLimited", "We are experiencing high demand.", errors.UpstreamBusy),
    ("ParallelLimited", "ParallelLimited", "", errors.UpstreamBusy),
    ("Too_Many_Requests", "Too_Many_Requests", "", errors.UpstreamBusy),
    ("quotaLimited", "quotaLimited", "", errors.UpstreamQuota),
    ("ExceedLimit", "ExceedLimit", "", errors.UpstreamQuota),
    ("quota_exhausted", "quota_exhausted", "", errors.UpstreamQuota),
    ("membership_limit", "membership_limit", "", errors.UpstreamQuota),
    ("insufficient_quota", "insufficient_quota", "", errors.UpstreamQuota),
    ("Allocated quota", "Throttling", "Allocated quota exceeded, please …", errors.UpstreamQuota),
    ("Model not found", "Not_Found", "Model not found", errors.UnknownModel),
    ("model not exist", "Bad_Request", "The model `qwen9` is not exist.", errors.UnknownModel),
    ("invalid_input", "invalid_input", "", errors.InputRefused),
    ("invalid attachment", "Bad_Request", "invalid attachment", errors.InputRefused),
    ("moderation", "data_inspection_failed", "inappropriate", errors.ContentRefused),
    ("internal_error", "internal_error", "", errors.UpstreamUnavailable),
    ("server_busy", "server_busy", "", errors.UpstreamUnavailable),
    ("Internal error", "Bad_Request", "Bad_Request: Internal error", errors.UpstreamUnavailable),
    ("FAIL_SYS", "FAIL_SYS_USER_VALIDATE", "", errors.UpstreamBlocked),
    ("RGV587_ERROR", "RGV587_ERROR::SM", "", errors.UpstreamBlocked),
    ("x5sec", "Odd", "x5sec", errors.UpstreamBlocked),
    ("aliyun_waf", "Odd", "aliyun_waf", errors.UpstreamBlocked),
    ("captcha", "captcha", "", errors.UpstreamBlocked),
    ("odd Bad_Request", "Bad_Request", "Invalid operation on id 0.", errors.UpstreamRejected),
    ("Forbidden", "Forbidden", "", errors.TokenRejected),
    ("Not_Found", "Not_Found", "Not found", errors.ChatGone),
    ("context length", "Bad_Request", "maximum context length is 65536", errors.ContextTooLong),
    ("too long", "invalid_request", "The prompt is too long.", errors.ContextTooLong),
    (
        "input range",
        "InvalidParameter",
        "Range of input length should be [1, 98304]",
        errors.ContextTooLong,
    ),
    ("unknown code", "Never_Seen", "something", errors.UpstreamUnavailable),
]

every_row = pytest.mark.parametrize(
    ("code", "details", "error"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)


@every_row
def test_a_row_is_told_by_its_envelope(code: str, details: str, error: type) -> None:
    assert type(classified(envelope(code, details))) is error


@every_row
def test_a_row_is_told_by_its_error_object(code: str, details: str, error: type) -> None:
    assert type(classified({"error": {"code": code, "details": details}})) is error
    assert type(classified({"error": {"code": code, "message": details}})) is error


@pytest.mark.parametrize(
    ("details", "error"), [(row[2], row[3]) for row in ROWS if row[0] in row[2]], ids=str
)
def test_a_phrase_alone_is_sign_enough(details: str, error: type) -> None:
    assert type(classified({"error": details})) is error


def test_every_row_of_the_table_is_reached_by_a_test_row() -> None:
    """A row that nothing reaches is a row nobody tests, or one that stands too low to matter."""
    from shared.upstream.failures import _read

    reached = set()
    bodies = [(encode(envelope(code, details)), 200, "completion") for _, code, details, _ in ROWS]
    bodies.append((b'{"detail": "The password is incorrect."}', 400, "sign_in"))
    for body, status, operation in bodies:
        refusal = _read(status, {}, body, operation)  # type: ignore[arg-type]  # literals above
        reached.add(next((row.name for row in TABLE if row.fits(refusal)), ""))
    assert {row.name for row in TABLE} <= reached


# -- what the errors carry


def test_a_quota_carries_the_upstreams_hours() -> None:
    error = classified(envelope("RateLimited", TODAY, num=6, template="Wait {{num}} hours."))
    assert isinstance(error, UpstreamQuota)
    assert error.hours == 6
    assert "Wait 6 hours." in error.message


DAY = 20_000 * 86_400  # midnight UTC of some day


@pytest.mark.parametrize(
    ("now", "hours", "until"),
    [
        (DAY + 3600, 6, DAY + 86_400),
        (DAY + 86_400 - 60, 6, DAY + 86_400),
        (DAY + 3600, None, DAY + 86_400),
        (DAY + 60, 6, DAY + 60 + 6 * 3600),
        (DAY + 60, None, DAY + 86_400),
        (DAY, 6, DAY + 6 * 3600),
    ],
)
def test_a_quota_is_held_until_midnight_utc_and_by_hours_just_after_it(
    now: float, hours: float | None, until: float
) -> None:
    assert UpstreamQuota(hours=hours).resumes_at(now) == until


def test_a_locked_chat_needs_no_pause_because_the_next_attempt_opens_another() -> None:
    error = classified(envelope("Bad_Request", "The chat is in progress!"))
    assert isinstance(error, UpstreamBusy)
    assert error.pause_seconds == 0


def test_a_burst_asks_for_three_seconds() -> None:
    error = classified(envelope("RateLimited", "high demand"))
    assert isinstance(error, UpstreamBusy)
    assert error.pause_seconds == 3


def test_retry_after_is_carried() -> None:
    busy = classified(b"", 429, retry_after="17")
    assert isinstance(busy, UpstreamBusy)
    assert busy.pause_seconds == 17
    assert classified(firewall_page(), retry_after="90").retry_after_seconds == 90
    assert classified(b"", 503, retry_after="4").retry_after_seconds == 4
    assert classified(b"", 503, retry_after="Tue, 03 Nov 2026").retry_after_seconds is None
    assert classified(firewall_page()).retry_after_seconds == 60


def test_no_message_repeats_a_secret_or_a_challenge() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2ln"
    error = classified(envelope("Unauthorized", f"Token {token} of a.b@example.com has expired"))
    assert token not in error.message
    assert "example.com" not in error.message
    assert "x5secdata" not in classified(punish()).message


def test_a_message_is_short_and_on_one_line() -> None:
    message = classified(envelope("internal_error", "very\n\nlong " * 200)).message
    assert len(message) < 300
    assert "\n" not in message


# -- statuses and shapes (7)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"", errors.UpstreamEmpty),
        (200, b" \n", errors.UpstreamEmpty),
        (200, b'{"hello": "world"}', errors.UpstreamProtocolError),
        (200, b"upstream connect error", errors.UpstreamProtocolError),
        (200, b"[1, 2]", errors.UpstreamProtocolError),
        (200, b"<html>please wait</html>", errors.UpstreamBlocked),
        (200, b"\xef\xbb\xbf \n<!doctype html>", errors.UpstreamBlocked),
        (403, b"<html>denied</html>", errors.UpstreamBlocked),
        (405, firewall_page(), errors.UpstreamBlocked),
        (503, firewall_page(), errors.UpstreamBlocked),
        (401, b"<html>401</html>", errors.TokenRejected),
        (404, b"<html>404</html>", errors.UpstreamRejected),
        (429, b"<html>429</html>", errors.UpstreamBusy),
        (500, b"<html>500</html>", errors.UpstreamUnavailable),
        (502, b"", errors.UpstreamUnavailable),
        (504, b"<html>504</html>", errors.UpstreamUnavailable),
        (408, b"", errors.UpstreamUnavailable),
        (401, b"", errors.TokenRejected),
        (403, b"{}", errors.TokenRejected),
        (400, b"", errors.UpstreamRejected),
        (413, b"", errors.ContextTooLong),
        (302, b"", errors.UpstreamProtocolError),
        (500, encode(envelope("data_inspection_failed")), errors.ContentRefused),
        (429, encode(envelope("insufficient_quota")), errors.UpstreamQuota),
    ],
)
def test_without_a_known_sign_the_status_speaks(
    status: int, body: bytes, error: type[GatewayError]
) -> None:
    assert type(classified(body, status)) is error


def test_a_blanket_200_is_seen_through() -> None:
    assert type(classified(b"{}", x_actual_status_code="401")) is errors.TokenRejected
    assert type(classified(b"{}", x_actual_status_code="503")) is errors.UpstreamUnavailable
    assert type(classified(b"{}", 502, x_actual_status_code="200")) is errors.UpstreamUnavailable
    assert type(classified(b"{}", x_actual_status_code="x")) is errors.UpstreamProtocolError


def test_only_the_beginning_of_a_body_is_read() -> None:
    body = b" " * MAX_BODY_BYTES + b"captcha"
    assert type(classified(body)) is errors.UpstreamEmpty


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"code": null, "details": {"a": [1]}}}',
        b'{"data": {"code": ["x"], "num": "6"}}',
        b'{"error": 5, "data": "text", "ret": "x"}',
        b'{"ret": [null, {"a": 1}]}',
        b'{"data": {"num": true}, "success": false}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_no_shape_of_a_failure_breaks_the_classification(body: bytes) -> None:
    assert isinstance(classified(body), errors.UpstreamError)


# -- words that must not be misread


@pytest.mark.parametrize(
    ("details", "error"),
    [
        ("The request took too long.", errors.UpstreamUnavailable),
        ("The chat with this model is not exist", errors.ChatGone),
        ("Internal error: quota service unreachable", errors.UpstreamUnavailable),
    ],
)
def test_words_alone_do_not_mislead(details: str, error: type) -> None:
    assert type(classified(envelope("internal_error", details))) is error


def test_context_signs_count_for_generations_only() -> None:
    body = {"detail": "The password is too long."}
    assert type(classified(body, 400, "sign_in")) is errors.AccountDead
    assert type(classified(body, 400, "open_chat")) is errors.UpstreamRejected


# -- sign-in (1, 15.1)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, b'{"detail": "The email or password is incorrect."}', errors.AccountDead),
        (401, b'{"detail": "The email or password is incorrect."}', errors.AccountDead),
        (403, b'{"detail": "No."}', errors.AccountDead),
        (401, b"", errors.AccountDead),
        (200, encode(envelope("InvalidPassword", "wrong")), errors.AccountDead),
        (200, b'{"role": "pending", "detail": "pending activation"}', errors.AccountDead),
        (429, b'{"detail": "Too many login attempts."}', errors.LoginsTooFast),
        (429, b"", errors.LoginsTooFast),
        (500, b"<html>500</html>", errors.LoginFailed),
        (503, b"", errors.LoginFailed),
        (400, encode(envelope("Bad_Request", "Invalid operation.")), errors.LoginFailed),
        (200, firewall_page(), errors.UpstreamBlocked),
        (403, b"<html>denied</html>", errors.UpstreamBlocked),
        (200, encode(punish()), errors.UpstreamBlocked),
    ],
)
def test_a_refused_sign_in_tells_the_account_from_the_moment(
    status: int, body: bytes, error: type[GatewayError]
) -> None:
    assert type(classified(body, status, "sign_in")) is error


def test_logins_that_come_too_fast_say_when_to_come_back() -> None:
    assert classified(b"", 429, "sign_in", retry_after="120").retry_after_seconds == 120
    assert classified(b"", 429, "sign_in").retry_after_seconds == 60


# -- everything the simulator can fail with


@pytest.mark.parametrize("name", NAMES)
def test_every_failure_of_the_simulator_means_something(name: str) -> None:
    response: Response = answer_of(Action(fail=name))
    headers = dict(response.headers)
    error = classify(
        status=response.status, headers=headers, body=response.body, operation="completion"
    )
    assert isinstance(error, errors.UpstreamError | errors.ClientError)
