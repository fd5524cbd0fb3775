"""One attempt of a turn: one try on one lent account, from the lease to its settlement."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from shared import metrics
from shared.chat.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    TurnEnd,
    TurnFailed,
    Usage,
)
from shared.errors import GatewayError, TokenRejected, UpstreamSilent
from shared.store.leases import Lease, Outcome
from shared.turns import tokens
from shared.turns.reactions import reaction_to
from shared.turns.stop import OutputLimits
from shared.upstream.client import Session
from shared.upstream.stream import UpstreamDecoder
from shared.upstream.wire import completion_body

if TYPE_CHECKING:
    from shared.turns.run import ChatTurn, Emit, Turns

log = logging.getLogger(__name__)

# How long the upstream may take to confirm that an abandoned turn was stopped. The lease goes back
# after it, so the account never carries more streams than its limit; contract.md 7.3 allows 1 s.
STOP_SECONDS = 0.7

# How long a stream that has said its last may stay open before its connection is given up: one
# that ends by itself is used again.
LINGER_SECONDS = 0.2


class Attempt:
    """Speaks to the upstream with a lent account and emits what it answers."""

    def __init__(self, turns: "Turns", turn: "ChatTurn", lease: Lease, emit: "Emit") -> None:
        self._turns = turns
        self._turn = turn
        self._lease = lease
        self._emit = emit
        self._session: Session | None = None
        self._chat_id: str | None = None
        self._generating = False
        self._decoder = UpstreamDecoder()
        self._limits: OutputLimits | None = None
        self._output: list[str] = []

    async def run(self, prompt: str) -> None:
        """Run to the terminal event; a token the upstream refuses is renewed once.

        Raises:
            GatewayError: it failed before the first event; nothing was emitted.
        """
        try:
            with self._turn.stopwatch.waiting():
                self._session = await self._turns.accounts.session(self._lease.account)
            try:
                await self._speak(prompt)
            except TokenRejected:
                if self._begun:
                    raise
                with self._turn.stopwatch.waiting():
                    self._session = await self._turns.accounts.renew(
                        self._lease.account, rejected=self._session
                    )
                self._decoder = UpstreamDecoder()
                await self._speak(prompt)
        except GatewayError as error:
            self._turns.own(self._settle(error))
            raise
        except BaseException:
            self._turns.own(self._settle(None))
            raise
        self._turns.own(self._settle(self._turn.error))

    @property
    def _begun(self) -> bool:
        return self._turn.first_event_at is not None

    async def _speak(self, prompt: str) -> None:
        first_token_seconds = self._turns.settings.first_token_timeout_seconds
        self._turn.stopwatch.start_waiting()
        try:
            async with asyncio.timeout(first_token_seconds) as deadline:
                await self._stream(prompt, deadline)
        except TimeoutError as error:
            what = "fell silent" if self._begun else "gave no first token in time"
            await self._fail(UpstreamSilent(f"The upstream {what}"), error)
        except GatewayError as error:
            await self._fail(error, error)
        finally:
            self._turn.stopwatch.stop_waiting()

    async def _fail(self, error: GatewayError, cause: BaseException) -> None:
        """Before the first event raise it, after it say it in band."""
        if not self._begun:
            raise error from cause
        await self._pass_on([TurnFailed(error)])

    async def _stream(self, prompt: str, deadline: asyncio.Timeout) -> None:
        upstream, variant = self._turns.upstream, self._turn.variant
        assert self._session is not None  # noqa: S101 run() opened it
        self._chat_id = await upstream.open_chat(
            self._session, model=variant.model_id, chat_type=variant.chat_type
        )
        body = completion_body(
            chat_id=self._chat_id,
            model=variant.model_id,
            content=prompt,
            chat_type=variant.chat_type,
            thinking_enabled=bool(variant.thinking),
            thinking_budget=self._turn.request.thinking_budget,
        )
        self._limits = await self._output_limits()
        self._generating = True
        async with upstream.stream_completion(self._session, self._chat_id, body) as chunks:
            await self._drive(chunks, deadline)
            await self._linger(chunks)

    async def _drive(self, chunks: AsyncIterator[bytes], deadline: asyncio.Timeout) -> None:
        """chunk → decoder → limits → emit, until the terminal event."""
        loop = asyncio.get_running_loop()
        idle_seconds = self._turns.settings.stream_idle_timeout_seconds
        async for chunk in chunks:
            events = self._decoder.feed(chunk)
            if events:
                deadline.reschedule(None)  # a slow client is not a silent upstream
                if await self._pass_on(events):
                    return
            if self._begun:
                deadline.reschedule(loop.time() + idle_seconds)
        deadline.reschedule(None)
        await self._pass_on(self._decoder.close())

    async def _pass_on(self, events: list[Event]) -> bool:
        """Emit what is left of `events` after the limits; True when the turn ended with them.

        Raises:
            GatewayError: the turn failed and nothing of it went out before.
        """
        ended_by_us = False
        if self._limits is not None:
            events = self._limits.feed_all(events)
            ended_by_us = self._limits.ended
        if not events:
            return False
        last = events[-1]
        if type(last) is TurnFailed:
            self._generating = False
            if not self._begun:
                raise last.error
            self._turn.error = last.error
        for event in events:
            if type(event) is TextDelta or type(event) is ReasoningDelta:
                self._output.append(event.text)
        ended = type(last) is TurnEnd or type(last) is TurnFailed
        if type(last) is TurnEnd:
            self._generating = ended_by_us
            self._turn.usage = usage = await self._usage(last)
            events[-1] = msgspec.structs.replace(last, usage=usage)
        if not self._begun:
            self._turn.stopwatch.stop_waiting()
            self._turn.first_event_at = time.monotonic()
        await self._emit(events)
        return ended

    async def _output_limits(self) -> OutputLimits | None:
        """The stage that enforces `stop` and `max_tokens`; None when the caller set neither."""
        request = self._turn.request
        if not request.stop_sequences and request.max_output_tokens is None:
            return None
        vocabulary = None
        if request.max_output_tokens is not None:
            vocabulary = await asyncio.to_thread(tokens.load)
        return OutputLimits(
            stop_sequences=request.stop_sequences,
            max_output_tokens=request.max_output_tokens,
            vocabulary=vocabulary,
        )

    async def _usage(self, end: TurnEnd) -> Usage:
        """The upstream's numbers where it gave them, otherwise counted with Qwen's vocabulary."""
        told = end.usage or self._decoder.usage
        if told is not None and told.input_tokens and told.output_tokens:
            return told
        counted = await tokens.count_usage(self._prompt, "".join(self._output))
        return counted

    async def _linger(self, chunks: AsyncIterator[bytes]) -> None:
        """Read on to the end of the body, briefly: a connection that was read to its end is reused."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                async for _ in chunks:
                    pass
        except (TimeoutError, GatewayError):
            pass  # it is closed instead

    async def _settle(self, error: GatewayError | None) -> None:
        """Tell the upstream to stop what nobody reads, then give the lease back."""
        if self._generating and self._chat_id and self._session:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._turns.upstream.stop(
                        self._session, self._chat_id, self._decoder.response_id
                    )
            except (TimeoutError, GatewayError) as failure:
                log.info("stop was not confirmed", extra={"error": type(failure).__name__})
        try:
            await self._turns.store.leases.release(self._lease, _outcome(error))
        except GatewayError as failure:
            # The lease lapses by itself after LEASE_TTL_SECONDS.
            log.warning("lease was not given back", extra={"error": type(failure).__name__})
