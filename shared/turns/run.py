"""Runs chat turns: lends an account, tries it, fails over before the first event, settles.

    lend ── session ── open chat ── stream ── decoder ── stages ── emit(events)
      └──────────── an error before the first event: settle, try another ─────┘

Rules
- Until the first event went out, an error is an exception and another account may be tried; after
  it, the error is an event (`TurnFailed`), the last one, and nothing is ever restarted.
- However a turn ends (also cancelled), its settlement runs to its end in a task owned by `Turns`:
  the upstream is told to stop what nobody reads, the lease goes back, the account rests if it must.
- Waiting for an account counts against `ACCOUNT_WAIT_SECONDS`, never against the first-token
  deadline, which is of one attempt at the upstream.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from shared import metrics
from shared.accounts import Accounts
from shared.chat.events import Event, Usage
from shared.chat.models import Variant
from shared.chat.request import ChatRequest
from shared.errors import GatewayError, NoAccount, StoreUnavailable, UpstreamError
from shared.settings import Settings
from shared.store.store import Store
from shared.turns.attempt import Attempt
from shared.turns.exchange import Asked
from shared.turns.prompt import write_prompt
from shared.turns.reactions import reaction_to
from shared.turns.stopwatch import Stopwatch
from shared.upstream.client import Upstream
from shared.upstream.wire import ChatType

log = logging.getLogger(__name__)

Emit = Callable[[list[Event]], Awaitable[None]]

# Bounds the failovers that no attempt is counted for (see `Reaction.counted`).
FREE_FAILOVERS = 10


class Turns:
    """Opens turns and owns what they leave behind. One per process."""

    def __init__(self, *, store: Store, accounts: Accounts, upstream: Upstream) -> None:
        self.store = store
        self.accounts = accounts
        self.upstream = upstream
        self._settlements: set[asyncio.Task[None]] = set()

    @property
    def settings(self) -> Settings:
        """Those in force now."""
        return self.store.settings.current

    def open(self, request: ChatRequest, variant: Variant) -> "ChatTurn":
        return ChatTurn(self, request, variant)

    def own(self, settlement: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a settlement to its end, whatever becomes of the turn's own task."""
        task = asyncio.create_task(settlement)
        self._settlements.add(task)
        task.add_done_callback(self._settled)
        return task

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._settlements.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A lease that could not be given back lapses after LEASE_TTL_SECONDS.
            log.warning("settlement failed", extra={"error": type(error).__name__})

    async def close(self) -> None:
        """Wait for every settlement: afterwards the leases of this process are back."""
        while self._settlements:
            await asyncio.wait(self._settlements)


class Tried(msgspec.Struct):
    """One attempt: on which account, and why it failed before its first event."""

    account: str
    error: GatewayError | None = None


class ChatTurn:
    """One turn. `run` once; the public fields tell its story while it runs and afterwards.

    Attributes:
        tried: its attempts, failed ones included.
        usage: what the turn used; set with the terminal event, and where there was none (the caller
            left) when it has `settled`. None when nothing had been asked of the upstream, or it
            failed before its first event.
        error: why it failed, before or after its first event; None when it ended well.
        first_event_at: `time.monotonic()` of the first event, None until then.
    """

    def __init__(self, turns: Turns, request: ChatRequest, variant: Variant) -> None:
        self.request = request
        self.variant = variant
        self.stopwatch = Stopwatch()
        self.tried: list[Tried] = []
        self.usage: Usage | None = None
        self.error: GatewayError | None = None
        self.first_event_at: float | None = None
        self.asked = Asked(
            variant=variant,
            chat_type=_chat_type(request, variant),
            thinking=_thinking(request, variant),
            thinking_budget=request.thinking_budget,
            max_output_tokens=request.max_output_tokens,
        )
        self._call_ids = secrets.token_hex(8)
        self._turns = turns
        self._settlements: list[asyncio.Task[None]] = []

    @property
    def attempts(self) -> int:
        """Tries at the upstream, failed ones included."""
        return len(self.tried)

    @property
    def account(self) -> str | None:
        """The e-mail of the account of the newest attempt."""
        return self.tried[-1].account if self.tried else None

    async def run(self, emit: Emit) -> None:
        """Emit the turn's events in batches; the terminal event is the last of the last batch.

        Raises:
            GatewayError: it failed before the first event; nothing was emitted.
        """
        try:
            await self._run(emit)
        except GatewayError as error:
            self.error = error
            raise

    def own(self, settlement: Coroutine[Any, Any, None]) -> None:
        """Something that this turn leaves to do; it ends whatever becomes of the turn's task."""
        self._settlements.append(self._turns.own(settlement))

    async def settled(self) -> None:
        """Returns when nothing is left to do for what was tried."""
        if self._settlements:
            await asyncio.wait(self._settlements)

    def call_id(self, index: int) -> str:
        """The id of the turn's tool call number `index`: nobody can guess it, and it stays."""
        return f"call_{self._call_ids}{index:04x}"

    async def _run(self, emit: Emit) -> None:
        prompt = write_prompt(self.request)
        attempts_left = 1 + self._turns.settings.chat_retry_count
        free_left = FREE_FAILOVERS
        while True:
            try:
                await self._attempt(prompt, emit)
            except UpstreamError as error:
                reaction = reaction_to(error)
                attempts_left -= reaction.counted
                free_left -= not reaction.counted
                if not reaction.again or attempts_left <= 0:
                    raise
                if free_left <= 0:
                    raise NoAccount(f"{FREE_FAILOVERS} accounts in a row were refused") from error
                if reaction.counted:
                    if not await self._may_try_again():
                        raise
                    await self._back_off()
                metrics.FAILOVERS.of(reaction.reason).inc()
            else:
                return

    async def _attempt(self, prompt: str, emit: Emit) -> None:
        with self.stopwatch.waiting():
            lease = await self._turns.store.leases.lend(
                self.variant.capability,
                wait_seconds=self._turns.settings.account_wait_seconds,
                tried=frozenset(tried.account for tried in self.tried),
            )
        tried = Tried(lease.account)
        self.tried.append(tried)
        try:
            await Attempt(self._turns, self, lease, prompt, emit).run()
        except GatewayError as error:
            tried.error = error
            raise

    async def _may_try_again(self) -> bool:
        """The fleet's retry budget: an outage must not be multiplied by its callers."""
        try:
            return await self._turns.store.limits.may_try_again()
        except StoreUnavailable:
            return False

    async def _back_off(self) -> None:
        """Jittered and doubling, so that a fleet does not come back in step."""
        base_seconds = self._turns.settings.chat_retry_backoff_ms / 1000
        with self.stopwatch.waiting():
            await asyncio.sleep(base_seconds * 2 ** (self.attempts - 1) * random.uniform(0.5, 1))


def _thinking(request: ChatRequest, variant: Variant) -> bool | None:
    """On when variant or request say so, off when the request does, else the model's choice."""
    return True if variant.thinking else request.thinking


def _chat_type(request: ChatRequest, variant: Variant) -> ChatType:
    if variant.chat_type == "deep_research":
        return "deep_research"
    return "search" if variant.search or request.search else "t2t"
