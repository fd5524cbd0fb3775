"""A pool with very many accounts in a chosen situation, made quickly."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final

from shared.errors import GatewayError
from shared.store.leases import QUOTA, Cooldown, EgressRest, Lease, Outcome
from shared.store.store import Store
from tests.integration.store.pool import email

SITUATIONS: Final = (
    "all ready",
    "all must log in",
    "each with its own egress",
    "all busy",
    "all cooling",
    "one egress resting with nearly all behind it",
    "all but one dead",
    "half dead, half signed in",
)
_AT_ONCE = 200


async def crowd(store: Store, situation: str, count: int) -> list[Lease]:
    """`count` accounts in that situation; returns the leases that hold it."""
    own_egress = situation == "each with its own egress"
    signed_in = situation != "all must log in"

    async def add(number: int) -> None:
        proxy = "http://crowded:1" if situation.startswith("one egress") and number else ""
        await store.accounts.add(
            email(number),
            "pw",
            proxy=f"http://proxy{number}:1" if own_egress else proxy,
            access_token="jwt" if signed_in else "",
            token_expires_at=time.time() + 86400,
        )

    await in_batches([add(number) for number in range(count)])
    leases: list[Lease] = []
    if situation == "all busy":
        leases = await lend_all(store)
    elif situation == "all cooling":
        spent = Cooldown(reason=QUOTA, seconds=600)
        while leases := await lend_some(store, _AT_ONCE):
            await release_all(store, leases, Outcome(cooldown=spent))
    elif situation.startswith("one egress"):
        leases = await lend_some(store, 2)
        crowded = next(lease for lease in leases if lease.proxy)
        await store.leases.release(crowded, Outcome(egress_rest=EgressRest(600)))
        leases.remove(crowded)
        await release_all(store, leases, Outcome())
        leases = []
    elif "dead" in situation:
        dead = count - 1 if situation.startswith("all but") else count // 2
        while dead:
            some = await lend_some(store, min(dead, _AT_ONCE))
            unique = list({lease.account: lease for lease in some}.values())
            await release_all(store, unique, Outcome(dead="wrong password"))
            await release_all(store, [x for x in some if x not in unique], Outcome())
            dead -= len(unique)
    return leases


async def lend_some(store: Store, count: int) -> list[Lease]:
    results = await asyncio.gather(
        *(store.leases.acquire("chat") for _ in range(count)), return_exceptions=True
    )
    assert all(isinstance(result, Lease | GatewayError) for result in results)
    return [result for result in results if isinstance(result, Lease)]


async def lend_all(store: Store) -> list[Lease]:
    leases = []
    while some := await lend_some(store, _AT_ONCE):
        leases += some
    return leases


async def release_all(store: Store, leases: list[Lease], outcome: Outcome) -> None:
    await in_batches([store.leases.release(lease, outcome) for lease in leases])


async def in_batches(work: list[Coroutine[Any, Any, Any]]) -> None:
    for start in range(0, len(work), _AT_ONCE):
        await asyncio.gather(*work[start : start + _AT_ONCE])
