"""One exchange of an attempt: one prompt to the upstream, and its answer on the way to the caller.

    chunks → decoder → stages → deliver(events)

An attempt is one exchange, or two where the first answer had to be written again (`fault`).
"""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from shared.chat.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    TurnEnd,
    TurnFailed,
    Usage,
)
from shared.chat.models import Variant
from shared.errors import ContextTooLong, GatewayError, UpstreamBlocked
from shared.turns.fault import Fault
from shared.turns.stages import Stages
from shared.turns.stopwatch import Stopwatch
from shared.turns.usage import ready_vocabulary, usage_of
from shared.upstream.client import Session, Upstream
from shared.upstream.stream import UpstreamDecoder
from shared.upstream.wire import ChatType, completion_body

log = logging.getLogger(__name__)

# How long the upstream may take to confirm that an abandoned answer was stopped. The lease goes
# back after it: an account never carries more streams than its limit. contract.md 7.3 allows 1 s.
STOP_SECONDS = 0.7

# How long an answer that has said its last may stay open: for a usage that follows, and because a
# connection that was read to its end is used again.
TAIL_SECONDS = 0.2

# Prompts beyond some 60,000 Chinese characters are answered by the firewall, not by the model
# (sheet 5, reported). Such a refusal says nothing about the address, which one caller's long prompt
# must not rest for all the others; told as what it is, agents make their prompt shorter.
LONG_PROMPT_CHARACTERS = 60_000


class Asked(msgspec.Struct, frozen=True):
    """What is asked of the upstream beside the prompt."""

    variant: Variant
    chat_type: ChatType
    thinking: bool | None
    thinking_budget: int | None
    max_output_tokens: int | None


class Exchange:
    """`run` once. Afterwards the answer has ended, or `fault` says why it must be written again.

    Args:
        deliver: takes the events the caller sees, never an empty list.
        spent: what an earlier exchange of this attempt used.
    """

    def __init__(
        self,
        upstream: Upstream,
        session: Session,
        *,
        asked: Asked,
        prompt: str,
        stages: Stages,
        stopwatch: Stopwatch,
        idle_seconds: float,
        deliver: Callable[[list[Event]], Awaitable[None]],
        spent: Usage | None = None,
    ) -> None:
        self.stages = stages
        self.decoder = UpstreamDecoder()
        self.sent = False  # whether the prompt was on its way to the upstream
        self._upstream = upstream
        self._session = session
        self._asked = asked
        self._prompt = prompt
        self._stopwatch = stopwatch
        self._idle_seconds = idle_seconds
        self._deliver = deliver
        self._spent = spent
        self._chat_id: str | None = None
        self._generating = False
        self._speaking = False
        self._reasoning: list[str] = []
        self._text: list[str] = []

    @property
    def fault(self) -> Fault | None:
        return self.stages.fault

    @property
    def text(self) -> str:
        """The answer's text as the model wrote it, as far as it was read."""
        return "".join(self._text)

    async def run(self, deadline: asyncio.Timeout) -> None:
        """Ask, and deliver the answer up to its terminal event.

        `deadline` is the first token's until the upstream said something, then the next chunk's.

        Raises:
            GatewayError: the upstream refused, or broke off without saying so itself.
        """
        model = self._asked.variant.model_id
        self._chat_id = chat_id = await self._upstream.open_chat(
            self._session, model=model, chat_type=self._asked.chat_type
        )
        body = completion_body(
            chat_id=chat_id,
            model=model,
            content=self._prompt,
            chat_type=self._asked.chat_type,
            thinking_enabled=self._asked.thinking,
            thinking_budget=self._asked.thinking_budget,
            now=int(time.time()),
            fid=str(uuid.uuid4()),
        )
        self.sent = self._generating = True
        try:
            async with self._upstream.stream_completion(self._session, chat_id, body) as chunks:
                await self._drive(chunks, deadline)
        except GatewayError as error:
            self._generating = False
            if isinstance(error, UpstreamBlocked) and len(self._prompt) > LONG_PROMPT_CHARACTERS:
                told = "The prompt is too long: the upstream's firewall refuses it"
                raise ContextTooLong(told) from error
            raise

    async def fail(self, error: GatewayError) -> None:
        """End the caller's stream with this error; what the stages hold of the text goes first."""
        failed: list[Event] = [TurnFailed(error)]
        await self._deliver(failed if self.stages.fault else self.stages.feed_all(failed))

    async def stop(self) -> None:
        """Tell the upstream to stop what nobody reads any more; quick, and never an error."""
        if self._chat_id is None or not self._generating:
            return
        self._generating = False
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._upstream.stop(self._session, self._chat_id, self.decoder.response_id)
        except (TimeoutError, GatewayError) as failure:
            log.info("stop was not confirmed", extra={"error": type(failure).__name__})

    async def usage(self) -> Usage:
        """What this turn has used until now, earlier exchanges included."""
        told = self.decoder.usage
        if told is not None and self.stages.ended:
            # Ended by us: what the upstream wrote beyond a limit was never shown.
            told = msgspec.structs.replace(told, output_tokens=0)
        used = await usage_of(
            told,
            model=self._asked.variant.model_id,
            prompt=self._prompt,
            output="".join(self._reasoning) + self.text,
        )
        most = self._asked.max_output_tokens
        if self.stages.ended and most is not None and used.output_tokens > most:
            used = msgspec.structs.replace(used, output_tokens=most)
        return used if self._spent is None else self._spent + used

    async def _drive(self, chunks: AsyncIterator[bytes], deadline: asyncio.Timeout) -> None:
        """chunk → decoder → stages → deliver, until there is nothing more to read."""
        loop = asyncio.get_running_loop()
        async for chunk in chunks:
            self._stopwatch.stop_waiting()
            events = self.decoder.feed(chunk)
            if self.decoder.done:
                self._generating = False
            if events:
                self._speaking = True
                deadline.reschedule(None)  # a slow client is not a silent upstream
                if await self._pass_on(events):
                    if self.decoder.done:
                        await self._read_tail(chunks)
                    return
            if self.decoder.done:
                break
            if self._speaking:
                deadline.reschedule(loop.time() + self._idle_seconds)
            self._stopwatch.start_waiting()
        self._stopwatch.stop_waiting()
        deadline.reschedule(None)
        self._generating = False
        tail = await self._read_tail(chunks) if self.decoder.done else []
        await self._pass_on(tail + self.decoder.close())

    async def _read_tail(self, chunks: AsyncIterator[bytes]) -> list[Event]:
        """What still comes after the answer is over, for a moment."""
        events: list[Event] = []
        try:
            async with asyncio.timeout(TAIL_SECONDS):
                async for chunk in chunks:
                    events += self.decoder.feed(chunk)
        except (TimeoutError, GatewayError):
            pass  # the connection is closed instead of used again
        return events

    async def _pass_on(self, events: list[Event]) -> bool:
        """Deliver what the stages leave of `events`; True when there is nothing more to read.

        Raises:
            GatewayError: the turn failed, and nothing of it went out before.
        """
        for event in events:
            if type(event) is TextDelta:
                self._text.append(event.text)
            elif type(event) is ReasoningDelta:
                self._reasoning.append(event.text)
        if self.stages.needs_vocabulary(events):
            await ready_vocabulary(self._asked.variant.model_id)
        shown = self.stages.feed_all(events)
        if not shown:
            return self.fault is not None
        last = shown[-1]
        if type(last) is TurnEnd:
            shown[-1] = msgspec.structs.replace(last, usage=await self.usage())
        elif type(last) is TurnFailed:
            self._upstream.conceal(last.error, self._session)
        await self._deliver(shown)
        return type(last) is TurnEnd or type(last) is TurnFailed or self.fault is not None
