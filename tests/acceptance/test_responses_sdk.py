"""The Responses API through the official OpenAI SDK, as strict as it can be, on two processes."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall

from tests.fakes.chat import MODEL, directive
from tests.fakes.stack import Stack

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
    "strict": False,
}
PATCH: Any = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch"'},
}


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{stack.url}/v1",
        api_key=stack.key,
        max_retries=0,
        timeout=20,
        _strict_response_validation=True,
    ) as client:
        yield client


def test_a_text_is_answered_whole(stack: Stack, client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="Hei", instructions="You are terse.")
    assert response.output_text.startswith("Hello! This is the upstream simulator")
    assert response.status == "completed"
    assert (response.model, response.instructions) == (MODEL, "You are terse.")
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    [prompt] = stack.sim.prompts()
    assert "You are terse." in prompt


def test_the_stream_accumulates_to_the_same(stack: Stack, client: openai.OpenAI) -> None:
    prompt = directive(say="Hello, world!", frames=4, think="Let me see.")
    with client.responses.stream(model=MODEL, input=prompt) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "Hello, world!"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [item.type for item in final.output] == ["reasoning", "message"]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == "Hello, world!"


def test_the_web_is_searched_by_the_upstream(stack: Stack, client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=MODEL,
        input=directive(say="Fjords.", search=2),
        tools=[{"type": "web_search_preview"}],
    )
    assert [item.type for item in response.output] == ["web_search_call", "message"]
    [request] = stack.sim.recorded("completions")
    assert request["body"]["messages"][0]["chat_type"] == "search"
    cited = response.output[-1].to_dict()["content"][0]["annotations"]  # type: ignore[index]
    assert [one["type"] for one in cited] == ["url_citation"] * 2
    for one in cited:
        assert response.output_text[one["start_index"] : one["end_index"]].endswith(
            f"]({one['url']})"
        )


def test_a_search_that_the_model_lacks_is_left_out_when_there_are_other_tools(
    stack: Stack, client: openai.OpenAI
) -> None:
    """Agents offer it to every model; `qwen3-coder-plus` has none."""
    search: Any = {"type": "web_search"}
    answer = client.responses.with_raw_response.create(
        model="qwen3-coder-plus", input=directive(say="x"), tools=[WEATHER, search]
    )
    assert answer.headers["x-gateway-ignored"] == "web_search"
    [request] = stack.sim.recorded("completions")
    assert request["body"]["messages"][0]["chat_type"] == "t2t"
    with pytest.raises(openai.BadRequestError, match="can't search"):
        client.responses.create(model="qwen3-coder-plus", input="x", tools=[search])


def test_max_output_tokens_leave_an_incomplete_response(client: openai.OpenAI) -> None:
    prompt = directive(say="one two three four five six seven", frames=7)
    response = client.responses.create(model=MODEL, input=prompt, max_output_tokens=2)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


# -- tools


def weather_call(response: Response) -> ResponseFunctionToolCall:
    [call] = [item for item in response.output if item.type == "function_call"]
    assert isinstance(call, ResponseFunctionToolCall)
    return call


def test_a_loop_of_tools_with_the_whole_history_each_time(
    stack: Stack, client: openai.OpenAI
) -> None:
    stack.sim.next(
        operation="completions", say="I look. ", call="get_weather", args={"city": "Oslo"}
    )
    history: Any = [{"role": "user", "content": "Weather in Oslo?"}]
    first = client.responses.create(model=MODEL, input=history, tools=[WEATHER], store=False)
    call = weather_call(first)
    assert (call.name, call.arguments) == ("get_weather", '{"city":"Oslo"}')
    history += [item.to_dict() for item in first.output]
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."})
    stack.sim.next(operation="completions", say="It is sunny.")
    second = client.responses.create(model=MODEL, input=history, tools=[WEATHER], store=False)
    assert second.output_text == "It is sunny."
    assert "Sunny." in stack.sim.prompts()[1]
    assert call.call_id in stack.sim.prompts()[1]


def test_a_loop_of_tools_by_the_id_of_the_response_before(
    stack: Stack, client: openai.OpenAI
) -> None:
    stack.sim.next(operation="completions", call="get_weather", args={"city": "Oslo"})
    first = client.responses.create(model=MODEL, input="Weather in Oslo?", tools=[WEATHER])
    call = weather_call(first)
    stack.sim.next(operation="completions", say="It is sunny.")
    second = client.responses.create(
        model=MODEL,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}],
        tools=[WEATHER],
    )
    assert second.output_text == "It is sunny."
    prompt = stack.sim.prompts()[1]
    assert (
        prompt.index("Weather in Oslo?") < prompt.index('{"city":"Oslo"}') < prompt.index("Sunny.")
    )


def test_calls_are_streamed_as_they_are_written(stack: Stack, client: openai.OpenAI) -> None:
    stack.sim.next(
        operation="completions", call="get_weather", args={"city": "Oslo" * 20}, frames=40
    )
    with client.responses.stream(model=MODEL, input="Weather?", tools=[WEATHER]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert len(deltas) > 5
    assert "".join(deltas) == weather_call(final).arguments == f'{{"city":"{"Oslo" * 20}"}}'


def test_a_custom_tool_gets_free_text(stack: Stack, client: openai.OpenAI) -> None:
    patch = '*** Begin Patch\n*** Add File: a.txt\n+say "hi" \\o/\n*** End Patch'
    said = (
        "<tool_call>\n<function=apply_patch>\n<parameter=input>\n"
        f"{patch}\n</parameter>\n</function>\n</tool_call>"
    )
    stack.sim.next(operation="completions", say=said, frames=20)
    with client.responses.stream(model=MODEL, input="Patch it.", tools=[PATCH]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    [item] = final.output
    assert item.type == "custom_tool_call"
    assert (item.name, item.input) == ("apply_patch", patch)
    deltas = [e.delta for e in events if e.type == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == patch
    assert 'start: "*** Begin Patch"' in stack.sim.prompts()[0]


def test_a_format_is_kept_to(stack: Stack, client: openai.OpenAI) -> None:
    stack.sim.next(operation="completions", say='{"city":"Oslo"}')
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    response = client.responses.create(
        model=MODEL,
        input="Where?",
        text={"format": {"type": "json_schema", "name": "Place", "schema": schema, "strict": True}},
    )
    assert response.output_text == '{"city":"Oslo"}'


# -- what goes on over processes


def test_what_was_said_is_known_on_whatever_process(stack: Stack, client: openai.OpenAI) -> None:
    """Each request is a new connection: the kernel hands them to both processes."""
    previous = None
    for number in range(8):
        with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key, max_retries=0) as one:
            stack.sim.next(operation="completions", say=f"answer {number}")
            response = one.responses.create(
                model=MODEL,
                input=f"question {number}",
                instructions=f"instruction {number}",
                previous_response_id=previous,
            )
            previous = response.id
    last = stack.sim.prompts()[-1]
    places = [last.index(f"question {n}") for n in range(8)]
    places += [last.index(f"answer {n}") for n in range(7)]
    assert sorted(places) == [places[i // 2 + 8 * (i % 2)] for i in range(15)]
    assert "instruction 7" in last
    assert "instruction 6" not in last


def test_a_response_is_shown_again_as_it_was_given(stack: Stack, client: openai.OpenAI) -> None:
    prompt = directive(say="Hello, world!", think="Let me see.", frames=4)
    given = client.responses.create(model=MODEL, input=prompt, metadata={"a": "b"}, tools=[WEATHER])
    assert client.responses.retrieve(given.id).to_dict() == given.to_dict()


def test_a_streamed_response_is_kept_before_its_client_hears_of_the_end(
    client: openai.OpenAI,
) -> None:
    for _ in range(5):
        for event in client.responses.create(model=MODEL, input=directive(say="x"), stream=True):
            if event.type == "response.completed":
                assert client.responses.retrieve(event.response.id).output_text == "x"


def test_a_deleted_response_is_gone(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=directive(say="x"))
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model=MODEL, input="x", previous_response_id=response.id)
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"


def test_what_was_not_to_be_stored_is_not(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=directive(say="x"), store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_input_items_are_listed_in_pages_and_both_orders(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input=directive(say="one"))
    second = client.responses.create(
        model=MODEL,
        previous_response_id=first.id,
        input=[
            {"role": "user", "content": "a"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "result"},
            {"role": "user", "content": directive(say="two")},
        ],
    )
    newest = list(client.responses.input_items.list(second.id, limit=2))
    oldest = list(client.responses.input_items.list(second.id, limit=2, order="asc"))
    assert [item.id for item in newest] == [item.id for item in reversed(oldest)]
    assert [item.type for item in oldest] == [
        "message", "message", "message", "function_call", "function_call_output", "message",
    ]  # fmt: skip
    page = client.responses.input_items.list(second.id, limit=2, order="asc")
    assert page.has_next_page()
    assert len(page.data) == 2


def test_an_item_is_referred_to_by_its_id(stack: Stack, client: openai.OpenAI) -> None:
    stack.sim.next(operation="completions", call="get_weather", args={"city": "Oslo"})
    first = client.responses.create(model=MODEL, input="Weather?", tools=[WEATHER])
    call = weather_call(first)
    client.responses.create(
        model=MODEL,
        input=[
            {"role": "user", "content": "Weather?"},
            {"type": "item_reference", "id": str(call.id)},
            {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."},
        ],
        tools=[WEATHER],
    )
    assert '{"city":"Oslo"}' in stack.sim.prompts()[1]
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(
            model=MODEL, input=[{"type": "item_reference", "id": "fc_" + "0" * 24 + "_0"}]
        )
    assert caught.value.param == "input[0].id"


# -- whose it is


def test_nobody_elses_key_reads_carries_on_cancels_or_deletes_it(
    stack: Stack, client: openai.OpenAI
) -> None:
    response = client.responses.create(model=MODEL, input=directive(say="x"))
    other_key = stack.environment["API_KEY"].split(",")[1]
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=other_key, max_retries=0) as other:
        for attempt in (
            lambda: other.responses.retrieve(response.id),
            lambda: other.responses.retrieve(response.id, stream=True),
            lambda: other.responses.delete(response.id),
            lambda: other.responses.cancel(response.id),
            lambda: other.responses.input_items.list(response.id),
            lambda: other.responses.create(
                model=MODEL, input="x", previous_response_id=response.id
            ),
            lambda: other.responses.create(
                model=MODEL,
                input=[{"type": "item_reference", "id": str(response.output[0].id)}],
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                attempt()
    assert client.responses.retrieve(response.id).output_text == "x"


# -- failures


def test_a_stream_that_breaks_ends_with_response_failed(client: openai.OpenAI) -> None:
    prompt = directive(say="a b c d", frames=4, cut_after=3)
    events = list(client.responses.create(model=MODEL, input=prompt, stream=True))
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.status == "failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
    kept = client.responses.retrieve(last.response.id)
    assert kept.status == "failed"
    assert kept.error == last.response.error


def test_half_a_call_is_not_carried_on(stack: Stack, client: openai.OpenAI) -> None:
    stack.sim.next(
        operation="completions",
        say="I look. ",
        call="get_weather",
        args={"city": "Oslo" * 30},
        frames=30,
        cut_after=25,
    )
    events = list(
        client.responses.create(model=MODEL, input="Weather?", tools=[WEATHER], stream=True)
    )
    last = events[-1]
    assert last.type == "response.failed"
    assert [item.type for item in last.response.output] == ["message", "function_call"]
    client.responses.create(model=MODEL, input="And?", previous_response_id=last.response.id)
    prompt = stack.sim.prompts()[-1]
    assert "I look." in prompt
    assert "OsloOslo" not in prompt


def test_a_refusal_before_the_first_event_has_its_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(
            model=MODEL, input=directive(fail="data_inspection_failed"), stream=True
        )
    assert caught.value.code == "content_filter"


def test_only_what_runs_in_the_background_is_cancelled(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=directive(say="x"))
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(response.id)


def test_a_response_in_the_background_needs_to_be_stored(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="x", background=True, store=False)
    assert caught.value.param == "background"
