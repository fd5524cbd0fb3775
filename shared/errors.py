"""The error tree: class = whose fault and what remedy; docstring = default message.

    GatewayError                      status, code, retry_after_seconds | None
    ├─ ClientError                    the caller's fault, said to the caller
    │  ├─ BadRequest                  400   param = path of the field
    │  │  ├─ ContextTooLong           400   prompt longer than the model takes
    │  │  ├─ ContentRefused           400   refused by the upstream's moderation
    │  │  └─ InputRefused             400   a file or a field that the upstream does not take
    │  ├─ Unauthorized                401
    │  ├─ Forbidden                   403
    │  ├─ NotFound                    404
    │  │  └─ UnknownModel             404
    │  ├─ MethodNotAllowed            405
    │  ├─ Conflict                    409
    │  ├─ PayloadTooLarge             413
    │  ├─ LoginRefused                422   the upstream did not let an operator's account log in
    │  └─ RateLimited                 429   the caller is over its limits
    ├─ UpstreamError                  502   the far side's fault
    │  ├─ UpstreamRejected            502   it said no; another account would hear the same
    │  ├─ UpstreamUnavailable         502   5xx, refused, reset: transient
    │  ├─ UpstreamBusy                503   a burst limit or a locked chat: again after a pause
    │  ├─ UpstreamProtocolError       502   nonsense on the wire, or the stream was cut
    │  ├─ UnusableAnswer              502   the model didn't write what it was asked for, twice
    │  ├─ UpstreamEmpty               502   it ended well and said nothing
    │  ├─ UpstreamSilent              504   first-token or idle deadline
    │  ├─ UpstreamQuota               429   this account is spent for this capability
    │  ├─ UpstreamBlocked             503   its firewall refuses this egress address
    │  ├─ TokenRejected               502   the access token is dead: renew it, then repeat
    │  ├─ ChatGone                    502   the upstream lost the chat: open a new one
    │  └─ LoginFailed                 502   this account can't log in now
    │     ├─ LoginsCrowded            502   so many others log in through its egress before it
    │     ├─ LoginsTooFast            502   nor can others: it wants them farther apart
    │     └─ AccountDead              502   and never will until an operator mends it
    ├─ AccountsExhausted              429   every account is spent for this capability
    ├─ NoAccount                      503   none usable, or all busy longer than the wait
    ├─ NoCatalogue                    503   the model list was never read yet
    ├─ Draining                       503   this process is going away; told in band
    └─ StoreUnavailable               503   Redis did not answer

`ContextTooLong`, `ContentRefused`, `InputRefused` and `UnknownModel` are learned from the upstream;
they are the caller's business all the same, and no other account is tried.

A message is written for the person who reads it and never holds a secret. Each dialect maps `code`
to its own words in one table.
"""

from typing import ClassVar

_DAY_SECONDS = 86_400
_RESET_MARGIN_SECONDS = 900


class GatewayError(Exception):
    """The gateway failed."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retry_after_seconds: float | None = None

    def __init__(self, message: str | None = None, *, retry_after_seconds: float | None = None):
        super().__init__(message or (self.__doc__ or "").strip())
        if retry_after_seconds is not None:
            self.retry_after_seconds = retry_after_seconds

    @property
    def message(self) -> str:
        return str(self.args[0])


class ClientError(GatewayError):
    """The request can't be served as it is."""

    status = 400
    code = "invalid_value"


class BadRequest(ClientError):
    """The request is malformed."""

    def __init__(
        self, message: str | None = None, *, param: str | None = None, code: str | None = None
    ):
        super().__init__(message)
        self.param = param
        if code is not None:
            self.code = code  # type: ignore[misc]  # an instance may be more specific than its class


class ContextTooLong(BadRequest):
    """The prompt is longer than the model takes."""

    code = "context_length_exceeded"


class ContentRefused(BadRequest):
    """The upstream's moderation refused this content."""

    code = "content_filter"


class InputRefused(BadRequest):
    """The upstream does not take this input."""


class Unauthorized(ClientError):
    """No API key, or a wrong one."""

    status = 401
    code = "invalid_api_key"


class Forbidden(ClientError):
    """This API key may not do that."""

    status = 403
    code = "forbidden"


class NotFound(ClientError):
    """There is nothing at this address."""

    status = 404
    code = "not_found"

    def __init__(
        self, message: str | None = None, *, param: str | None = None, code: str | None = None
    ):
        super().__init__(message)
        self.param = param
        if code is not None:
            self.code = code  # type: ignore[misc]  # an instance may be more specific than its class


class UnknownModel(NotFound):
    """There is no such model."""

    code = "model_not_found"


class MethodNotAllowed(ClientError):
    """This address does not take this method."""

    status = 405
    code = "method_not_allowed"


class Conflict(ClientError):
    """That is in conflict with what is already there."""

    status = 409
    code = "conflict"


class PayloadTooLarge(ClientError):
    """The request body is too large."""

    status = 413
    code = "body_too_large"


class LoginRefused(ClientError):
    """The upstream did not let this account log in."""

    status = 422
    code = "login_failed"


class RateLimited(ClientError):
    """This API key is over its limit."""

    status = 429
    code = "rate_limit_exceeded"


class UpstreamError(GatewayError):
    """The upstream failed."""

    status = 502
    code = "upstream_error"


class UpstreamRejected(UpstreamError):
    """The upstream refused the request."""


class UpstreamUnavailable(UpstreamError):
    """The upstream can't be reached or is broken."""


class UpstreamBusy(UpstreamError):
    """The upstream asks for a slower pace.

    A caller hears it only when every account that was tried said so: none is usable for a moment.
    """

    status = 503
    code = "no_account"

    def __init__(self, message: str | None = None, *, pause_seconds: float = 3):
        super().__init__(message, retry_after_seconds=max(1, pause_seconds))
        self.pause_seconds = pause_seconds


class UpstreamProtocolError(UpstreamError):
    """The upstream's answer makes no sense or was cut off."""


class UnusableAnswer(UpstreamError):
    """The model's answer is not what it was asked for."""


class UpstreamEmpty(UpstreamError):
    """The upstream ended its answer without saying anything."""

    code = "upstream_empty"


class UpstreamSilent(UpstreamError):
    """The upstream was silent for too long."""

    status = 504
    code = "upstream_timeout"


class UpstreamQuota(UpstreamError):
    """This account's quota is used up.

    `hours` = how long the upstream says it lasts, when it says so.
    """

    status = 429
    code = "accounts_exhausted"

    def __init__(self, message: str | None = None, *, hours: float | None = None):
        super().__init__(message or "This account's quota is used up.")
        self.hours = hours

    def resumes_at(self, now: float) -> float:
        """The moment (epoch seconds) from which the account may be asked again, seen from `now`.

        Quotas begin anew at 00:00 UTC. A refusal in the first quarter of an hour of a day shows
        that this one didn't: then the upstream's own hours count (protocol sheet 15.4).
        """
        since_midnight = now % _DAY_SECONDS
        if self.hours is not None and since_midnight < _RESET_MARGIN_SECONDS:
            return now + self.hours * 3600
        return now - since_midnight + _DAY_SECONDS


class UpstreamBlocked(UpstreamError):
    """The upstream's firewall refuses this address."""

    status = 503
    code = "upstream_blocked"
    retry_after_seconds = 60


class TokenRejected(UpstreamError):
    """The upstream does not accept this account's access token."""


class ChatGone(UpstreamError):
    """The upstream does not know this chat any more."""


class LoginFailed(UpstreamError):
    """The upstream did not let this account log in."""


class LoginsTooFast(LoginFailed):
    """Logins come too fast for the upstream.

    `told_seconds` = how long the upstream says to wait, when it says so.
    """

    def __init__(self, message: str | None = None, *, told_seconds: float | None = None):
        super().__init__(
            message or "Logins come too fast for the upstream.",
            retry_after_seconds=60 if told_seconds is None else max(1, told_seconds),
        )
        self.told_seconds = told_seconds


class LoginsCrowded(LoginFailed):
    """This account waits for its turn to log in."""


class AccountDead(LoginFailed):
    """This account can't log in: its password is wrong or it isn't activated."""


class AccountsExhausted(GatewayError):
    """Every account is spent for this capability."""

    status = 429
    code = "accounts_exhausted"
    retry_after_seconds = 60


class NoAccount(GatewayError):
    """No account is usable now."""

    status = 503
    code = "no_account"
    retry_after_seconds = 5


class NoCatalogue(GatewayError):
    """The upstream's model list could not be read yet."""

    status = 503
    code = "no_catalogue"
    retry_after_seconds = 5


class Draining(GatewayError):
    """This gateway process is shutting down."""

    status = 503
    code = "draining"
    retry_after_seconds = 1


class StoreUnavailable(GatewayError):
    """The gateway's store does not answer."""

    status = 503
    code = "store_unavailable"
    retry_after_seconds = 2
