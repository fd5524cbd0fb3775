"""What a Responses client is told, streamed and whole."""

from typing import Any

import msgspec
import pytest
from openai.types.responses import Response

from gateway.dialects import Rendering, Turn
from gateway.dialects.openai_responses import new_id, open_writer, write_error, write_reply
from gateway.dialects.responses_request import Echo, Given
from shared import errors
from shared.chat.collect import Collector
from shared.chat.events import (
    Event,
    MediaReady,
    ReasoningDelta,
    Source,
    SourcesFound,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    TurnEnd,
    TurnFailed,
    TurnStart,
    Usage,
)
from tests.fakes.frames import Json, chunks, payloads

ID = "ab" * 12
ANSWER: list[Event] = [TurnStart(), TextDelta("Hel"), TextDelta("lo")]
END = TurnEnd("stop", Usage(12, 7, 3, 4))
CALL: list[Event] = [
    ToolCallStart(0, "call_1", "get_weather"),
    ToolCallDelta(0, '{"city":'),
    ToolCallDelta(0, '"Oslo"}'),
    ToolCallEnd(0),
]
PATCH: list[Event] = [
    ToolCallStart(0, "call_1", "apply_patch", custom=True),
    ToolCallDelta(0, "*** Begin"),
    ToolCallDelta(0, " Patch"),
]
FOUND = SourcesFound((Source("Fjords", "https://example.org/fjords"),), ("fjords", "norway"))


def turn_of(*, starting_after: int = -1, rendering: Rendering | None = None, **echo: Any) -> Turn:
    return Turn(
        id=new_id(ID),
        created=1795400000,
        model='Qwen3-"Max"',
        include_usage=True,
        rendering=rendering or Rendering(),
        given=Given(echo=Echo(**echo), starting_after=starting_after),
    )


def stream(events: list[Event], turn: Turn | None = None) -> bytes:
    writer = open_writer(turn or turn_of())
    return b"".join(map(writer.feed, events))


def kinds(events: list[Event], turn: Turn | None = None) -> list[str]:
    return [frame["type"].removeprefix("response.") for frame in chunks(stream(events, turn))]


def reply(events: list[Event], turn: Turn | None = None) -> Json:
    collector = Collector()
    for event in events:
        collector.feed(event)
    return msgspec.json.decode(write_reply(turn or turn_of(), collector.reply))  # type: ignore[no-any-return]  # JSON


# -- stream


def test_a_text_is_told_in_the_order_of_the_reference() -> None:
    assert kinds([*ANSWER, END]) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_the_response_is_there_as_soon_as_the_upstream_answers() -> None:
    assert kinds([TurnStart()]) == ["created", "in_progress"]


def test_a_stream_has_no_done_marker_and_nothing_after_its_end() -> None:
    assert b"[DONE]" not in stream([*ANSWER, END])
    assert stream([*ANSWER, END, TextDelta("x"), END]) == stream([*ANSWER, END])


def test_reasoning_is_an_item_of_its_own_before_the_message() -> None:
    events: list[Event] = [ReasoningDelta("hm"), ReasoningDelta("."), TextDelta("x"), END]
    assert kinds(events)[2:11] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
    ]
    [item, _] = chunks(stream(events))[-1]["response"]["output"]
    assert (item["id"], item["summary"][0]["text"]) == (f"rs_{ID}_0", "hm.")


def test_reasoning_is_kept_back_where_the_operator_says_so() -> None:
    turn = turn_of(rendering=Rendering(output_think=False))
    events: list[Event] = [ReasoningDelta("hm"), TextDelta("x"), END]
    assert [item["type"] for item in reply(events, turn)["output"]] == ["message"]
    assert not any("reasoning" in kind for kind in kinds(events, turn))


def test_a_call_is_an_item_whose_arguments_come_as_they_are_written() -> None:
    frames = chunks(stream([*CALL, TurnEnd("tool_calls", Usage())]))
    assert [frame["type"].removeprefix("response.") for frame in frames[2:-1]] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert frames[2]["item"]["arguments"] == ""
    assert frames[5]["arguments"] == '{"city":"Oslo"}'
    assert frames[-1]["response"]["output"] == [
        {
            "id": f"fc_{ID}_0",
            "status": "completed",
            "call_id": "call_1",
            "name": "get_weather",
            "arguments": '{"city":"Oslo"}',
            "type": "function_call",
        }
    ]
    assert frames[-1]["type"] == "response.completed"


def test_a_custom_call_is_an_item_with_free_text() -> None:
    frames = chunks(stream([*PATCH, ToolCallEnd(0), TurnEnd("tool_calls", Usage())]))
    assert [frame["type"].removeprefix("response.") for frame in frames[2:-1]] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    [item] = frames[-1]["response"]["output"]
    assert (item["type"], item["input"]) == ("custom_tool_call", "*** Begin Patch")


def test_a_custom_call_that_broke_is_taken_back() -> None:
    """A client may run free text as soon as its item is done, and half of one looks like a whole."""
    frames = chunks(stream([*PATCH, TurnFailed(errors.UpstreamSilent())]))
    [item] = frames[-1]["response"]["output"]
    assert (item["status"], item["input"]) == ("incomplete", "")
    assert all(frame.get("input", "") == "" for frame in frames)


def test_a_function_call_that_broke_is_closed_as_incomplete() -> None:
    frames = chunks(stream([*CALL[:2], TurnFailed(errors.UpstreamSilent())]))
    assert [frame["type"] for frame in frames[-3:]] == [
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.failed",
    ]
    assert frames[-2]["item"]["status"] == "incomplete"


def test_a_call_in_a_namespace_is_told_by_its_name_there() -> None:
    turn = turn_of(namespaces={"agents.spawn": "agents"})
    events: list[Event] = [
        ToolCallStart(0, "c", "agents.spawn"),
        ToolCallDelta(0, "{}"),
        ToolCallEnd(0),
        TurnEnd("tool_calls", Usage()),
    ]
    for output in (
        chunks(stream(events, turn))[-1]["response"]["output"],
        reply(events, turn)["output"],
    ):
        [item] = output
        assert (item["namespace"], item["name"]) == ("agents", "spawn")


def test_a_name_with_a_dot_is_no_namespace_unless_it_was_declared_as_one() -> None:
    events: list[Event] = [
        ToolCallStart(0, "c", "a.b"),
        ToolCallEnd(0),
        TurnEnd("tool_calls", Usage()),
    ]
    [item] = reply(events)["output"]
    assert item["name"] == "a.b"
    assert "namespace" not in item


def test_two_calls_at_once_are_two_items() -> None:
    events: list[Event] = [
        ToolCallStart(0, "c0", "f"),
        ToolCallStart(1, "c1", "g"),
        ToolCallDelta(1, "{}"),
        ToolCallDelta(0, "{}"),
        ToolCallEnd(0),
        ToolCallEnd(1),
        TurnEnd("tool_calls", Usage()),
    ]
    frames = chunks(stream(events))
    deltas = [f for f in frames if f["type"] == "response.function_call_arguments.delta"]
    assert [(f["item_id"], f["output_index"]) for f in deltas] == [
        (f"fc_{ID}_1", 1),
        (f"fc_{ID}_0", 0),
    ]
    assert [item["name"] for item in frames[-1]["response"]["output"]] == ["f", "g"]


def test_text_goes_on_in_a_message_of_its_own_after_a_call() -> None:
    events: list[Event] = [TextDelta("a"), *CALL, TextDelta("b"), TurnEnd("tool_calls", Usage())]
    output = chunks(stream(events))[-1]["response"]["output"]
    assert [item["id"] for item in output] == [f"msg_{ID}_0", f"fc_{ID}_0", f"msg_{ID}_1"]


def test_a_search_is_an_item_with_what_was_asked_and_found() -> None:
    events: list[Event] = [FOUND, TextDelta("x"), END]
    assert kinds(events)[2:7] == [
        "output_item.added",
        "web_search_call.in_progress",
        "web_search_call.searching",
        "web_search_call.completed",
        "output_item.done",
    ]
    for output in (chunks(stream(events))[-1]["response"]["output"], reply(events)["output"]):
        action = output[0]["action"]
        assert (action["query"], action["queries"]) == ("fjords", ["fjords", "norway"])
        assert action["sources"] == [{"type": "url", "url": "https://example.org/fjords"}]


def test_sources_are_cited_where_they_stand_in_the_message() -> None:
    frames = chunks(stream([FOUND, TextDelta("Inlets."), END]))
    [added] = [f for f in frames if f["type"] == "response.output_text.annotation.added"]
    cited = added["annotation"]
    text = frames[-1]["response"]["output"][1]["content"][0]["text"]
    assert text.startswith("Inlets.\n\n")
    assert text[cited["start_index"] : cited["end_index"]] == "[Fjords](https://example.org/fjords)"


def test_nothing_is_put_behind_a_text_that_must_be_one_document() -> None:
    events: list[Event] = [FOUND, TextDelta('{"a":1}'), MediaReady("image", "https://a.b/c"), END]
    turn = turn_of(plain=False)
    assert reply(events, turn)["output"][-1]["content"][0]["text"] == '{"a":1}'
    assert b"annotation.added" not in stream(events, turn)


def test_sources_wait_for_the_answer_when_a_tool_was_called() -> None:
    events: list[Event] = [FOUND, TextDelta("I look."), *CALL, TurnEnd("tool_calls", Usage())]
    for output in (chunks(stream(events))[-1]["response"]["output"], reply(events)["output"]):
        assert [item["type"] for item in output] == ["web_search_call", "message", "function_call"]
        assert output[1]["content"][0]["text"] == "I look."


@pytest.mark.parametrize(
    ("reason", "told"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_what_was_cut_short_is_incomplete_and_so_is_its_last_item(reason: Any, told: str) -> None:
    events: list[Event] = [*ANSWER, TurnEnd(reason, Usage())]
    last = chunks(stream(events))[-1]
    assert last["type"] == "response.incomplete"
    for response in (last["response"], reply(events)):
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": told}
        assert response["output"][-1]["status"] == "incomplete"


def test_a_failure_closes_what_is_open_and_is_the_last_thing_said() -> None:
    frames = chunks(stream([*ANSWER, TurnFailed(errors.UpstreamSilent("Too long."), Usage(3, 4))]))
    assert [frame["type"] for frame in frames[-3:]] == [
        "response.content_part.done",
        "response.output_item.done",
        "response.failed",
    ]
    response = frames[-1]["response"]
    assert response["status"] == "failed"
    assert response["error"] == {"code": "server_error", "message": "Too long."}
    assert response["output"][0]["status"] == "incomplete"
    assert response["usage"]["total_tokens"] == 7


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UpstreamQuota("x"), "rate_limit_exceeded"),
        (errors.ContentRefused("x"), "invalid_prompt"),
        (errors.Draining("x"), "server_error"),
    ],
)
def test_a_failures_code_is_one_that_the_sdk_knows(error: errors.GatewayError, code: str) -> None:
    response = chunks(stream([TurnFailed(error)]))[-1]["response"]
    assert response["error"]["code"] == code
    Response.model_validate(response, strict=True)


def test_events_up_to_a_number_are_left_out() -> None:
    events: list[Event] = [ReasoningDelta("hm"), *ANSWER, *CALL, END]
    whole = payloads(stream(events))
    for number in range(-1, len(whole)):
        assert payloads(stream(events, turn_of(starting_after=number))) == whole[number + 1 :]


# -- whole


def test_a_reply_is_a_response_with_all_its_fields() -> None:
    assert reply([*ANSWER, END]) == {
        "id": f"resp_{ID}",
        "object": "response",
        "created_at": 1795400000,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": 'Qwen3-"Max"',
        "output": [
            {
                "id": f"msg_{ID}_0",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
                ],
            }
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 12,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 3},
            "total_tokens": 19,
        },
        "metadata": {},
    }


def test_what_was_asked_for_is_repeated_in_every_response_of_the_stream() -> None:
    tools = msgspec.Raw(b'[{"type":"function","name":"f","odd":1}]')
    turn = turn_of(
        tools=tools, metadata={"a": "b"}, instructions="i", previous_response_id="resp_1"
    )
    frames = chunks(stream([*ANSWER, END], turn))
    for response in (frames[0]["response"], frames[-1]["response"], reply([END], turn)):
        assert response["tools"] == [{"type": "function", "name": "f", "odd": 1}]
        assert response["metadata"] == {"a": "b"}
        assert (response["instructions"], response["previous_response_id"]) == ("i", "resp_1")


def test_pictures_follow_the_text() -> None:
    events: list[Event] = [MediaReady("image", "https://a.b/c.png"), TextDelta("Here:"), END]
    text = "Here:\n\n![image](https://a.b/c.png)"
    assert reply(events)["output"][0]["content"][0]["text"] == text
    assert chunks(stream(events))[-1]["response"]["output"][0]["content"][0]["text"] == text


def test_an_error_has_openais_shape() -> None:
    body = msgspec.json.decode(write_error(errors.BadRequest("no", param="input"), "r"))
    assert body["error"]["param"] == "input"
    assert body["error"]["type"] == "invalid_request_error"
