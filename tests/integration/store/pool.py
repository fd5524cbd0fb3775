"""What the tests of the pool share: accounts by number, signing them in, polling to a bound."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import msgspec

from shared.sealing import Sealer
from shared.settings import AccountEntry, Settings
from shared.store.connection import Connection
from shared.store.logins import Claim
from shared.store.settings import SettingsInForce
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


class Child:
    """A process running `tests.integration.store.child`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, settings: Settings, *work: str) -> "Child":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.store.child",
            msgspec.json.encode(settings).decode(),
            *work,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def says(self, word: str, *, seconds: float = 15) -> str:
        """The next line, which must begin with `word`."""
        assert self.process.stdout is not None
        line = (await asyncio.wait_for(self.process.stdout.readline(), seconds)).decode().strip()
        assert line.startswith(word), line
        return line

    async def kill(self) -> None:
        """kill -9."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def finish(self, *, seconds: float = 30) -> int:
        """Closes its stdin and waits for its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await asyncio.wait_for(self.process.wait(), seconds)


def in_force(connection: Connection, sealer: Sealer) -> SettingsInForce:
    """Settings for a part of the store that a test makes by itself."""
    return SettingsInForce(connection, sealer, Settings(login_min_interval_ms=0))
