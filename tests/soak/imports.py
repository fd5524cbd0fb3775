"""The kill loop of imports: rounds of one batch with one `kill -9` each, and what must be true then.

After each round: the batch is completed within its bound, every line has succeeded exactly once by
its counters, by its results and by the pool, and a login was repeated only where it was under way
when its process died. The simulator is left alone: it would forget its accounts.
"""

import random
import time
from collections.abc import Callable
from typing import Final

import httpx
import msgspec

from tests.fakes.batches import Batches, Json, add_accounts
from tests.soak.product import KEY, ROLES, Product, Role

LINES: Final = 150
CONCURRENCY: Final = 10
LATENCY_MS: Final = 150
# Contract, section 7.4: interrupted work goes on within 60 s of a restart.
RESUMED_SECONDS: Final = 60.0
KILLED: Final = tuple(role for role in ROLES if role != "simulator")


class ImportRound(msgspec.Struct):
    """One import with one kill.

    Attributes:
        completed_after_seconds: from the kill on.
        repeated: logins of accounts that had logged in before.
        violations: promises that were broken; empty in a good round.
    """

    number: int
    killed: Role
    completed_after_seconds: float | None
    repeated: int
    violations: list[str]


def run_imports(
    product: Product,
    *,
    rounds: int,
    seed: int,
    tell: Callable[[ImportRound], None],
    roles: tuple[Role, ...] = KILLED,
) -> list[ImportRound]:
    """So many rounds; every role has its turn before one comes again."""
    chance = random.Random(seed)
    done: list[ImportRound] = []
    with Batches(product.url, KEY) as batches:
        batches.settings(batch_login_concurrency=CONCURRENCY)
        product.simulator.config(latency_ms={"signin": LATENCY_MS})
        time.sleep(2)  # contract, section 5: in force everywhere then
        while len(done) < rounds:
            for role in chance.sample(roles, len(roles))[: rounds - len(done)]:
                done.append(_round(product, batches, chance, len(done) + 1, role))
                tell(done[-1])
    return done


def _round(
    product: Product, batches: Batches, chance: random.Random, number: int, role: Role
) -> ImportRound:
    name = f"round{number}"
    accounts = batches.ready_accounts()
    batch_id = batches.create(add_accounts(product.simulator, LINES, name=name))["id"]
    time.sleep(chance.uniform(0.1, LINES / CONCURRENCY * LATENCY_MS / 1000))
    chance.choice(product.members()[role]).kill()
    killed_at = time.monotonic()
    batch: Json = {"state": "never seen"}
    while batch["state"] != "completed" and time.monotonic() < killed_at + RESUMED_SECONDS:
        time.sleep(0.2)
        batch = _seen(batches, batch_id) or batch
    ended_at = time.monotonic()
    if batch["state"] != "completed":
        violations = [f"not completed {RESUMED_SECONDS:g} s after the kill: {batch}"]
        return ImportRound(number, role, None, 0, violations)
    logins = product.simulator.stats()["logins"]
    logins = {email: times for email, times in logins.items() if email.startswith(f"{name}-")}
    repeated = sum(logins.values()) - len(logins)
    facts = {
        "succeeded": (batch["succeeded"], LINES),
        "processed": (batch["processed"], LINES),
        "failed": (batch["failed"], 0),
        "results": (dict(batches.statuses(batch_id)), {"succeeded": LINES}),
        "accounts": (batches.ready_accounts(), accounts + LINES),
        "accounts that logged in": (len(logins), LINES),
    }
    violations = [
        f"{what}: {found}, not {right}" for what, (found, right) in facts.items() if found != right
    ]
    if repeated > (0 if role.startswith("gateway") else CONCURRENCY):
        violations.append(f"{repeated} logins were repeated")
    return ImportRound(number, role, round(ended_at - killed_at, 1), repeated, violations)


def _seen(batches: Batches, batch_id: str) -> Json | None:
    """The batch; None while who should answer is just being started again."""
    try:
        answer = batches.http.get(f"/api/batches/{batch_id}")
    except httpx.TransportError:
        return None
    return dict(answer.json()) if answer.status_code == 200 else None
