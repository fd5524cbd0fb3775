"""Why an account is or isn't lent now, in words for an operator.

Knows: what lending looks at (`lua/pool.lua`). Does not know: lending itself.
"""

import msgspec

from shared.errors import NotFound
from shared.store import keys
from shared.store.accounts import account_id
from shared.store.connection import Connection
from shared.store.leases import Capability
from shared.store.settings import SettingsInForce


class Reason(msgspec.Struct, frozen=True):
    """One thing in the way; `until` = when it is over by itself (epoch seconds), where known."""

    code: str
    message: str
    until: float | None = None


class Explanation(msgspec.Struct, frozen=True):
    """How an account stands for one capability.

    Attributes:
        lent: whether a request that came now could get it.
        ahead: how many accounts (at least) have been ready longer and would be lent before it.
    """

    capability: Capability
    lent: bool
    reasons: list[Reason]
    ahead: int


class Explanations:
    """Asks the pool about one account."""

    def __init__(self, connection: Connection, *, settings: SettingsInForce) -> None:
        self._connection = connection
        self._settings = settings

    async def of(self, email: str) -> list[Explanation]:
        """One for each capability.

        Raises:
            NotFound: there is no such account.

        Script: account_explain.lua
        """
        text = await self._connection.run(
            "account_explain",
            keys.POOL,
            account_id(email),
            self._settings.current.account_concurrency,
        )
        if not text:
            raise NotFound("There is no such account.")
        facts = msgspec.json.decode(text, type=_Facts)
        return [_explained(facts, listed) for listed in facts.listed]


class _Rest(msgspec.Struct, rename={"until_ms": "until"}):
    until_ms: float
    reason: str


class _Listed(msgspec.Struct, rename={"until_ms": "until"}):
    capability: Capability
    ahead: int
    until_ms: float
    reason: str
    probing: bool
    signed_in_ready: bool


class _Facts(msgspec.Struct, rename={"now_ms": "now", "ready_at_ms": "ready_at"}):
    """As the script writes it."""

    now_ms: float
    state: str
    state_reason: str
    enabled: bool
    signed_in: bool
    in_flight: int
    limit: int
    ready_at_ms: float
    egress: str
    login_until: float
    listed: list[_Listed]
    rest: _Rest | None = None


def _explained(facts: _Facts, listed: _Listed) -> Explanation:
    reasons = _lasting(facts) or [*_passing(facts, listed), *_signed_out(facts, listed)]
    # Only what has no better before it is a reason against lending it.
    lent = all(reason.code in _HINTS for reason in reasons)
    return Explanation(listed.capability, lent, reasons, listed.ahead)


_HINTS = frozenset({"login_first", "login_under_way"})


def _lasting(facts: _Facts) -> list[Reason]:
    """What only an operator ends."""
    found = []
    if not facts.enabled:
        found.append(Reason("disabled", "It was disabled; enable it to have it lent again."))
    if facts.state == "dead":
        found.append(
            Reason("dead", f"It can't log in: {facts.state_reason} Mend it, then reset it.")
        )
    return found


def _passing(facts: _Facts, listed: _Listed) -> list[Reason]:
    """What ends by itself."""
    now, found = facts.now_ms, []
    if listed.until_ms > now:
        told = f"It rests after `{listed.reason}`."
        found.append(Reason("cooling", told, listed.until_ms / 1000))
    if facts.rest is not None and facts.rest.until_ms > now:
        told = f"Its egress address {facts.egress} rests after `{facts.rest.reason}`."
        found.append(Reason("egress_resting", told, facts.rest.until_ms / 1000))
    if facts.in_flight >= facts.limit:
        told = f"All its slots are lent: {facts.in_flight} of {facts.limit}."
        found.append(Reason("busy", told))
    elif listed.probing:
        told = (
            "One request is trying whether its cooldown is really over; it gets no other till then."
        )
        found.append(Reason("probing", told))
    if facts.ready_at_ms > now:
        told = "It pauses between two requests."
        found.append(Reason("pausing", told, facts.ready_at_ms / 1000))
    return found


def _signed_out(facts: _Facts, listed: _Listed) -> list[Reason]:
    if facts.signed_in:
        return []
    if facts.login_until > facts.now_ms:
        return [Reason("login_under_way", "It has no access token; a login is under way.")]
    if listed.signed_in_ready:
        told = "It has no access token: it is lent when no account with one is ready."
        return [Reason("signed_out", told)]
    return [Reason("login_first", "It has no access token: whoever gets it logs it in first.")]
