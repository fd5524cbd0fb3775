"""What a request or a login told about its account, as values and as the scripts read it.

Knows: cooldowns, rests of an egress, their JSON. Does not know: which failure means what
(`shared/turns` decides), how they are applied (`lua/pool.lua` does).
"""

from typing import Final

import msgspec

# The one reason that makes `AccountsExhausted` (429) of "nothing can be lent" instead of NoAccount.
QUOTA: Final = "quota"
# Failures that hit every account alike rest none of them longer than this (contract section 4).
COMMON_FAILURE_CAP_SECONDS: Final = 5.0


class Cooldown(msgspec.Struct, frozen=True, kw_only=True):
    """How long an account rests: `seconds`, doubled with every failed probe up to `cap_seconds`,
    or `until` a moment (epoch seconds), which nothing doubles."""

    reason: str
    seconds: float = 0
    until: float | None = None
    cap_seconds: float = 0
    every_capability: bool = False


class EgressRest(msgspec.Struct, frozen=True):
    """The firewall refused this egress address: it rests, its accounts are not to blame."""

    seconds: float
    reason: str = "firewall"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a request told about its account. The default tells nothing (a client that left)."""

    ok: bool = False
    cooldown: Cooldown | None = None
    dead: str = ""
    token_rejected: bool = False
    egress_rest: EgressRest | None = None
    error_code: str = ""
    error_message: str = ""


SERVED: Final = Outcome(ok=True)
NOTHING_LEARNED: Final = Outcome()


def facts_of(outcome: Outcome, *, token_version: str) -> str:
    """The facts for lease_release.lua as JSON, '' when there are none (the usual case)."""
    facts: dict[str, object] = {}
    if outcome.cooldown is not None:
        facts["cooldown"] = _cooldown_fact(outcome.cooldown)
    if outcome.dead:
        facts["dead"] = outcome.dead
    if outcome.token_rejected:
        facts["token_rejected"] = token_version
    if outcome.egress_rest is not None:
        facts["rest"] = _rest(outcome.egress_rest)
    if outcome.error_code:
        facts["error"] = {"code": outcome.error_code, "message": outcome.error_message}
    return msgspec.json.encode(facts).decode() if facts else ""


def _cooldown_fact(cooldown: Cooldown) -> dict[str, object]:
    fact: dict[str, object] = {"reason": cooldown.reason, "all": cooldown.every_capability}
    if cooldown.until is not None:
        return {**fact, "until_ms": int(cooldown.until * 1000)}
    ms, cap_ms = int(cooldown.seconds * 1000), int(cooldown.cap_seconds * 1000)
    return {**fact, "ms": max(1, ms), "cap_ms": max(1, ms, cap_ms)}


def rest_fact(rest: EgressRest | None) -> str:
    """The rest for login_fail.lua as JSON, '' when there is none."""
    return "" if rest is None else msgspec.json.encode(_rest(rest)).decode()


def _rest(rest: EgressRest) -> dict[str, object]:
    return {"ms": max(1, int(rest.seconds * 1000)), "reason": rest.reason}
