"""Every failure the upstream is known to answer with (sections 7, 11, 15.4), by a name to script it with.

`answer_of(action)` is the whole HTTP answer; `payload_of(action)` the same failure as a frame of a stream.
A name that is not in the table is taken for a `data.code` as it stands.
"""

import re
import uuid
from typing import Any, Literal

import msgspec

from tests.simulator.connection import Response, json_response
from tests.simulator.frames import Payload, encode, envelope, firewall_page, punish, spell
from tests.simulator.script import Action


class Failure(msgspec.Struct, frozen=True):
    """An envelope `{"success": false, "data": {"code", "details", "num"}}` and its real status."""

    code: str
    details: str
    actual: int = 400  # told as `x-actual-status-code` beside the blanket 200
    num: int | None = None
    template: str | None = None
    form: Literal["json", "frame", "error", "error_text"] = "json"


TODAY = "You have reached the upper limit for today's usage."
HOURS = "Please wait {{num}} hours before trying again."

FAILURES: dict[str, Failure] = {
    # tokens and accounts
    "Unauthorized": Failure("Unauthorized", "Token has expired.", 401),
    "Forbidden": Failure("Forbidden", "You do not have access to this resource.", 403),
    "InvalidPassword": Failure("InvalidPassword", "The email or password is incorrect.", 400),
    "pending": Failure("pending", "Your account is pending activation.", 403),
    # chats
    "ChatInProgress": Failure("Bad_Request", "The chat is in progress!", 400),
    "ChatInProgressRateLimited": Failure("RateLimited", "The chat is in progress!", 429),
    "CHAT_NOT_FOUND": Failure("CHAT_NOT_FOUND", "The chat is not exist.", 404),
    "PARENT_NOT_FOUND": Failure("PARENT_NOT_FOUND", "The parent message is not exist.", 404),
    "NotExist": Failure("Not_Found", "The chat is not exist", 404),
    "Not_Found": Failure("Not_Found", "Not found", 404),
    # quotas and rates
    "RateLimited": Failure("RateLimited", TODAY, 429, 6, HOURS),
    "TodaysLimit": Failure("RateLimited", TODAY, 429),
    "TooQuickly": Failure("RateLimited", "Your request rate increased too quickly.", 429),
    "HighDemand": Failure("RateLimited", "We are experiencing high demand, try again later.", 429),
    "ParallelLimited": Failure("ParallelLimited", "Too many parallel generations.", 429),
    "Too_Many_Requests": Failure("Too_Many_Requests", "Too many requests.", 429),
    "quotaLimited": Failure("quotaLimited", "Your quota is used up.", 429),
    "ExceedLimit": Failure("ExceedLimit", "Limit exceeded.", 429),
    "quota_exhausted": Failure("quota_exhausted", "Quota exhausted.", 429),
    "membership_limit": Failure("membership_limit", "Your membership's limit is reached.", 429),
    "insufficient_quota": Failure("insufficient_quota", "Insufficient quota.", 429),
    "AllocatedQuota": Failure("Throttling", "Allocated quota exceeded.", 429),
    # requests
    "ModelNotFound": Failure("Not_Found", "Model not found", 404),
    "invalid_input": Failure("invalid_input", "The input is invalid.", 400),
    "InvalidAttachment": Failure("Bad_Request", "invalid attachment", 400),
    "data_inspection_failed": Failure(
        "data_inspection_failed", "Input data may contain inappropriate content.", 400
    ),
    "Bad_Request": Failure("Bad_Request", "Bad request.", 400),
    "MissingVersion": Failure("Bad_Request", "Invalid operation on resource id 0.", 400),
    # transient
    "InternalError": Failure("Bad_Request", "Bad_Request: Internal error, please retry.", 500),
    "internal_error": Failure("internal_error", "internal error", 500),
    "server_busy": Failure("server_busy", "The server is busy.", 503),
    # inside a stream by nature
    "ErrorFrame": Failure("internal_error", "The generator failed.", 500, form="error"),
    "ErrorText": Failure("internal_error", "The generator failed.", 500, form="error_text"),
}

PAGES = (
    "waf_page",
    "html_401",
    "html_403",
    "html_429",
    "html_500",
    "html_502",
    "html_503",
    "html_504",
)
FIREWALL = ("punish", "rgv587", "x5sec", "captcha")
OTHERS = (
    "empty",
    "nonsense",
    "text",
    "json_answer",
    "http_401",
    "http_403",
    "http_429",
    "http_500",
)
NAMES = (*FAILURES, *PAGES, *FIREWALL, *OTHERS)


def failure_of(action: Action) -> Failure:
    name = action.fail or "internal_error"
    known = FAILURES.get(name, Failure(name, f"{name}."))
    return msgspec.structs.replace(
        known,
        num=known.num if action.num is None else (action.num if action.num >= 0 else None),
        details=known.details if action.details is None else action.details,
        form=action.form or known.form,
    )


def refuse(name: str, **more: Any) -> Response:
    """The answer of failure `name`: status 200 with the envelope, the real status in a header (7)."""
    return answer_of(Action(fail=name, **more))


def envelope_response(failure: Failure, status: int = 200) -> Response:
    body = envelope(failure.code, failure.details, num=failure.num, template=failure.template)
    body["request_id"] = str(uuid.uuid4())
    headers = [("x-actual-status-code", str(failure.actual))] if status == 200 else []
    return json_response(body, status, headers)


def answer_of(action: Action) -> Response:
    """The whole answer of a scripted failure, before any frame."""
    name = action.fail or ""
    special = _special(name, action.status)
    if special is not None:
        return special
    failure = failure_of(action)
    if failure.form == "json":
        return envelope_response(failure, action.status or 200)
    frame = spell(payload_of(action))
    return Response(action.status or 200, frame, "text/event-stream")


def payload_of(action: Action) -> Payload | bytes:
    """The failure as one frame of a stream (7): envelope, `{"error": {…}}` or `{"error": "text"}`."""
    if action.fail in FIREWALL:
        return punish()
    failure = failure_of(action)
    if action.form == "error" or (action.form is None and failure.form == "error"):
        return {"error": {"code": failure.code, "details": failure.details}}
    if action.form == "error_text" or (action.form is None and failure.form == "error_text"):
        return {"error": failure.details}
    return envelope(failure.code, failure.details, num=failure.num, template=failure.template)


def _special(name: str, status: int | None) -> Response | None:
    if name == "waf_page":
        return Response(status or 200, firewall_page(), "text/html; charset=utf-8")
    if name in FIREWALL:
        return Response(status or 200, encode(_challenge(name)), "application/json")
    if name.startswith("html_"):
        return html_page(int(name[5:]))
    if name.startswith("http_"):
        code = {401: "Unauthorized", 403: "Forbidden", 429: "Too_Many_Requests"}
        failure = FAILURES[code.get(int(name[5:]), "internal_error")]
        return envelope_response(failure, int(name[5:]))
    if name == "empty":
        return Response(status or 200, b"", "text/event-stream")
    if name == "nonsense":
        return json_response({"hello": "world"})
    if name == "text":
        return Response(status or 200, b"upstream connect error", "text/plain")
    if name == "json_answer":
        message = {"role": "assistant", "content": "A JSON answer in place of a stream."}
        return json_response({"choices": [{"message": message, "finish_reason": "stop"}]})
    return None


def _challenge(name: str) -> Payload:
    if name == "captcha":
        return {"success": False, "data": {"code": "captcha", "details": "aliyun_waf captcha"}}
    if name == "x5sec":
        return {
            "rgv587_flag": "sm",
            "url": "https://chat.qwen.ai/_____tmd_____/punish?x5sec=made-up",
        }
    if name == "rgv587":
        return {
            "ret": ["RGV587_ERROR::SM::busy"],
            "data": {"url": "https://chat.qwen.ai/punish?a=1"},
        }
    return punish()


def html_page(status: int) -> Response:
    """A gateway's own page, as balancers answer 429, 5xx and 504 (7)."""
    text = f"<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>tengine</body></html>"
    return Response(status, text.encode(), "text/html")


def literal(action: Action) -> Response:
    """The answer an action spells out: status, body, content type, headers."""
    body = (action.body or "").encode()
    guessed = "application/json" if re.match(rb"\s*[\[{]", body) else "text/plain"
    headers = list((action.headers or {}).items())
    return Response(action.status or 200, body, action.content_type or guessed, headers)
