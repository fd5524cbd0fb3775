"""The Redis of a Qwen2API instance, read and left as it is.

    user:<e-mail>       hash: password, token, expires (epoch seconds), proxy, and statistics
    qwen2api:settings   hash: one field `json`; in older versions one field per setting

Source: what it writes, read on 2026-11-23.

Knows: its keys. Does not know: what becomes of what was found.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from shared.errors import StoreUnavailable
from shared.intake.expiry import epoch_seconds
from shared.intake.lines import BatchLine, Line, checked
from shared.store.connection import open_client

_PREFIX: Final = "user:"
_SETTINGS: Final = "qwen2api:settings"
_TIMEOUT_SECONDS: Final = 10.0
_AT_ONCE: Final = 200


class Qwen2ApiRedis:
    """Somebody else's database: nothing is ever written there.

    Args:
        url: as `REDIS_URL`.
    """

    def __init__(self, url: str) -> None:
        self._client = open_client(url, timeout_seconds=_TIMEOUT_SECONDS)

    async def lines(self) -> AsyncIterator[Line]:
        """Its accounts, numbered from 1, those of one scan after the other.

        Raises:
            StoreUnavailable: it does not answer.
        """
        number, seen = 0, set[str]()
        async for names in self._names():
            new = [name for name in dict.fromkeys(names) if name not in seen]
            seen.update(new)  # a scan may name one twice
            for name in new:
                record = await self._hash(name)
                number += 1
                yield _line(number, name.removeprefix(_PREFIX), record)

    async def settings(self) -> bytes:
        """Its settings and API keys as JSON; b"" when it has none.

        Raises:
            StoreUnavailable: it does not answer.
        """
        record = await self._hash(_SETTINGS)
        if "json" in record:
            return record["json"].encode()
        return msgspec.json.encode(record) if record else b""

    async def close(self) -> None:
        await self._client.close()

    async def _names(self) -> AsyncIterator[list[str]]:
        cursor = 0
        while True:
            cursor, names = await self._ask(
                "SCAN", cursor, "MATCH", f"{_PREFIX}*", "COUNT", _AT_ONCE
            )
            yield names
            if not int(cursor):
                return

    async def _hash(self, name: str) -> Mapping[str, str]:
        found = await self._ask("HGETALL", name)
        return dict(found)

    async def _ask(self, *command: str | int) -> Any:  # Any: each caller knows its shape
        try:
            return await self._client.redis.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py left it untyped
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"The Redis of Qwen2API does not answer: {error}") from error


def _line(number: int, email: str, record: Mapping[str, str]) -> Line:
    return checked(
        BatchLine(
            number=number,
            email=email.strip(),
            password=record.get("password", ""),
            proxy=record.get("proxy", "").strip(),
            token=record.get("token", "").strip(),
            expires_at=epoch_seconds(record.get("expires")),
        )
    )
