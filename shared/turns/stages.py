"""What lies between the decoder and the caller, in order. Sans-IO.

    decoder → ToolReader → JsonOutput → OutputLimits → what the caller sees

A stage is there only when the request needs it: a plain turn has none.
"""

import functools
from collections.abc import Callable
from typing import Protocol

from shared.chat.events import Event
from shared.chat.request import ChatRequest
from shared.turns import tokens
from shared.turns.fault import Fault
from shared.turns.json_output import JsonOutput
from shared.turns.stop import OutputLimits
from shared.turns.tool_reader import ToolReader


class Stage(Protocol):
    def feed_all(self, events: list[Event]) -> list[Event]: ...


class Stages:
    """The stages of a turn's answer, and of its repeat where the answer was at fault.

    Args:
        call_id: index of a call of this turn → its id.
    """

    def __init__(self, request: ChatRequest, *, model: str, call_id: Callable[[int], str]) -> None:
        self._request = request
        self._call_id = call_id
        self._reader: ToolReader | None = None
        self._format: JsonOutput | None = None
        if request.tools and request.tool_choice.mode != "none":
            self._reader = self._tool_reader()
        if request.output_format is not None:
            self._format = JsonOutput(request.output_format)
        self._limits: OutputLimits | None = None
        if request.stop_sequences or request.max_output_tokens is not None:
            self._limits = OutputLimits(
                stop_sequences=request.stop_sequences,
                max_output_tokens=request.max_output_tokens,
                load=functools.partial(tokens.load, model),
            )
        self._line_up()

    @property
    def ended(self) -> bool:
        """Whether a stage ended the turn before the upstream did."""
        stages = (self._reader, self._limits)
        return any(stage.ended for stage in stages if stage is not None)

    @property
    def fault(self) -> Fault | None:
        """Set when the answer is to be written again; nothing came out of the stages since."""
        stages = (self._reader, self._format)
        return next((stage.fault for stage in stages if stage is not None and stage.fault), None)

    @property
    def calls(self) -> int:
        """Calls that went out until now."""
        return self._reader.calls if self._reader is not None else 0

    def begin_repeat(self) -> None:
        """The model writes its answer again: what the caller has seen of it stays and isn't shown
        again, calls are counted on, and so is the length."""
        if self._reader is not None:
            silent = self._reader.said and (self._format is None or self._format.called)
            self._reader = self._tool_reader(
                first_index=self._reader.calls, repeat=True, silent=silent
            )
        if self._request.output_format is not None:
            self._format = JsonOutput(self._request.output_format, repeat=True)
        self._line_up()

    def needs_vocabulary(self, events: list[Event]) -> bool:
        return self._limits is not None and self._limits.needs_vocabulary(events)

    def feed_all(self, events: list[Event]) -> list[Event]:
        for stage in self._stages:
            events = stage.feed_all(events)
        return events

    def _line_up(self) -> None:
        stages: tuple[Stage | None, ...] = (self._reader, self._format, self._limits)
        self._stages = [stage for stage in stages if stage is not None]

    def _tool_reader(
        self, *, first_index: int = 0, repeat: bool = False, silent: bool = False
    ) -> ToolReader:
        return ToolReader(
            self._request.tools,
            choice=self._request.tool_choice,
            parallel=self._request.parallel_tool_calls,
            call_id=self._call_id,
            first_index=first_index,
            repeat=repeat,
            silent=silent,
        )
