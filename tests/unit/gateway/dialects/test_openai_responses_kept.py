"""What is shown of responses that were kept."""

from typing import Any

import msgspec
import pytest
from openai.types.responses import Response
from openai.types.responses.response_item_list import ResponseItemList

from gateway.dialects import Turn, openai_responses, responses_kept
from gateway.dialects.responses_object import error_of, response_of_item
from gateway.dialects.responses_request import Echo, Given
from shared.chat.collect import Reply, ReplyToolCall
from shared.chat.events import Usage
from shared.chat.request import (
    MediaPart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from shared.errors import BadRequest

ID = "ab" * 12
REPLY = Reply(
    text="Sunny.",
    reasoning="hm",
    tool_calls=[ReplyToolCall("c1", "f", "{}"), ReplyToolCall("c2", "p", "text", custom=True)],
    reason="tool_calls",
    usage=Usage(3, 4),
)
INPUT = (
    Message("system", (TextPart("Be brief."),)),
    Message("user", (TextPart("a"), MediaPart("image", "https://a.b/c.png"), TextPart("b"))),
    Message(
        "assistant", (ReasoningPart("hm"), TextPart("I look."), ToolCallPart("c", "n.f", "{}"))
    ),
    Message("assistant", (ToolCallPart("d", "p", "text", custom=True),)),
    Message("tool", (ToolResultPart("c", (TextPart("one"), TextPart("two"))),)),
    Message("tool", (ToolResultPart("d", (TextPart("three"),)),)),
)


def turn_of(**echo: Any) -> Turn:
    given = Given(echo=Echo(**echo))
    return Turn(id=f"resp_{ID}", created=1795400000, model="qwen", given=given)


def kept(*given: Any) -> Any:  # Any: JSON
    return msgspec.json.decode(responses_kept.write_kept(turn_of(background=True), *given))


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled"])
def test_one_without_an_answer_says_where_it_stands(status: Any) -> None:
    shown = kept(status)
    assert (shown["status"], shown["output"], shown["usage"]) == (status, [], None)
    Response.model_validate(shown, strict=True)


def test_one_that_has_ended_is_shown_as_it_was_given() -> None:
    turn = turn_of()
    whole = openai_responses.write_reply(turn, REPLY)
    assert responses_kept.write_kept(turn, "completed", REPLY) == whole


def test_one_that_was_cut_short_is_shown_as_incomplete() -> None:
    assert kept("completed", Reply(text="x", reason="length"))["status"] == "incomplete"


def test_one_that_failed_shows_what_there_was_and_why() -> None:
    said = Reply(text="Sun", reasoning="hm")
    shown = kept("failed", said, error_of(502, "cut"))
    assert shown["error"] == {"code": "server_error", "message": "cut"}
    assert [item["type"] for item in shown["output"]] == ["reasoning", "message"]
    assert shown["output"][-1]["status"] == "incomplete"
    Response.model_validate(shown, strict=True)


def test_a_reply_is_carried_on_as_one_message_of_the_assistant() -> None:
    assert responses_kept.said(REPLY) == (
        Message(
            "assistant",
            (
                TextPart("Sunny."),
                ToolCallPart("c1", "f", "{}"),
                ToolCallPart("c2", "p", "text", custom=True),
            ),
        ),
    )
    assert responses_kept.said(Reply()) == ()
    assert responses_kept.said(None) == ()


# -- items by their ids


def test_every_item_of_a_shown_response_is_found_by_its_id_or_says_nothing() -> None:
    turn = turn_of()
    shown = msgspec.json.decode(openai_responses.write_reply(turn, REPLY))
    found = {
        item["type"]: responses_kept.item_of(turn, REPLY, item["id"]) for item in shown["output"]
    }
    assert found == {
        "reasoning": None,
        "message": Message("assistant", (TextPart("Sunny."),)),
        "function_call": Message("assistant", (ToolCallPart("c1", "f", "{}"),)),
        "custom_tool_call": Message("assistant", (ToolCallPart("c2", "p", "text", custom=True),)),
    }
    assert {response_of_item(item["id"]) for item in shown["output"]} == {turn.id}


def test_a_later_message_of_a_stream_says_nothing_more() -> None:
    """A stream shows as several messages what a reply has as one."""
    assert responses_kept.item_of(turn_of(), REPLY, f"msg_{ID}_1") is None


@pytest.mark.parametrize("kind", ["fc", "ctc"])
def test_a_call_that_never_was_is_not_found(kind: str) -> None:
    with pytest.raises(LookupError):
        responses_kept.item_of(turn_of(), REPLY, f"{kind}_{ID}_7")


@pytest.mark.parametrize("item_id", ["", "msg_1", "msg_xyz_0", f"fc_{ID}_0/..", f"zz_{ID}_0"])
def test_an_id_that_is_none_of_ours_belongs_to_no_response(item_id: str) -> None:
    assert response_of_item(item_id) is None


# -- the input as items


def test_the_input_is_listed_as_items_that_the_sdk_reads() -> None:
    items = responses_kept.input_items(turn_of(namespaces={"n.f": "n"}), INPUT)
    listed = msgspec.json.decode(responses_kept.write_input_items(items, order="asc"))
    assert [item["type"] for item in listed["data"]] == [
        "message",
        "message",
        "reasoning",
        "message",
        "function_call",
        "custom_tool_call",
        "function_call_output",
        "custom_tool_call_output",
    ]
    texts = [part["text"] for part in listed["data"][1]["content"]]
    assert texts == ["a", "b"]
    assert (listed["data"][4]["namespace"], listed["data"][4]["name"]) == ("n", "f")
    assert listed["data"][6]["output"] == "one\ntwo"
    assert len({item["id"] for item in listed["data"]}) == 8
    ResponseItemList.model_validate_json(msgspec.json.encode(listed), strict=True)


def pages(**query: Any) -> list[list[str]]:
    """Ids page by page, as a client that follows `last_id` sees them."""
    items = responses_kept.input_items(turn_of(), INPUT)
    seen: list[list[str]] = []
    after = None
    while True:
        page = msgspec.json.decode(responses_kept.write_input_items(items, after=after, **query))
        seen.append([item["id"] for item in page["data"]])
        assert (page["first_id"], page["last_id"]) == (seen[-1][0], seen[-1][-1])
        if not page["has_more"]:
            return seen
        after = page["last_id"]


@pytest.mark.parametrize("limit", [1, 3, 4, 8, 100])
def test_pages_joined_are_the_list(limit: int) -> None:
    whole = [item.id for item in responses_kept.input_items(turn_of(), INPUT)]
    forward = pages(limit=limit, order="asc")
    assert [one for page in forward for one in page] == whole
    assert [one for page in pages(limit=limit) for one in page] == whole[::-1]
    assert all(len(page) == limit for page in forward[:-1])


def test_an_item_that_is_not_there_starts_no_page() -> None:
    with pytest.raises(BadRequest) as caught:
        responses_kept.write_input_items([], after="msg_x")
    assert caught.value.param == "after"


def test_an_empty_list_is_an_empty_page() -> None:
    page = msgspec.json.decode(responses_kept.write_input_items([]))
    assert (page["data"], page["has_more"]) == ([], False)
