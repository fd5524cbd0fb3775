"""One attempt of a turn: one try on one lent account, from the lease to its settlement."""

import asyncio
import functools
import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from shared.chat.events import Event, ReasoningDelta, TextDelta, TurnEnd, TurnFailed, TurnStart
from shared.errors import (
    ContextTooLong,
    GatewayError,
    TokenRejected,
    UpstreamBlocked,
    UpstreamSilent,
)
from shared.store.leases import Lease
from shared.turns import tokens
from shared.turns.reactions import outcome_of
from shared.turns.stop import OutputLimits
from shared.turns.usage import ready_vocabulary, usage_of
from shared.upstream.client import Session
from shared.upstream.stream import UpstreamDecoder
from shared.upstream.wire import completion_body

if TYPE_CHECKING:
    from shared.turns.run import ChatTurn, Emit, Turns

log = logging.getLogger(__name__)

# How long the upstream may take to confirm that an abandoned turn was stopped. The lease goes back
# after it, so the account never carries more streams than its limit; contract.md 7.3 allows 1 s.
STOP_SECONDS = 0.7

# How long an answer that has said its last may stay open: for a usage that follows, and because a
# connection that was read to its end is used again.
TAIL_SECONDS = 0.2

# Prompts beyond some 60,000 Chinese characters are answered by the firewall, not by the model
# (sheet 5, reported). Such a refusal says nothing about the address, which one caller's long prompt
# must not rest for all the others; told as what it is, agents make their prompt shorter.
LONG_PROMPT_CHARACTERS = 60_000


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
        self._session: Session | None = None
        self._chat_id: str | None = None
        self._generating = False
        self._decoder = UpstreamDecoder()
        self._limits: OutputLimits | None = None
        self._output: list[str] = []

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
            self._turns.own(self._settle(error))

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
        self._session = session
        self._decoder = UpstreamDecoder()
        self._turn.stopwatch.start_waiting()
        first_token_seconds = self._turns.settings.first_token_timeout_seconds
        try:
            async with asyncio.timeout(first_token_seconds) as deadline:
                await self._stream(session, deadline)
        except TimeoutError as error:
            what = "fell silent" if self._begun else "gave no first token in time"
            await self._fail(UpstreamSilent(f"The upstream {what}"), error)
        except GatewayError as error:
            await self._fail(error, error)
        finally:
            self._turn.stopwatch.stop_waiting()

    async def _fail(self, error: GatewayError, cause: BaseException) -> None:
        """Before the first event raise it, after it say it in band."""
        if isinstance(error, UpstreamBlocked) and self._is_about_the_prompt():
            error = ContextTooLong("The prompt is too long: the upstream's firewall refuses it")
        if not self._begun:
            raise error from (cause if cause is not error else None)
        await self._pass_on([TurnFailed(error)])

    def _is_about_the_prompt(self) -> bool:
        """Whether a firewall's refusal is the prompt's fault: it let the chat be opened before."""
        return self._chat_id is not None and len(self._prompt) > LONG_PROMPT_CHARACTERS

    async def _stream(self, session: Session, deadline: asyncio.Timeout) -> None:
        upstream, turn = self._turns.upstream, self._turn
        model = turn.variant.model_id
        self._chat_id = chat_id = await upstream.open_chat(
            session, model=model, chat_type=turn.chat_type
        )
        body = completion_body(
            chat_id=chat_id,
            model=model,
            content=self._prompt,
            chat_type=turn.chat_type,
            thinking_enabled=turn.thinking,
            thinking_budget=turn.request.thinking_budget,
            now=int(time.time()),
            fid=str(uuid.uuid4()),
        )
        self._limits = self._output_limits()
        self._generating = True
        async with upstream.stream_completion(session, chat_id, body) as chunks:
            await self._drive(chunks, deadline)

    def _output_limits(self) -> OutputLimits | None:
        """The stage that enforces `stop` and `max_tokens`; None when the caller set neither."""
        request = self._turn.request
        if not request.stop_sequences and request.max_output_tokens is None:
            return None
        return OutputLimits(
            stop_sequences=request.stop_sequences,
            max_output_tokens=request.max_output_tokens,
            load=functools.partial(tokens.load, self._turn.variant.model_id),
        )

    async def _drive(self, chunks: AsyncIterator[bytes], deadline: asyncio.Timeout) -> None:
        """chunk → decoder → limits → emit, until the terminal event."""
        loop = asyncio.get_running_loop()
        idle_seconds = self._turns.settings.stream_idle_timeout_seconds
        stopwatch = self._turn.stopwatch
        async for chunk in chunks:
            stopwatch.stop_waiting()
            events = self._decoder.feed(chunk)
            if events:
                deadline.reschedule(None)  # a slow client is not a silent upstream
                if await self._pass_on(events):
                    if not self._generating and self._turn.error is None:
                        await self._read_tail(chunks)
                    return
            if self._decoder.done:
                break
            if self._begun:
                deadline.reschedule(loop.time() + idle_seconds)
            stopwatch.start_waiting()
        stopwatch.stop_waiting()
        deadline.reschedule(None)
        tail = await self._read_tail(chunks) if self._decoder.done else []
        await self._pass_on(tail + self._decoder.close())

    async def _read_tail(self, chunks: AsyncIterator[bytes]) -> list[Event]:
        """What still comes after the answer is over, for a moment."""
        events: list[Event] = []
        try:
            async with asyncio.timeout(TAIL_SECONDS):
                async for chunk in chunks:
                    events += self._decoder.feed(chunk)
        except (TimeoutError, GatewayError):
            pass  # the connection is closed instead of used again
        return events

    async def _pass_on(self, events: list[Event]) -> bool:
        """Emit what the limits leave of `events`; True when the turn ended with them.

        Raises:
            GatewayError: the turn failed and there is nothing of it to emit before.
        """
        if self._limits is not None:
            if self._limits.needs_vocabulary(events):
                await ready_vocabulary(self._turn.variant.model_id)
            events = self._limits.feed_all(events)
        if not events:
            return False
        last = events[-1]
        for event in events:
            if type(event) is TextDelta or type(event) is ReasoningDelta:
                self._output.append(event.text)
        ended = True
        if type(last) is TurnEnd:
            self._generating = self._limits is not None and self._limits.ended
            events[-1] = await self._with_usage(last)
        elif type(last) is TurnFailed:
            self._generating = False
            if self._session is not None:
                self._turns.upstream.conceal(last.error, self._session)
            # Text that came in one piece with the failure goes out before it, as it would have had
            # the two come apart: how the bytes were cut decides nothing (contract.md 7.9).
            if not self._begun and len(events) == 1:
                raise last.error
            self._turn.error = last.error
        else:
            ended = False
        if not self._begun:
            self._begin()
            events.insert(0, TurnStart(self._decoder.usage))
        await self._emit(events)
        return ended

    def _begin(self) -> None:
        self._turn.first_event_at = time.monotonic()
        if self._lease.probing:
            self._turns.own(self._turns.store.leases.prove(self._lease))

    async def _with_usage(self, end: TurnEnd) -> TurnEnd:
        told = end.usage or self._decoder.usage
        if told is not None and self._generating:
            # Ended by us: what the upstream wrote beyond the limit was never shown.
            told = msgspec.structs.replace(told, output_tokens=0)
        usage = await usage_of(
            told,
            model=self._turn.variant.model_id,
            prompt=self._prompt,
            output="".join(self._output),
        )
        self._turn.usage = usage
        return msgspec.structs.replace(end, usage=usage)

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
        outcome = outcome_of(error, served=self._begun)
        await self._turns.store.leases.release(self._lease, outcome)
