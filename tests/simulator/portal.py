"""The portal's OpenAI-compatible routes of the CLI lane (sections 11, 15.6)."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from tests.simulator import frames
from tests.simulator.answers import THOUGHTS, WORDS
from tests.simulator.connection import Exchange, Response, json_response
from tests.simulator.failures import html_page, literal, refuse
from tests.simulator.frames import Payload, spell
from tests.simulator.player import FOR_EVER, End, Player
from tests.simulator.script import Action, ScriptError, find_action, without_directives
from tests.simulator.stats import StreamRecord

if TYPE_CHECKING:
    from tests.simulator.state import State

MODELS = ("coder-model", "qwen3-coder-plus", "qwen3-coder-flash", "qwen3.6-plus", "vision-model")
REFUSED_FIELDS = (
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "n",
    "seed",
    "service_tier",
    "user",
)
ERRORS: dict[str, tuple[int, str, str]] = {
    "Unauthorized": (401, "invalid_api_key", "invalid access token or token expired"),
    "insufficient_quota": (429, "insufficient_quota", "You exceeded your current quota."),
    "rate_limit": (429, "rate_limit_exceeded", "Requests rate limit exceeded, try again later."),
    "model": (400, "invalid_parameter_error", "model is not supported."),
    "parameter": (400, "invalid_parameter_error", "The parameter is invalid."),
    "data_inspection_failed": (400, "data_inspection_failed", "Input data may be inappropriate."),
    "internal_error": (500, "internal_error", "The server failed."),
    "server_busy": (503, "server_busy", "The server is busy."),
}


def portal_models(state: State, exchange: Exchange) -> Response:
    """`GET /v1/models` (11)."""
    if not _owner(state, exchange):
        return failure(Action(fail="Unauthorized"))
    rows = [{"id": name, "object": "model", "owned_by": "qwen-code"} for name in MODELS]
    return json_response({"object": "list", "data": rows})


def portal_completions(state: State, exchange: Exchange) -> Response | None:
    """`POST /v1/chat/completions`: OpenAI format in and out, streaming or not (11)."""
    exchange.email = _owner(state, exchange)
    if not exchange.email or state.config.portal_closed:
        return failure(Action(fail="Unauthorized"))
    body = exchange.request.json()
    wrong = _wrong(body)
    if wrong is not None:
        return wrong
    try:
        action = exchange.action or find_action(_text_of(body)) or Action()
        if action.script is not None:
            action = state.playbook.step(action.script)
    except ScriptError as error:
        return failure(Action(fail="parameter", details=f"simulator script: {error}"))
    reply = PortalReply(state, exchange, body, action)
    exchange.on_gone = reply.left
    exchange.spawn(reply.run())
    return None


def _owner(state: State, exchange: Exchange) -> str:
    """Who asks: the holder of a CLI token, or of a configured API key (15.6)."""
    token = exchange.request.bearer
    return state.devices.owner(token) or ("api-key" if token in state.config.portal_keys else "")


def _wrong(body: dict[str, Any]) -> Response | None:
    """What the portal refuses with 400 (11, 15.6)."""
    if body.get("model") not in MODELS:
        return failure(
            Action(fail="model", details=f"model `{body.get('model')}` is not supported.")
        )
    for name, value in body.items():
        if name in REFUSED_FIELDS or value is None:
            return failure(
                Action(fail="parameter", details=f"parameter `{name}` is not supported.")
            )
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return failure(Action(fail="parameter", details="messages must not be empty"))
    roles = [one.get("role") for one in messages if isinstance(one, dict)]
    if "system" in roles[1:]:
        text = "The first message must be the only system message."
        return failure(Action(fail="parameter", details=text))
    return None


def _text_of(body: dict[str, Any]) -> str:
    """All text of the conversation, so that `when=` sees tool results."""
    texts: list[str] = []
    for message in body["messages"]:
        content = message.get("content")
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts += [str(part.get("text", "")) for part in content if isinstance(part, dict)]
    return "\n".join(texts)


def failure(action: Action) -> Response:
    """`{"error": {"message", "type", "code"}, "request_id"}`, or a page of the gateways in between (11)."""
    name = action.fail or "internal_error"
    if name.startswith("html_"):
        return html_page(int(name[5:]))
    if name == "waf_page":
        return refuse(name)
    status, code, message = ERRORS.get(name, (400, name, name))
    error = {"message": action.details or message, "type": _type(status), "code": code}
    answer = {"error": error, "request_id": str(uuid.uuid4())}
    return json_response(answer, action.status or status)


def _type(status: int) -> str:
    names = {400: "invalid_request_error", 401: "invalid_request_error", 429: "rate_limit_error"}
    return names.get(status, "server_error")


class PortalReply:
    """One answer of the portal, streaming or whole."""

    def __init__(
        self, state: State, exchange: Exchange, body: dict[str, Any], action: Action
    ) -> None:
        self.state, self.stats = state, state.stats
        self.exchange, self.body, self.action = exchange, body, action
        self.id = f"chatcmpl-{uuid.uuid4()}"
        self.created = int(time.time())
        self.record = StreamRecord(f"portal:{exchange.email}", "", self.id, time.time())
        self.stats.opened(self.record)

    async def run(self) -> None:
        try:
            await self._answer()
            self._over("complete")
        finally:
            self._over("aborted")

    def left(self) -> None:
        self._over("aborted")

    def _over(self, end: End) -> None:
        self.stats.closed(self.record, end)

    async def _answer(self) -> None:
        action, exchange = self.action, self.exchange
        if action.latency_ms and action is not exchange.action:  # a queued one has waited already
            await asyncio.sleep(action.latency_ms / 1000)
        if action.hang == "before":
            await asyncio.sleep(FOR_EVER)
        if action.reset == "before":
            self._over("broken")
            exchange.reset()
        elif action.empty:
            exchange.respond(Response(action.status or 200, b""))
        elif action.fail is not None and action.after is None:
            exchange.respond(failure(action))
        elif action.body is not None:
            exchange.respond(literal(action))
        elif self.body.get("stream"):
            await self._stream()
        else:
            exchange.respond(json_response(self._whole()))

    async def _stream(self) -> None:
        events = [spell(payload) for payload in self._chunks()] + [spell(b"[DONE]")]
        failed = self.action.fail is not None
        if failed:
            error = msgspec.json.decode(failure(self.action).body)
            events = [*events[: self.action.after or 0], spell(error)]
        config = self.state.config
        player = Player(
            self.exchange,
            self.action,
            self.record,
            delay_ms=config.delay_ms,
            gzip=config.gzip,
            beat=lambda: b": keep-alive\n\n",
            stopped=lambda: False,
            over=self._over,
        )
        await player.play(events, failed=failed)

    # -- content

    def _pieces(self) -> list[str]:
        action = self.action
        text = (
            action.say if action.say64 is None else msgspec.structs.replace(action, call=None).text
        )
        if text is None and action.call is not None:
            return []
        if text is None and action.frames is not None:
            return [WORDS[index % len(WORDS)] + " " for index in range(action.frames)]
        if text is None:
            prompt = " ".join(without_directives(_text_of(self.body)).split())[-120:]
            text = f"Hello! This is the simulated portal, answering as {self.body['model']}. You wrote: “{prompt}”."
        return frames.pieces_of(text, action.frames or max(1, min(24, len(text) // 4)))

    def _reasoning(self) -> list[str]:
        wanted = self.action.think
        if wanted is None:
            return []
        if isinstance(wanted, str):
            return frames.pieces_of(wanted, max(1, len(wanted) // 12))
        return [THOUGHTS[index % len(THOUGHTS)][1] + " " for index in range(wanted)]

    def _call(self) -> tuple[str, str, str] | None:
        """Id, name and arguments of the native tool call, when one is scripted."""
        action = self.action
        if action.call is None:
            return None
        args = (
            action.args
            if isinstance(action.args, str)
            else frames.encode(action.args or {}).decode()
        )
        return f"call_{self.id[-12:]}", action.call, args

    def _usage(self) -> Payload:
        sent = 1 + len(_text_of(self.body)) // 4
        received = len(self._pieces()) + len(self._reasoning())
        return frames.usage("prompt", sent=sent, received=received) or {}

    def _chunk(self, delta: Payload, finish_reason: str | None = None) -> Payload:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return self._frame([choice])

    def _frame(self, choices: list[Payload], usage: Payload | None = None) -> Payload:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.body["model"],
            "system_fingerprint": None,
            "choices": choices,
            "usage": usage,
        }

    def _chunks(self) -> list[Payload]:
        """Chunks with the nulls that really appear; a usage chunk when it was asked for (11)."""
        out = [self._chunk({"role": "assistant", "content": ""})]
        out += [
            self._chunk({"reasoning_content": piece, "content": None})
            for piece in self._reasoning()
        ]
        out += [self._chunk({"content": piece}) for piece in self._pieces()]
        call = self._call()
        if call is not None:
            out += self._call_chunks(*call)
        if self.action.finish:
            out.append(self._chunk({"content": ""}, "tool_calls" if call else "stop"))
        options = self.body.get("stream_options") or {}
        if options.get("include_usage") is True:
            out.append(self._frame([], self._usage()))
        return out

    def _call_chunks(self, call_id: str, name: str, args: str) -> list[Payload]:
        first = {"index": 0, "id": call_id, "type": "function"}
        out = [self._chunk({"tool_calls": [first | {"function": {"name": name, "arguments": ""}}]})]
        for piece in frames.pieces_of(args, 3):
            more = {"index": 0, "function": {"arguments": piece}}
            out.append(self._chunk({"tool_calls": [more]}))
        return out

    def _whole(self) -> Payload:
        message: Payload = {"role": "assistant", "content": "".join(self._pieces())}
        reasoning = "".join(self._reasoning())
        if reasoning:
            message["reasoning_content"] = reasoning
        call = self._call()
        if call is not None:
            inner = {"name": call[1], "arguments": call[2]}
            message["tool_calls"] = [{"id": call[0], "type": "function", "function": inner}]
        choice = {"index": 0, "message": message, "logprobs": None}
        choice["finish_reason"] = "tool_calls" if call else "stop"
        whole = self._frame([choice], self._usage())
        return whole | {"object": "chat.completion"}
