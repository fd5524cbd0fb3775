"""OpenAI Responses, what is kept of them: a response that is fetched later, its input as items.

Source: OpenAI API reference and its Python SDK's types, read 2026-11.
"""

from collections.abc import Sequence
from typing import Literal, assert_never

import msgspec

from gateway.dialects.responses_object import (
    Error,
    Ids,
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    Status,
    SummaryText,
    call_item,
    encode,
    output_of,
    response_of,
    write_reply,
)
from gateway.dialects.responses_request import given_of
from gateway.dialects.turn import Turn
from shared.chat.collect import Reply, ReplyToolCall
from shared.chat.request import (
    MediaPart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from shared.errors import BadRequest


def write_kept(
    turn: Turn, status: Status, reply: Reply | None = None, error: Error | None = None
) -> bytes:
    """A response as it stands now: queued, in progress, or however it ended."""
    if status == "completed" and reply is not None:
        return write_reply(turn, reply)
    usage = reply.usage if reply else None
    output = output_of(turn, reply, "incomplete") if reply else []
    return encode(response_of(turn, status, output, error=error, usage=usage))


def said(reply: Reply | None) -> tuple[Message, ...]:
    """A kept reply as what the assistant said, for the turns that follow it."""
    if reply is None:
        return ()
    text = (TextPart(reply.text),) if reply.text else ()
    parts = (*text, *map(_call_part, reply.tool_calls))
    return (Message("assistant", parts),) if parts else ()


def _call_part(call: ReplyToolCall) -> ToolCallPart:
    return ToolCallPart(call.call_id, call.name, call.arguments, call.custom)


def item_of(turn: Turn, reply: Reply, item_id: str) -> Message | None:
    """An item of a kept reply, as a message of its own; None: it says nothing to the model.

    A stream may show as several messages what a reply has as one: the first stands for all.

    Raises:
        LookupError: there never was such an item.
    """
    ids = Ids(turn.id)
    if item_id == ids.next("msg"):
        return Message("assistant", (TextPart(reply.text),)) if reply.text else None
    for call in reply.tool_calls:
        if item_id == ids.next("ctc" if call.custom else "fc"):
            return Message("assistant", (_call_part(call),))
    if item_id.startswith(("fc_", "ctc_")):
        raise LookupError(item_id)
    return None


class _Deleted(msgspec.Struct):
    id: str
    object: str = "response"
    deleted: bool = True


def write_deleted(response_id: str) -> bytes:
    return encode(_Deleted(response_id))


class _InputText(msgspec.Struct):
    text: str
    type: str = "input_text"


class _InputMessage(msgspec.Struct):
    id: str
    role: str
    content: list[_InputText]
    status: ItemStatus = "completed"
    type: str = "message"


class _ResultItem(msgspec.Struct):
    id: str
    type: str
    call_id: str
    output: str
    status: ItemStatus = "completed"


InputItem = _InputMessage | OutputItem | _ResultItem


class _InputItems(msgspec.Struct):
    data: Sequence[InputItem]
    first_id: str
    last_id: str
    has_more: bool
    object: str = "list"


def input_items(turn: Turn, messages: Sequence[Message]) -> list[InputItem]:
    """The input of a response as items, in its order; what the model didn't read isn't there."""
    ids = Ids(f"{turn.id}_in")
    namespaces = given_of(turn.given).echo.namespaces
    custom: set[str] = set()
    items: list[InputItem] = []
    for message in messages:
        if thought := [p.text for p in message.parts if isinstance(p, ReasoningPart)]:
            summary = [SummaryText(text) for text in thought]
            items.append(ReasoningItem(ids.next("rs"), "completed", summary))
        if texts := [part.text for part in message.parts if isinstance(part, TextPart)]:
            items.append(_message(ids.next("msg"), message.role, texts))
        for part in message.parts:
            match part:
                case ToolCallPart(call_id, name, arguments, is_custom):
                    items.append(
                        call_item(
                            ids, ReplyToolCall(call_id, name, arguments, is_custom), namespaces
                        )
                    )
                    custom |= {call_id} if is_custom else set()
                case ToolResultPart():
                    items.append(_result_item(ids, part, custom=part.call_id in custom))
                case TextPart() | ReasoningPart() | MediaPart():
                    pass
                case _:
                    assert_never(part)
    return items


def _message(item_id: str, role: str, texts: list[str]) -> _InputMessage | MessageItem:
    if role == "assistant":
        return MessageItem(item_id, "completed", [OutputText(text) for text in texts])
    return _InputMessage(item_id, role, [_InputText(text) for text in texts])


def _result_item(ids: Ids, part: ToolResultPart, *, custom: bool) -> _ResultItem:
    kind = "custom_tool_call_output" if custom else "function_call_output"
    output = "\n".join(inner.text for inner in part.content if isinstance(inner, TextPart))
    return _ResultItem(ids.next("ctc" if custom else "fc"), kind, part.call_id, output)


def output_items(turn: Turn, reply: Reply | None) -> list[OutputItem]:
    """What was answered, as the input of a response that follows it."""
    return [] if reply is None else output_of(turn, reply, "completed")


def write_input_items(
    items: Sequence[InputItem],
    *,
    limit: int = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> bytes:
    """A page of `input_items`, the newest first unless told otherwise; `after` = an item's id.

    Raises:
        BadRequest: there is no item `after`.
    """
    ordered = list(items) if order == "asc" else list(reversed(items))
    start = 0
    if after is not None:
        ids = [item.id for item in ordered]
        if after not in ids:
            raise BadRequest(f"after: there is no item {after[:64]!r}", param="after")
        start = ids.index(after) + 1
    page = ordered[start : start + limit]
    more = start + limit < len(ordered)
    first, last = (page[0].id, page[-1].id) if page else ("", "")
    return encode(_InputItems(page, first, last, more))
