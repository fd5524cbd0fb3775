"""Egress: which way an account's requests leave, and one transport for each way.

An account's own proxy wins over `PROXY_URL`; without either they leave directly. It applies to
every request made for that account (protocol sheet 12).

With thousands of accounts there may be thousands of proxies: the least recently used transports
that carry nothing are closed above a limit.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import httpx

OpenTransport = Callable[[str], httpx.AsyncBaseTransport]
"""Proxy URL, or empty for a direct way out → a transport."""


class Egress:
    """One way out. `users` = exchanges under way."""

    __slots__ = ("proxy", "transport", "users")

    def __init__(self, proxy: str, transport: httpx.AsyncBaseTransport) -> None:
        self.proxy = proxy
        self.transport = transport
        self.users = 0


class Egresses:
    """All ways out of this process."""

    def __init__(
        self, open_transport: OpenTransport, *, default_proxy: str = "", limit: int = 1000
    ) -> None:
        self._open = open_transport
        self._default = default_proxy
        self._limit = limit
        self._egresses: OrderedDict[str, Egress] = OrderedDict()  # least recently used first
        self._closing: set[asyncio.Task[None]] = set()

    def take(self, proxy: str) -> Egress:
        """The way out for an account with this proxy (empty: none of its own); give it back."""
        proxy = proxy or self._default
        egress = self._egresses.get(proxy)
        if egress is None:
            egress = self._egresses[proxy] = Egress(proxy, self._open(proxy))
            egress.users += 1
            self._close_surplus()
            return egress
        self._egresses.move_to_end(proxy)
        egress.users += 1
        return egress

    def give_back(self, egress: Egress) -> None:
        egress.users -= 1

    def __len__(self) -> int:
        return len(self._egresses)

    async def close(self) -> None:
        """Close every transport; what still runs on them breaks."""
        egresses, self._egresses = list(self._egresses.values()), OrderedDict()
        for egress in egresses:
            await egress.transport.aclose()
        await asyncio.gather(*self._closing)

    def _close_surplus(self) -> None:
        if len(self._egresses) <= self._limit:
            return
        idle = next((egress for egress in self._egresses.values() if not egress.users), None)
        if idle is None:
            return  # all of them carry something: one more for now
        del self._egresses[idle.proxy]
        task = asyncio.get_running_loop().create_task(idle.transport.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
