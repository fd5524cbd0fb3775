"""What an error means for the account, for its egress and for the next attempt: one table.

Knows: the error tree and the reactions of protocol sheet 15.4. Does not know: how a turn runs.
"""

import time

import msgspec

from shared.accounts import EGRESS_REST
from shared.errors import (
    AccountDead,
    ChatGone,
    ClientError,
    GatewayError,
    LoginFailed,
    TokenRejected,
    UnusableAnswer,
    UpstreamBlocked,
    UpstreamBusy,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamQuota,
    UpstreamRejected,
    UpstreamSilent,
    UpstreamUnavailable,
)
from shared.store.leases import (
    COMMON_FAILURE_CAP_SECONDS,
    QUOTA,
    SERVED,
    Cooldown,
    Outcome,
)


class Reaction(msgspec.Struct, frozen=True):
    """What to do after a failed attempt.

    Attributes:
        again: another attempt may hear something else.
        counted: the failed attempt uses up one of `CHAT_RETRY_COUNT`. A refusal that costs the
            upstream nothing and tells us something lasting about the account isn't counted.
        rest_seconds: the account rests this long for this capability.
        reason: the cooldown's reason and the label of `…_failovers_total`.
    """

    again: bool = True
    counted: bool = True
    rest_seconds: float = 0
    reason: str = "failure"


# Most specific class first; the first `isinstance` wins.
# Failures that hit every account alike rest none for more than 5 s (contract.md 4).
REACTIONS: tuple[tuple[type[GatewayError], Reaction], ...] = (
    (ClientError, Reaction(again=False, reason="client")),
    (UnusableAnswer, Reaction(again=False, reason="unusable")),  # the model was asked twice already
    (AccountDead, Reaction(counted=False, reason="dead")),  # until an operator mends it
    (LoginFailed, Reaction(rest_seconds=5, reason="login")),
    (UpstreamQuota, Reaction(counted=False, reason="quota")),  # rests until the error's own moment
    (UpstreamBlocked, Reaction(reason="blocked")),  # the egress rests, not the account
    # Sheet: the same account once after about 3 s, then another. Lending another one at once and
    # this one after its rest is the same for a pool of one and faster for every other.
    (UpstreamBusy, Reaction(rest_seconds=3, reason="busy")),
    (TokenRejected, Reaction(rest_seconds=5, reason="token")),
    (ChatGone, Reaction(reason="chat_gone")),
    (UpstreamUnavailable, Reaction(rest_seconds=1, reason="unavailable")),
    (UpstreamSilent, Reaction(rest_seconds=5, reason="silent")),
    (UpstreamProtocolError, Reaction(reason="protocol")),
    (UpstreamRejected, Reaction(again=False, reason="rejected")),
    (UpstreamError, Reaction(reason="failure")),
)

_STOP = Reaction(again=False)


def reaction_to(error: GatewayError) -> Reaction:
    """Anything that is not the upstream's doing is never tried again."""
    return next((reaction for kind, reaction in REACTIONS if isinstance(error, kind)), _STOP)


def outcome_of(error: GatewayError | None, *, served: bool) -> Outcome:
    """What an attempt tells the pool about its account.

    Args:
        served: the account answered at least in part; False for a caller that left before.
    """
    if error is None:
        return SERVED if served else Outcome()
    reaction = reaction_to(error)
    cooldown = None
    egress_rest = None
    if isinstance(error, UpstreamQuota):
        cooldown = Cooldown(reason=QUOTA, until=error.resumes_at(time.time()))
    elif isinstance(error, UpstreamBlocked):
        egress_rest = EGRESS_REST
    elif isinstance(error, UpstreamBusy):
        cooldown = Cooldown(reason=reaction.reason, seconds=error.pause_seconds, cap_seconds=30)
    elif reaction.rest_seconds:
        # Doubled with every probe that fails, but never beyond what contract.md 4 allows.
        cooldown = Cooldown(
            reason=reaction.reason,
            seconds=reaction.rest_seconds,
            cap_seconds=COMMON_FAILURE_CAP_SECONDS,
        )
    return Outcome(
        # The account did its part when the fault is the caller's, or the model's.
        ok=isinstance(error, ClientError | UnusableAnswer),
        cooldown=cooldown,
        dead=error.message if isinstance(error, AccountDead) else "",
        egress_rest=egress_rest,
        token_rejected=isinstance(error, TokenRejected),
        error_code=error.code,
        error_message=error.message,
    )
