"""What the tests of the pool share: accounts by number, signing them in, polling to a bound."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from shared.settings import AccountEntry
from shared.store.logins import Claim
from shared.store.store import Store


def email(number: int) -> str:
    return f"a{number:05d}@example.org"


def entries(count: int, *, proxy: str = "") -> list[AccountEntry]:
    return [AccountEntry(email=email(i), password=f"pw{i}", proxy=proxy) for i in range(count)]


async def sign_in(
    store: Store, account: str, token: str = "jwt", *, lapses_in: float = 3600
) -> str:
    """Logs the account in as the upstream would have it; returns the token's version."""
    claim = await store.logins.claim(account, margin_seconds=10**9)
    assert isinstance(claim, Claim)
    version = await store.logins.store(claim, token, expires_at=time.time() + lapses_in)
    assert version is not None
    return version


async def until(
    condition: Callable[[], Awaitable[bool]], *, seconds: float, every: float = 0.01
) -> float:
    """Polls until the condition holds; returns after how long. Fails at the bound."""
    started = time.monotonic()
    while not await condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        await asyncio.sleep(every)
    return time.monotonic() - started
