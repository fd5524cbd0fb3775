"""One attempt of a turn: one try on one lent account, from the lease to its settlement."""

import asyncio
import time
from typing import TYPE_CHECKING

from shared import metrics
from shared.chat.events import Event, TurnEnd, TurnFailed, TurnStart, Usage
from shared.errors import GatewayError, TokenRejected, UnusableAnswer, UpstreamSilent
from shared.store.leases import Lease
from shared.turns.correction import write_correction
from shared.turns.exchange import Exchange
from shared.turns.reactions import outcome_of
from shared.turns.stages import Stages
from shared.upstream.client import Session

if TYPE_CHECKING:
    from shared.turns.run import ChatTurn, Emit, Turns


class Attempt:
    """Speaks to the upstream with a lent account and emits what it answers."""

    def __init__(
        self, turns: "Turns", turn: "ChatTurn", lease: Lease, prompt: str, emit: "Emit"
    ) -> None:
        self._turns = turns
        self._turn = turn
        self._lease = lease
        self._prompt = prompt
        self._emit = emit
        self._exchange: Exchange | None = None

    async def run(self) -> None:
        """Run to the terminal event; a token the upstream refuses is renewed once.

        Raises:
            GatewayError: it failed before the first event; nothing was emitted.
        """
        error: GatewayError | None = None
        try:
            await self._speak_with_live_token()
            error = self._turn.error
        except GatewayError as raised:
            error = raised
            raise
        finally:
            self._turn.own(self._settle(error))

    @property
    def _begun(self) -> bool:
        return self._turn.first_event_at is not None

    async def _speak_with_live_token(self) -> None:
        stopwatch, accounts = self._turn.stopwatch, self._turns.accounts
        with stopwatch.waiting():
            session = await accounts.session(self._lease)
        try:
            await self._speak(session)
        except TokenRejected:
            with stopwatch.waiting():
                session = await accounts.renew(self._lease)
            await self._speak(session)

    async def _speak(self, session: Session) -> None:
        """One exchange; a second one where the answer has to be written again."""
        turn = self._turn
        stages = Stages(turn.request, model=turn.variant.model_id, call_id=turn.call_id)
        exchange = await self._exchanged(session, stages, self._prompt)
        fault = stages.fault
        if fault is None:
            return
        await exchange.stop()
        metrics.CORRECTIONS.of(fault.kind).inc()
        spent = await exchange.usage()
        correction = write_correction(turn.request, fault, exchange.text, calls_taken=stages.calls)
        stages.begin_repeat()
        exchange = await self._exchanged(session, stages, self._prompt + correction, spent)
        if stages.fault is not None:
            error = UnusableAnswer(f"The model's answer is of no use: {stages.fault.kind}, twice")
            await self._fail(error, error)

    async def _exchanged(
        self, session: Session, stages: Stages, prompt: str, spent: Usage | None = None
    ) -> Exchange:
        """One prompt and its answer, told to the caller; a failure after the first event, too."""
        settings, turn = self._turns.settings, self._turn
        exchange = self._exchange = Exchange(
            self._turns.upstream,
            session,
            asked=turn.asked,
            prompt=prompt,
            stages=stages,
            stopwatch=turn.stopwatch,
            idle_seconds=settings.stream_idle_timeout_seconds,
            deliver=self._deliver,
            spent=spent,
        )
        turn.stopwatch.start_waiting()
        try:
            async with asyncio.timeout(settings.first_token_timeout_seconds) as deadline:
                await exchange.run(deadline)
        except TimeoutError as error:
            what = "fell silent" if self._begun else "gave no first token in time"
            await self._fail(UpstreamSilent(f"The upstream {what}"), error)
        except GatewayError as error:
            await self._fail(error, error)
        finally:
            turn.stopwatch.stop_waiting()
        return exchange

    async def _fail(self, error: GatewayError, cause: BaseException) -> None:
        """Before the first event raise it, after it say it in band."""
        if not self._begun or self._exchange is None:
            raise error from (cause if cause is not error else None)
        await self._exchange.fail(error)

    async def _deliver(self, events: list[Event]) -> None:
        """Emit them, `TurnStart` before the first.

        Raises:
            GatewayError: the turn failed and there is nothing of it to emit before.
        """
        last = events[-1]
        if type(last) is TurnFailed:
            # Text that came in one piece with the failure goes out before it, as it would have had
            # the two come apart: how the bytes were cut decides nothing (contract.md 7.9).
            if not self._begun and len(events) == 1:
                raise last.error
            self._turn.error = last.error
            if self._exchange is not None:
                self._turn.usage = await self._exchange.usage()
        elif type(last) is TurnEnd:
            self._turn.usage = last.usage
        if not self._begun:
            self._begin()
            usage = self._exchange.decoder.usage if self._exchange is not None else None
            events.insert(0, TurnStart(usage))
        await self._emit(events)

    def _begin(self) -> None:
        self._turn.first_event_at = time.monotonic()
        if self._lease.probing:
            self._turns.own(self._turns.store.leases.prove(self._lease))

    async def _settle(self, error: GatewayError | None) -> None:
        """Tell the upstream to stop what nobody reads, then give the lease back."""
        counting = asyncio.create_task(self._count_broken_off(error))
        try:
            if self._exchange is not None:
                await self._exchange.stop()
            outcome = outcome_of(error, served=self._begun)
            await self._turns.store.leases.release(self._lease, outcome)
        finally:
            await counting

    async def _count_broken_off(self, error: GatewayError | None) -> None:
        """What the caller used who left: the prompt, and the answer as far as it came."""
        turn, exchange = self._turn, self._exchange
        if turn.usage is None and error is None and exchange is not None and exchange.sent:
            turn.usage = await exchange.usage()
