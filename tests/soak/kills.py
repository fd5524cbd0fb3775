"""The kill loop: rounds of load with one `kill -9` each, and what must be true after every one.

After each round, with no load: every role has its processes again, every lease is back, turns
succeed on all accounts at once, no account ever carried more streams than its limit (as the
simulator counted them), every account signed in once per life of the simulator (which forgets its
tokens when it dies), and no turn hung or was answered wrongly.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import msgspec

from tests.bench.client import Client
from tests.soak.callers import Callers
from tests.soak.product import ACCOUNT_CONCURRENCY, ACCOUNTS, KEY, ROLES, Product, Role

CALLERS = 12
# Contract, section 7.2: a killed process's leases come back within 60 s.
LEASES_SECONDS = 60.0
LEASES_SLACK_SECONDS = 5.0  # after the load's last turn, when that ended later than this
RECOVERY_SECONDS = 60.0
# Contract, section 7.7: with Redis gone new work gets 503 within 2 s.
UNAVAILABLE_SECONDS = 2.0


class Round(msgspec.Struct):
    """One kill and what followed.

    Attributes:
        turns: how many turns ended with each verdict.
        serving_after_seconds: from the kill to the next turn begun after it that was whole.
        leases_after_seconds: from the kill until no lease was out; the load ends in between.
        unavailable_seconds: the slowest 503 `store_unavailable` of a turn begun after the kill.
        violations: promises that were broken; empty in a good round.
    """

    number: int
    killed: Role
    turns: dict[str, int]
    serving_after_seconds: float | None
    leases_after_seconds: float | None
    unavailable_seconds: float | None
    refusals: dict[str, int]
    violations: list[str]


async def run_rounds(
    product: Product, *, rounds: int, seed: int, tell: Callable[[Round], None]
) -> list[Round]:
    """So many rounds; every role has its turn before one comes again."""
    chance = random.Random(seed)
    callers = Callers(product.url, key=KEY, count=CALLERS, seed=seed)
    loop = _Loop(product, callers, chance)
    done: list[Round] = []
    try:
        await loop.warm_up()
        while len(done) < rounds:
            for role in _lap(chance)[: rounds - len(done)]:
                done.append(await loop.round(len(done) + 1, role))
                tell(done[-1])
    finally:
        await callers.close()
    return done


def _lap(chance: random.Random) -> list[Role]:
    """Every role once; the parent of the job processes, which serves nobody, comes last."""
    others: list[Role] = [role for role in ROLES if role != "job_parent"]
    return [*chance.sample(others, len(others)), "job_parent"]


class _Loop:
    def __init__(self, product: Product, callers: Callers, chance: random.Random) -> None:
        self._product = product
        self._callers = callers
        self._chance = chance
        self._normal = product.counts()

    async def warm_up(self) -> None:
        """Every account has signed in; every role is there.

        Raises:
            RuntimeError: the product is not whole to begin with.
        """
        if violations := await self._settled(time.monotonic() + LEASES_SECONDS):
            raise RuntimeError(f"not whole before the first kill: {violations}")

    async def round(self, number: int, role: Role) -> Round:
        before = len(self._callers.outcomes)
        self._callers.begin()
        await asyncio.sleep(self._chance.uniform(0.3, 1.5))
        violations = self._limit_violations()  # the simulator may not live to tell
        killed_at = time.monotonic()
        self._kill(role)
        await asyncio.sleep(self._chance.uniform(0.5, 2.0))
        await self._callers.end()
        serving = self._serving_after(killed_at, before)
        leases_by = max(killed_at + LEASES_SECONDS, time.monotonic() + LEASES_SLACK_SECONDS)
        violations += await self._settled(leases_by)
        outcomes = self._callers.outcomes[before:]
        refusals: dict[str, int] = {}
        for outcome in outcomes:
            if outcome.verdict == "refused":
                refusals[outcome.detail] = refusals.get(outcome.detail, 0) + 1
        unavailable = max(
            (
                outcome.ended_at - outcome.begun_at
                for outcome in outcomes
                if outcome.begun_at > killed_at and "store_unavailable" in outcome.detail
            ),
            default=None,
        )
        if unavailable is not None and unavailable > UNAVAILABLE_SECONDS:
            violations.append(f"a 503 store_unavailable took {unavailable:.1f} s")
        violations += [f"{bad.verdict}: {bad.detail}" for bad in self._callers.bad(before)]
        return Round(
            number=number,
            killed=role,
            turns=dict(self._callers.tally(before)),
            serving_after_seconds=serving,
            leases_after_seconds=self._leases_back_at and self._leases_back_at - killed_at,
            unavailable_seconds=unavailable,
            refusals=refusals,
            violations=violations,
        )

    _leases_back_at: float | None = None

    def _kill(self, role: Role) -> None:
        victim = self._chance.choice(self._product.members()[role])
        victim.kill()
        if role == "simulator":
            assert self._product.simulator.program is not None
            self._product.simulator.program.process.wait()
            self._product.simulator.start()

    def _serving_after(self, killed_at: float, since: int) -> float | None:
        ends = [
            outcome.ended_at
            for outcome in self._callers.outcomes[since:]
            if outcome.verdict == "whole" and outcome.begun_at > killed_at
        ]
        return min(ends) - killed_at if ends else None

    async def _settled(self, leases_by: float) -> list[str]:
        """Waits until the product is whole again; what is not by its bound is a violation.

        Args:
            leases_by: the moment when every lease must be back.
        """
        self._leases_back_at = None
        violations: list[str] = []
        if await _within(leases_by - time.monotonic(), self._no_leases):
            self._leases_back_at = time.monotonic()
        else:
            violations.append(f"leases are still out {LEASES_SECONDS:g} s after the kill")
        if not await _within(RECOVERY_SECONDS, self._is_complete):
            violations.append(f"processes: {self._product.counts()}, were {self._normal}")
        if not await _within(RECOVERY_SECONDS, self._serves_on_all_accounts):
            violations.append(f"no turns on all accounts after {RECOVERY_SECONDS:g} s")
        return violations + self._limit_violations() + self._login_violations()

    async def _is_complete(self) -> bool:
        return self._product.counts() == self._normal

    async def _no_leases(self) -> bool:
        """No account is in use by its record, none by the simulator's count."""
        client = Client(self._product.url)
        headers = {"authorization": f"Bearer {KEY}"}
        answer = await client.ask(client.request("GET", "/api/accounts", headers=headers))
        await client.close()
        if answer.error or answer.status != 200:
            return False
        in_use = sum(account["in_flight"] for account in msgspec.json.decode(answer.body)["data"])
        return in_use == 0 and self._product.simulator.open_streams() == 0

    async def _serves_on_all_accounts(self) -> bool:
        """As many turns at once as there are slots, all whole."""
        slots = ACCOUNTS * ACCOUNT_CONCURRENCY
        probe = Callers(self._product.url, key=KEY, count=0, seed=1, leavers=0)
        outcomes = await asyncio.gather(*(probe.turn() for _ in range(2 * slots)))
        await probe.close()
        signed_in = self._product.simulator.stats()["logins"]
        return len(signed_in) == ACCOUNTS and all(one.verdict == "whole" for one in outcomes)

    def _limit_violations(self) -> list[str]:
        most = self._product.simulator.stats()["streams"]["max_open_by_account"]
        return [
            f"{email} carried {count} streams at once"
            for email, count in most.items()
            if count > ACCOUNT_CONCURRENCY
        ]

    def _login_violations(self) -> list[str]:
        logins = self._product.simulator.stats()["logins"]
        return [f"{email} signed in {count} times" for email, count in logins.items() if count != 1]


async def _within(seconds: float, holds: Callable[[], Awaitable[bool]]) -> bool:
    """Polls to the bound."""
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True
