"""From lines to a batch: which are to be done, which are there already, which come twice.

Lines come as an iterator and leave in pieces: 100,000 of them lie nowhere at once. Of a line that
was seen, only its e-mail address is remembered, to know it when it comes again.

Knows: lines and the pool. Does not know: formats, who asks, how a line is done.
"""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

import msgspec

from shared.errors import BadRequest
from shared.intake.lines import BatchLine, InvalidLine, Line
from shared.store.accounts import account_id
from shared.store.batches import Batches, Refused
from shared.upstream.dial import ProxyAddress

_PIECE: Final = 500


class DryLine(msgspec.Struct, frozen=True):
    """What would become of a line: `status` is valid, invalid or skipped."""

    line: int
    email: str
    status: str
    message: str = ""


class Seen:
    """Which e-mail addresses were given and where first; one for all files that come together."""

    def __init__(self) -> None:
        self._files: list[tuple[str, dict[str, int]]] = []
        self.begin("")

    def begin(self, name: str) -> None:
        """From here on lines are those of this file."""
        self._files.append((name, {}))

    def earlier(self, account: str, number: int) -> str | None:
        """Where the account of this line came before; None when it hasn't."""
        *others, (_, lines) = self._files
        for name, known in others:
            if account in known:
                return f"line {known[account]} of {name}"
        first = lines.setdefault(account, number)
        return None if first == number else f"line {first}"


async def put_down(
    batches: Batches, lines: AsyncIterable[Line], *, seen: Seen | None = None
) -> str:
    """There is a batch of these lines, to be done from now on; returns its id.

    Raises:
        BadRequest: there are none.
    """
    batch_id = ""
    async for piece in _sorted(batches, lines, seen or Seen()):
        batch_id = batch_id or await batches.open("import")
        await batches.add(batch_id, piece)
    await batches.start(batch_id)
    return batch_id


async def dry_run(
    batches: Batches, lines: AsyncIterable[Line], *, seen: Seen | None = None
) -> AsyncIterator[DryLine]:
    """What would become of each line; nothing is stored.

    Raises:
        BadRequest: there are none.
    """
    async for piece in _sorted(batches, lines, seen or Seen()):
        for line in piece:
            if isinstance(line, Refused):
                yield DryLine(line.number, line.email, line.status, line.reason)
            else:
                yield DryLine(line.number, account_id(line.email), "valid")


async def _sorted(
    batches: Batches, lines: AsyncIterable[Line], seen: Seen
) -> AsyncIterator[list[BatchLine | Refused]]:
    piece: list[Line] = []
    async for piece in _pieces(lines):
        ids = [account_id(line.email) for line in piece if isinstance(line, BatchLine)]
        existing = await batches.existing(ids)
        yield [_sort(line, seen, existing) for line in piece]
    if not piece:
        raise BadRequest("accounts: no lines were given", param="accounts")


def _sort(line: Line, seen: Seen, existing: set[str]) -> BatchLine | Refused:
    if isinstance(line, InvalidLine):
        return _invalid(line, line.reason)
    if line.proxy and not ProxyAddress.accepts(line.proxy):
        return _invalid(line, "the proxy is no scheme://[user:password@]host[:port]")
    account = account_id(line.email)
    if place := seen.earlier(account, line.number):
        return _skipped(line, f"The same e-mail address as in {place}.")
    if account in existing:
        return _skipped(line, "The account exists already.")
    return line


def _invalid(line: Line, reason: str) -> Refused:
    return Refused(number=line.number, email=line.email, status="invalid", reason=reason)


def _skipped(line: BatchLine, reason: str) -> Refused:
    return Refused(
        number=line.number, email=account_id(line.email), status="skipped", reason=reason
    )


async def _pieces(lines: AsyncIterable[Line]) -> AsyncIterator[list[Line]]:
    piece: list[Line] = []
    async for line in lines:
        piece.append(line)
        if len(piece) == _PIECE:
            yield piece
            piece = []
    if piece:
        yield piece
