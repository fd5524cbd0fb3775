"""Batches: many accounts to be logged in, line by line, whoever dies meanwhile.

    async with writing: batch_id = await batches.open("import"); add(...)…; start(batch_id)
    [claim, …] = (await batches.claim(want=8)).claims     what may be begun now
    await batches.succeed(claim, …) | fail(claim, …) | again(claim, …)

A line waits, or is claimed, or has ended. Claims are one semaphore over all batches and processes
(`BATCH_LOGIN_CONCURRENCY`, read anew at each claim); batches take turns; logins through one egress
keep their distance. A claim lapses by itself, and who holds a lapsed one can end nothing:

    t=0   A claims line 7 (fence 41) and signs in
    t=1   A is frozen, or killed
    t=20  the claim lapses; B claims line 7 (fence 52), signs in, ends it
    t=30  A thaws and says "succeeded" with fence 41: stale, nothing happens

The account is stored in the same step that ends its line, so a line is done once or not at all. Its
input (password, token, proxy) is sealed; it goes when the line has succeeded. Lines that failed
keep theirs for a retry, `INPUT_LIFE` of lua/batches.lua long.

Knows: records, lines, claims. Does not know: formats, how to log in, who runs it.
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal

import msgspec

from shared.errors import NotFound
from shared.intake.lines import BatchLine
from shared.sealing import SealBroken, Sealer
from shared.store import keys
from shared.store.accounts import Accounts, account_id
from shared.store.connection import Connection
from shared.store.outcome import EgressRest, rest_fact
from shared.store.settings import SettingsInForce

# A sign-in takes at most 10 s, and one may wait for its egress before: who is silent for longer
# than this is dead.
CLAIM_SECONDS: Final = 20.0
# How far ahead a line reserves the login slot of its egress: turns that must log in stand in the
# same line, behind no more than this.
AHEAD_SECONDS: Final = 0.3

_LINES_AT_ONCE: Final = 500
_RETRIED_AT_ONCE: Final = 200

Kind = Literal["import", "refresh"]
State = Literal["queued", "running", "completed", "cancelled"]
Outcome = Literal["succeeded", "failed", "skipped", "stale"]
Status = Literal["waiting", "succeeded", "failed", "skipped", "invalid", "cancelled"]


class LineResult(msgspec.Struct, frozen=True):
    """What became of a line, for the operator: `message` says what to do about it."""

    line: int
    email: str
    status: Status
    message: str = ""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as an operator sees it; times in epoch seconds.

    total = valid + invalid + skipped; processed = succeeded + failed, of the valid ones.
    `concurrency` is the setting in force, `active` are the lines under way.
    """

    id: str
    kind: Kind
    state: State
    total: int
    valid: int
    invalid: int
    skipped: int
    processed: int
    succeeded: int
    failed: int
    concurrency: int
    active: list[str]
    recent: list[LineResult]
    created_at: float
    started_at: float | None
    finished_at: float | None

    @property
    def ended(self) -> bool:
        return self.state in ("completed", "cancelled")


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The right to do one line, beginning after `start_in_ms`; `input` is in clear.

    `input` is None for a line of a refresh, and where it can't be read any more (`unreadable`).
    `tries`: how often it failed before for a reason that may pass.
    """

    batch: str
    kind: Kind
    number: int
    fence: int
    start_in_ms: int
    tries: int
    egress: str
    email: str
    input: BatchLine | None
    unreadable: str = ""


class Claims(msgspec.Struct, frozen=True):
    """What may be begun now. `more_in_ms`: when to ask again; None = no line waits anywhere."""

    claims: list[Claim]
    more_in_ms: int | None


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A line that is not done: it holds no account, or one that needs no login."""

    number: int
    email: str
    status: Literal["invalid", "skipped"]
    reason: str


class Batches:
    """The batches of the whole fleet.

    Args:
        settings: those in force; a changed concurrency counts from the next claim on.
        claim_seconds: how long a claim lives.
    """

    def __init__(
        self,
        connection: Connection,
        sealer: Sealer,
        *,
        accounts: Accounts,
        settings: SettingsInForce,
        claim_seconds: float = CLAIM_SECONDS,
    ) -> None:
        self._connection = connection
        self._sealer = sealer
        self._accounts = accounts
        self._settings = settings
        self.claim_seconds = claim_seconds

    # -- putting down

    async def open(self, kind: Kind) -> str:
        """The id of a batch that nobody sees before `start`. Script: batch_open.lua"""
        batch_id = f"batch_{secrets.token_hex(12)}"
        await self._connection.run("batch_open", keys.POOL, batch_id, kind)
        return batch_id

    async def add(self, batch_id: str, lines: Sequence[BatchLine | Refused]) -> None:
        """These lines belong to the batch; each number once.

        Raises:
            NotFound: it was forgotten (1 h after its last line).

        Script: batch_add.lua
        """
        for start in range(0, len(lines), _LINES_AT_ONCE):
            words: list[str | int] = []
            for line in lines[start : start + _LINES_AT_ONCE]:
                words += self._put_down(batch_id, line)
            await self._add(batch_id, words)

    async def add_accounts(self, batch_id: str, emails: Sequence[str], *, first: int = 1) -> None:
        """These accounts of the pool are lines of the batch (a refresh), numbered from `first`."""
        for start in range(0, len(emails), _LINES_AT_ONCE):
            words: list[str | int] = []
            some = emails[start : start + _LINES_AT_ONCE]
            for number, email in enumerate(some, start=first + start):
                account = account_id(email)
                words += [number, "*", _stored(account, "waiting"), account]
            await self._add(batch_id, words)

    async def start(self, batch_id: str) -> None:
        """The batch can be seen, its lines are given out. Script: batch_start.lua"""
        if not await self._connection.run("batch_start", keys.POOL, batch_id):
            raise NotFound("This batch took longer than an hour to put down.")

    async def existing(self, emails: Sequence[str]) -> set[str]:
        """Which of these accounts (ids) are in the pool already."""
        if not emails:
            return set()
        scores = await self._connection.ask(
            "accounts_exist", "ZMSCORE", keys.accounts(), *map(account_id, emails)
        )
        return {email for email, score in zip(emails, scores, strict=True) if score is not None}

    # -- doing

    async def claim(self, *, want: int) -> Claims:
        """Up to `want` lines to be done by the caller, from the batches in turn.

        Script: batch_claim.lua
        """
        settings = self._settings.current
        more_in_ms, *rows = await self._connection.run(
            "batch_claim",
            keys.POOL,
            settings.batch_login_concurrency,
            want,
            int(self.claim_seconds * 1000),
            settings.login_min_interval_ms,
            int(AHEAD_SECONDS * 1000),
        )
        return Claims([self._claim(row) for row in rows], more_in_ms if more_in_ms >= 0 else None)

    async def holds(self, claim: Claim) -> bool:
        """Whether the line is still to be begun: not cancelled, not lapsed.

        Script: batch_holds.lua
        """
        return bool(
            await self._connection.run(
                "batch_holds", keys.POOL, claim.batch, claim.number, claim.fence
            )
        )

    async def succeed(self, claim: Claim, *, token: str = "", expires_at: float = 0.0) -> Outcome:
        """The line is done; that of an import has its account in the pool now, with this token.

        Returns `skipped` when somebody added the account meanwhile, `stale` when the claim had
        lapsed: then nothing was stored. Script: batch_finish.lua
        """
        result = _stored(claim.email, "succeeded")
        if claim.input is None:
            return await self._finish(claim, "succeeded", result, "0", "", "", "", "", "")
        record, line = keys.account(claim.email), claim.input
        return await self._finish(
            claim,
            "succeeded",
            result,
            "1",
            self._sealer.seal(line.password, place=f"{record}#password"),
            self._sealer.seal(line.proxy, place=f"{record}#proxy"),
            self._accounts.egress_of(line.proxy),
            self._sealer.seal(token, place=f"{record}#token"),
            repr(float(expires_at)),
        )

    async def fail(self, claim: Claim, message: str) -> bool:
        """The line failed for good, until it is retried; False for a stale claim.

        Script: batch_finish.lua
        """
        result = _stored(claim.email, "failed", message)
        outcome = await self._finish(claim, "failed", result, "0", "", "", "", "", "")
        return outcome != "stale"

    async def again(
        self,
        claim: Claim,
        *,
        delay_seconds: float = 0.0,
        counted: bool = False,
        pause_seconds: float = 0.0,
        egress_rest: EgressRest | None = None,
    ) -> bool:
        """The line waits again; False for a stale claim.

        Args:
            counted: its login was tried and failed for a reason that may pass.
            pause_seconds: the upstream found logins through its egress too fast: none for so long,
                then farther apart than before, until some went well.
            egress_rest: the firewall refused its egress.

        Script: batch_again.lua
        """
        return bool(
            await self._connection.run(
                "batch_again",
                keys.POOL,
                claim.batch,
                claim.number,
                claim.fence,
                claim.email,
                int(delay_seconds * 1000),
                "1" if counted else "0",
                int(pause_seconds * 1000),
                rest_fact(egress_rest),
            )
        )

    async def pending(self) -> int:
        """How many batches have lines that wait; those of dead processes do again.

        Script: batch_pending.lua
        """
        return int(await self._connection.run("batch_pending", keys.POOL))

    # -- looking and steering

    async def get(self, batch_id: str) -> Batch:
        """
        Raises:
            NotFound: there is none.

        Script: batch_read.lua
        """
        found = await self._read([batch_id])
        if not found:
            raise NotFound("There is no such batch.")
        return found[0]

    async def newest(self, limit: int = 100) -> list[Batch]:
        """The newest batches, the newest first. Script: batch_read.lua"""
        ids = await self._connection.ask("batches", "ZREVRANGE", keys.batches(), 0, limit - 1)
        return await self._read(ids)

    async def results(self, batch_id: str, *, first: int = 1) -> AsyncIterator[LineResult]:
        """One per line of the input from `first` on, in order; those not done are `waiting`.

        Raises:
            NotFound: there is no such batch.
        """
        cancelled = (await self.get(batch_id)).state == "cancelled"
        last = int(await self._connection.ask("batch_last", "HGET", keys.batch(batch_id), "last"))
        for start in range(first, last + 1, _LINES_AT_ONCE):
            some = range(start, min(start + _LINES_AT_ONCE, last + 1))
            texts = await self._connection.ask(
                "batch_results", "HMGET", keys.batch_lines(batch_id), *some
            )
            for number, text in zip(some, texts, strict=True):
                if text is not None:
                    yield _result(number, text, cancelled=cancelled)

    async def cancel(self, batch_id: str) -> bool:
        """No further line is begun; returns False when it had ended before.

        Raises:
            NotFound: there is none.

        Script: batch_cancel.lua
        """
        done = await self._connection.run("batch_cancel", keys.POOL, batch_id)
        if done < 0:
            raise NotFound("There is no such batch.")
        return bool(done)

    async def retry(self, batch_id: str) -> int:
        """Its failed lines wait again, and a cancelled one goes on; returns how many had failed.

        Raises:
            NotFound: there is none.

        Script: batch_retry.lua
        """
        # What fails again while this runs is not taken a second time.
        failed = (await self.get(batch_id)).failed
        retried: int = 0
        while True:
            some = min(_RETRIED_AT_ONCE, failed - retried)
            moved: int = await self._connection.run("batch_retry", keys.POOL, batch_id, some)
            retried += max(0, moved)
            if moved <= 0 or retried >= failed:
                return retried

    async def outcomes(self) -> dict[str, int]:
        """Lines of all batches there ever were, by how they ended."""
        reply = await self._connection.ask("batch_outcomes", "HGETALL", keys.batch_outcomes())
        return {outcome: int(number) for outcome, number in reply.items()}

    def _put_down(self, batch_id: str, line: BatchLine | Refused) -> list[str | int]:
        if isinstance(line, Refused):
            result = _stored(line.email, line.status, line.reason)
            return [line.number, "", result, line.status]
        plain = msgspec.json.encode(line).decode()
        sealed = self._sealer.seal(plain, place=_place(batch_id, line.number))
        result = _stored(account_id(line.email), "waiting")
        return [line.number, self._accounts.egress_of(line.proxy), result, sealed]

    async def _add(self, batch_id: str, words: Sequence[str | int]) -> None:
        if not await self._connection.run("batch_add", keys.POOL, batch_id, *words):
            raise NotFound("This batch took longer than an hour to put down.")

    def _claim(self, row: Sequence[str | int]) -> Claim:
        batch, kind, number, fence, start_in_ms, tries, egress, result, sealed = row
        line, unreadable = None, ""
        if kind == "import":
            try:
                line = self._unseal(str(batch), int(number), str(sealed))
            except SealBroken as error:
                unreadable = f"What was given for it can't be read any more: {error}."
        return Claim(
            batch=str(batch),
            kind="import" if kind == "import" else "refresh",
            number=int(number),
            fence=int(fence),
            start_in_ms=int(start_in_ms),
            tries=int(tries),
            egress=str(egress),
            email=_read_stored(str(result)).email,
            input=line,
            unreadable=unreadable,
        )

    def _unseal(self, batch: str, number: int, sealed: str) -> BatchLine:
        if not sealed:
            raise SealBroken("it is kept for 7 days")
        plain = self._sealer.unseal(sealed, place=_place(batch, number))
        return msgspec.json.decode(plain, type=BatchLine)

    async def _finish(self, claim: Claim, outcome: str, result: str, *stored: str) -> Outcome:
        done: Outcome = await self._connection.run(
            "batch_finish",
            keys.POOL,
            claim.batch,
            claim.number,
            claim.fence,
            outcome,
            result,
            claim.email,
            self._settings.current.account_concurrency,
            *stored,
        )
        return done

    async def _read(self, ids: Sequence[str]) -> list[Batch]:
        if not ids:
            return []
        rows = await self._connection.run("batch_read", keys.POOL, *ids)
        return [self._batch(batch_id, *row) for batch_id, row in zip(ids, rows, strict=True) if row]

    def _batch(
        self, batch_id: str, pairs: Sequence[str], active: Sequence[str], recent: Sequence[str]
    ) -> Batch:
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        cancelled = fields["state"] == "cancelled"
        return msgspec.convert(
            {
                **fields,
                "id": batch_id,
                "concurrency": self._settings.current.batch_login_concurrency,
                "active": [_read_stored(text).email for text in active],
                "recent": [
                    _result(int(number), text, cancelled=cancelled)
                    for number, text in zip(recent[::2], recent[1::2], strict=True)
                ],
                "created_at": _seconds(fields["created_at"]),
                "started_at": _seconds(fields["started_at"]),
                "finished_at": _seconds(fields["finished_at"]),
            },
            Batch,
            strict=False,
        )


class _Stored(msgspec.Struct, frozen=True):
    """A line's result as it lies in Redis; scripts read and write it, too."""

    email: str
    status: Status
    message: str = ""


def _stored(email: str, status: Status, message: str = "") -> str:
    return msgspec.json.encode(_Stored(email, status, message)).decode()


_read_stored = msgspec.json.Decoder(_Stored).decode


def _result(number: int, text: str, *, cancelled: bool) -> LineResult:
    stored = _read_stored(text)
    status = "cancelled" if cancelled and stored.status == "waiting" else stored.status
    return LineResult(number, stored.email, status, stored.message)


def _place(batch_id: str, number: int) -> str:
    return f"{keys.batch_inputs(batch_id)}#{number}"


def _seconds(milliseconds: str) -> float | None:
    return int(milliseconds) / 1000 if milliseconds else None
