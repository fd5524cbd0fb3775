"""`POST /api/v2/chat/completions`: what it refuses, and how an answer is played (sections 5 to 8, 15.4)."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import msgspec

from tests.simulator import answers, media, models
from tests.simulator.answers import Answer, Facts
from tests.simulator.chats import Chat, is_seconds
from tests.simulator.connection import Exchange, Response
from tests.simulator.failures import answer_of, literal, payload_of, refuse
from tests.simulator.frames import Ids, Payload, encode, keep_alive, spell, spell_all
from tests.simulator.player import EVENT_STREAM, FOR_EVER, End, Player
from tests.simulator.script import Action, ScriptError, find_action, without_directives
from tests.simulator.state import State, base_of
from tests.simulator.stats import StreamRecord

IMAGE_TYPES = ("t2i", "image_edit")
VIDEO_TYPES = ("t2v", "i2v")
PLAIN = Action()


class Prompt(msgspec.Struct):
    """The one user message that counts: its text, its settings, its media."""

    text: str
    message: dict[str, Any]
    media_urls: list[str]

    @property
    def chat_type(self) -> str:
        return str(self.message.get("chat_type") or "t2t")

    @property
    def features(self) -> dict[str, Any]:
        features = self.message.get("feature_config")
        return features if isinstance(features, dict) else {}


def completions(state: State, exchange: Exchange) -> Response | None:
    """Refuse, answer at once, or begin to stream (then `None`)."""
    body = exchange.request.json()
    chat = _chat_of(state, exchange, body)
    if isinstance(chat, Response):
        return chat
    prompt = _prompt_of(body)
    if isinstance(prompt, Response):
        return prompt
    model = models.find(state.config.models, str(body.get("model", "")))
    refusal = _refusal(state, exchange, body, prompt, model)
    if refusal is not None:
        return refusal
    try:
        action = _action_of(state, exchange, prompt)
    except ScriptError as error:
        return refuse("Bad_Request", details=f"simulator script: {error}")
    if chat.locked:
        return refuse("ChatInProgress")
    limit = state.config.concurrency_limit
    if limit and state.stats.open[exchange.email] >= limit:
        return refuse("ParallelLimited")
    Generation(state, exchange, chat, prompt, body, model or {}, action).begin()
    return None


def _chat_of(state: State, exchange: Exchange, body: dict[str, Any]) -> Chat | Response:
    """The chat that query and body agree on, when it is this account's (4, 5)."""
    named = exchange.request.query.get("chat_id", "")
    if not body.get("chat_id") or body["chat_id"] != named:
        return answer_of(Action(fail="Bad_Request", details="chat_id is invalid", status=400))
    chat = state.chats.of(exchange.email, named)
    if chat is None:
        return refuse("CHAT_NOT_FOUND")
    parent = body.get("parent_id")
    if parent is not None and parent not in chat.messages:
        return refuse("PARENT_NOT_FOUND")
    return chat


def _prompt_of(body: dict[str, Any]) -> Prompt | Response:
    """The last user message; messages of role `system` are as if they were not there (15.2)."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return refuse("Bad_Request", details="messages is missing")
    spoken = [one for one in messages if isinstance(one, dict) and one.get("role") == "user"]
    if not spoken:
        return refuse("Bad_Request", details="there is no user message")
    message = spoken[-1]
    text, urls = "", []
    content = message.get("content")
    if isinstance(content, str):
        text = content
    elif isinstance(content, list):
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str):
                text += part["text"]
            elif kind in ("image", "video", "audio", "file") and isinstance(part.get(kind), str):
                urls.append(part[kind])
            else:
                return refuse("invalid_input", details=f"content part {kind!r} is not accepted")
    else:
        return refuse("invalid_input", details="content must be a string or an array")
    for file in message.get("files") or []:
        if (
            not isinstance(file, dict)
            or not file.get("type")
            or not isinstance(file.get("url"), str)
        ):
            return refuse("InvalidAttachment")
        urls.append(file["url"])
    return Prompt(text, message, urls)


def _refusal(
    state: State,
    exchange: Exchange,
    body: dict[str, Any],
    prompt: Prompt,
    model: dict[str, Any] | None,
) -> Response | None:
    """Why the upstream would not begin; `None` when it would."""
    config = state.config
    kind = prompt.chat_type
    if len(prompt.text.encode("utf-8", "surrogatepass")) > config.prompt_limit_bytes:
        return refuse("waf_page")
    if config.check_model and model is None:
        return refuse("ModelNotFound")
    if model is not None and config.check_model and not _offers(model, kind):
        return refuse("Bad_Request", details=f"the model does not support {kind}")
    video = kind in VIDEO_TYPES
    if body.get("stream") is not (not video):
        return refuse("Bad_Request", details="stream must be false for video, else true")
    if config.check_timestamps:
        told = [body.get("timestamp"), prompt.message.get("timestamp")]
        if kind in IMAGE_TYPES or video or told[1] is None:
            told = [one for one in told if one is not None]
        if not all(is_seconds(one) for one in told):
            return refuse("Bad_Request", details="timestamp must be in seconds")
    if not prompt.text.strip() and not prompt.media_urls:
        return refuse("invalid_input", details="content is empty")
    if (kind in IMAGE_TYPES or video) and media.size_of(body) is None:
        return refuse("invalid_input", details="size is not supported")
    if config.check_media:
        for url in prompt.media_urls:
            if not state.storage.usable(url, exchange, state):
                return refuse("InvalidAttachment")
    left = state.account_of(exchange).quota.get("t2v" if video else kind)
    if left is not None and left <= 0:
        return refuse("RateLimited", num=_hours_to_midnight())
    return None


def _offers(model: dict[str, Any], kind: str) -> bool:
    offered = models.chat_types(model)
    return kind in offered or (kind == "i2v" and "t2v" in offered)


def _hours_to_midnight() -> int:
    return 24 - time.gmtime().tm_hour


def _action_of(state: State, exchange: Exchange, prompt: Prompt) -> Action:
    """The queued action, else the prompt's directive, else nothing special."""
    if exchange.action is not None:
        action: Action = exchange.action
    else:
        action = find_action(prompt.text) or PLAIN
    if action.script is not None:
        action = state.playbook.step(action.script)
    return action


class Generation:
    """One answer on its way: it locks its chat, is counted, and is told apart by how it ends."""

    def __init__(
        self,
        state: State,
        exchange: Exchange,
        chat: Chat,
        prompt: Prompt,
        body: dict[str, Any],
        model: dict[str, Any],
        action: Action,
    ) -> None:
        self.state = state
        self.stats = state.stats  # a reset puts a new one in its place; this stream ends in the old
        self.exchange = exchange
        self.chat = chat
        self.prompt = prompt
        self.body = body
        self.model = model
        self.action = action
        response_id = str(uuid.uuid4())
        message_id = str(prompt.message.get("fid") or uuid.uuid4())
        self.ids = Ids(chat.id, message_id, response_id)
        self.record = StreamRecord(exchange.email, chat.id, response_id, time.time())
        self.failed = False

    def begin(self) -> None:
        chat = self.chat
        chat.running, chat.stop_wanted = self.ids.response_id, False
        self.stats.opened(self.record)
        self.exchange.on_gone = self._left
        self.exchange.spawn(self._run())

    # -- life

    async def _run(self) -> None:
        try:
            await self._answer()
            if self.chat.stop_wanted:
                self._over("stopped")
            else:
                self._over("broken" if self.failed else "complete")
        finally:
            self._over("aborted")

    def _left(self) -> None:
        self._over("aborted")

    def _over(self, end: End) -> None:
        if self.record.end != "open":
            return
        self.stats.closed(self.record, end)
        config = self.state.config
        seconds = config.lock_after_abort_ms if end == "aborted" else config.lock_after_end_ms
        stopped = end == "stopped"
        self.chat.running = None
        self.chat.locked_until = 0.0 if stopped else time.monotonic() + seconds / 1000

    async def _answer(self) -> None:
        action, exchange = self.action, self.exchange
        if action.latency_ms and action is not exchange.action:  # a queued one has waited already
            await asyncio.sleep(action.latency_ms / 1000)
        if action.hang == "before":
            await asyncio.sleep(FOR_EVER)
        if action.reset == "before":
            self._over("broken")
            return exchange.reset()
        if action.canned:
            return await self._canned()
        if action.empty:
            return self._respond(Response(action.status or 200, b"", EVENT_STREAM))
        if action.body is not None or (action.status is not None and action.fail is None):
            return self._respond(literal(action))
        if action.fail is not None and action.after is None and action.form is None:
            self.failed = True
            return self._respond(answer_of(action))
        events = self._events()
        if isinstance(events, Response):
            return self._respond(events)
        if action.fail is not None:
            self.failed = True
            events = [*events[: action.after or 0], spell(payload_of(action), action.wire_style)]
        await self._play(events)

    async def _canned(self) -> None:
        """The canned stream, all at once unless the action paces it."""
        action = self.action
        events = answers.canned_events(action.frames or self.state.config.canned_frames)
        burst = 1 if action.delay_ms else len(events)
        self.action = msgspec.structs.replace(action, burst=burst, delay_ms=action.delay_ms or 0)
        await self._play(events)

    def _respond(self, response: Response) -> None:
        self.exchange.respond(response)

    # -- content

    def _events(self) -> list[bytes] | Response:
        kind = self.prompt.chat_type
        if kind in IMAGE_TYPES:
            return self._image()
        if kind in VIDEO_TYPES:
            return self._video()
        answer = answers.build(self._facts(), self.action)
        self._remember(answer)
        return answer.events

    def _facts(self) -> Facts:
        features, action = self.prompt.features, self.action
        model_id = str(self.model.get("id", ""))
        asked = "summary" if features.get("thinking_format") == "summary" else "detail"
        owner = self.state.account_of(self.exchange).id
        base = base_of(self.exchange)
        publish = self.state.media.publish
        return Facts(
            ids=self.ids,
            prompt=without_directives(self.prompt.text),
            model_name=str(self.model.get("name") or self.body.get("model")),
            chat_type=self.prompt.chat_type,
            thinking=bool(features.get("thinking_enabled")) and models.can_think(self.model),
            thinking_format="summary" if model_id in models.SUMMARY_ONLY else asked,
            phases=features.get("output_schema") == "phase",
            incremental=self.body.get("incremental_output") is True,
            attachments=len(self.prompt.media_urls),
            picture_urls=[
                publish(base, owner, "t2i", f"{n}.png") for n in range(1, (action.images or 0) + 1)
            ],
            prompt_tokens=1 + len(self.prompt.text) // 4,
            timestamp=int(time.time()),
        )

    def _remember(self, answer: Answer) -> None:
        parts = [("think", answer.reasoning), ("answer", answer.text)]
        content = [
            {"phase": phase, "content": text, "status": "finished", "extra": {}}
            for phase, text in parts
            if text
        ]
        self._note(content=answer.text, content_list=content, done=True)

    def _note(self, **fields: Any) -> None:
        """Write question and answer into the chat's detail (4)."""
        ids, messages = self.ids, self.chat.messages
        messages[ids.parent_id] = {
            "id": ids.parent_id,
            "role": "user",
            "content": self.prompt.text,
            "parentId": self.body.get("parent_id"),
        }
        reply = {"id": ids.response_id, "role": "assistant", "content": "", "content_list": []}
        messages[ids.response_id] = (
            reply | {"extra": {}, "done": False, "parentId": ids.parent_id} | fields
        )

    def _spend(self, kind: str) -> None:
        quota = self.state.account_of(self.exchange).quota
        if kind in quota:
            quota[kind] -= 1

    def _image(self) -> list[bytes] | Response:
        """A picture, in the shape that `shape` names (8.1)."""
        kind, action = self.prompt.chat_type, self.action
        self._spend(kind)
        owner = self.state.account_of(self.exchange).id
        base = base_of(self.exchange)
        publish = self.state.media.publish
        count = range(1, (1 if action.images is None else action.images) + 1)
        urls = [publish(base, owner, kind, f"{number}.png") for number in count]
        match action.shape or "sse":
            case "json" | "url":
                return _document(media.message_document(self.ids, urls[0]))
            case "fields":
                return _document(media.fields_document(urls[0], "image"))
            case "markdown":
                payloads = media.markdown_events(self.ids, urls, "image")
            case "detail":
                self._note(done=True, _late={"content": urls[0]})
                payloads = media.silent_events(self.ids, "image_gen")
            case "none":
                payloads = media.silent_events(self.ids, "image_gen")
            case _:
                size = media.size_of(self.body) or (1024, 1024)
                payloads = media.image_events(self.ids, urls, size)
                self._note(content="\n".join(urls), done=True)
        return spell_all(list(payloads), action.wire_style)

    def _video(self) -> list[bytes] | Response:
        """A video's task, or the video, in the shape that `shape` names (8.2)."""
        action, state = self.action, self.state
        self._spend("t2v")
        owner = state.account_of(self.exchange).id
        url = state.media.publish(base_of(self.exchange), owner, "t2v", "1.mp4")
        shape = action.shape or "json"
        if shape == "url":
            return _document(media.message_document(self.ids, url))
        if shape == "fields":
            return _document(media.fields_document(url, "video"))
        if shape == "markdown":
            payloads = media.markdown_events(self.ids, [url], "video")
            return spell_all(list(payloads), action.wire_style)
        polls = state.config.task_polls if action.polls is None else action.polls
        final = media.final_status(action)
        task = state.media.new_task(self.exchange.email, url, polls=polls, final=final)
        extra = {"wanx": {"task_id": task.id}}
        if shape == "sse":
            self._note(extra=extra)
            return spell_all(list(media.task_events(self.ids, task.id)), action.wire_style)
        if shape == "detail":
            self._note(_late={"extra": extra})
            return _document(media.message_document(self.ids, ""))
        if shape == "none":
            return _document(media.message_document(self.ids, ""))
        self._note(extra=extra)
        return _document(media.message_document(self.ids, "", extra))

    async def _play(self, events: list[bytes]) -> None:
        config = self.state.config
        player = Player(
            self.exchange,
            self.action,
            self.record,
            delay_ms=config.delay_ms,
            gzip=config.gzip,
            beat=lambda: spell(keep_alive(self.ids, timestamp=int(time.time()))),
            stopped=lambda: self.chat.stop_wanted,
            over=self._over,
        )
        await player.play(events, failed=self.failed)


def _document(payload: Payload) -> Response:
    return Response(200, encode(payload))
