"""Where accounts on the command line come from: a file, standard input, the Redis of Qwen2API.

Knows: how each is read, a piece at a time. Does not know: what becomes of the lines.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from shared.intake.formats import Intake
from shared.intake.lines import Line
from shared.store.qwen2api import Qwen2ApiRedis

CHUNK_BYTES: Final = 64 * 1024
_REDIS: Final = ("redis://", "rediss://", "unix://", "redis+sentinel://", "redis+cluster://")


class Source(Protocol):
    """Lines, and what came with them."""

    name: str

    def lines(self) -> AsyncIterator[Line]:
        """Each line once, as it is asked for."""

    async def settings(self) -> bytes:
        """Settings and keys of a Qwen2API instance, once the lines were read; else b""."""

    async def close(self) -> None:
        """Nothing stays open."""


class FileSource:
    """A file of any form, or standard input."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name = name
        self._file = file
        self._intake = Intake()

    async def lines(self) -> AsyncIterator[Line]:
        # A pipe may be slow: what else this process does must go on meanwhile.
        while chunk := await asyncio.to_thread(self._read):
            for line in self._intake.feed(chunk):
                yield line
        for line in self._intake.close():
            yield line

    async def settings(self) -> bytes:
        return self._intake.settings

    async def close(self) -> None:
        if self._file is not sys.stdin.buffer:
            self._file.close()

    def _read(self) -> bytes:
        return self._file.read(CHUNK_BYTES)


class RedisSource:
    """The Redis of a Qwen2API instance; the URL is not shown, it may hold a password."""

    name = "redis"

    def __init__(self, url: str) -> None:
        self._redis = Qwen2ApiRedis(url)

    def lines(self) -> AsyncIterator[Line]:
        return self._redis.lines()

    async def settings(self) -> bytes:
        return await self._redis.settings()

    async def close(self) -> None:
        await self._redis.close()


def open_source(text: str) -> Source:
    """A path, `-` for standard input, or the URL of a Redis.

    Raises:
        OSError: the file can't be read.
        ValueError: the URL can't.
    """
    if text.startswith(_REDIS):
        return RedisSource(text)
    if text == "-":
        return FileSource("stdin", sys.stdin.buffer)
    return FileSource(text, Path(text).open("rb"))
