"""Responses that a job process runs, through the official SDK, strictly."""

from collections.abc import Iterator

import openai
import pytest

from tests.fakes.background import ended, job_processes, open_client
from tests.fakes.chat import MODEL, directive
from tests.fakes.stack import Program, Stack, eventually


@pytest.fixture(scope="module")
def background_stack() -> Iterator[Stack]:
    with Stack(environment={"ACCOUNT_CONCURRENCY": "2", "ACCOUNT_WAIT_SECONDS": "1"}) as stack:
        yield stack


@pytest.fixture
def stack(background_stack: Stack) -> Stack:
    background_stack.clear()
    return background_stack


@pytest.fixture(scope="module")
def workers(background_stack: Stack) -> Iterator[Program]:
    with job_processes(background_stack) as program:
        yield program


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with open_client(stack) as client:
        yield client


def test_it_is_queued_then_runs_then_is_there(
    stack: Stack, workers: Program, client: openai.OpenAI
) -> None:
    prompt = directive(say="Done in the back.", think="Hm.", frames=20, delay_ms=100)
    response = client.responses.create(model=MODEL, input=prompt, background=True)
    assert (response.status, response.background, response.output) == ("queued", True, [])
    eventually(
        lambda: client.responses.retrieve(response.id).status,
        within_seconds=10,
        until=lambda status: status == "in_progress",
    )
    final = ended(client, response.id)
    assert (final.status, final.output_text) == ("completed", "Done in the back.")
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.usage is not None
    assert final.created_at == response.created_at


def test_many_run_at_once_in_one_process(
    stack: Stack, workers: Program, client: openai.OpenAI
) -> None:
    """Three accounts with two slots each: six turns of two seconds take far less than twelve."""
    prompt = directive(say="x " * 10, frames=10, delay_ms=200)
    ids = [client.responses.create(model=MODEL, input=prompt, background=True).id for _ in range(6)]
    eventually(lambda: stack.sim.open_streams() == 6, within_seconds=10)
    assert {ended(client, one).status for one in ids} == {"completed"}


def test_one_waits_for_an_account_for_longer_than_a_turn_would(
    stack: Stack, workers: Program, client: openai.OpenAI
) -> None:
    slow = directive(say="x " * 10, frames=10, delay_ms=300)
    ids = [client.responses.create(model=MODEL, input=slow, background=True).id for _ in range(7)]
    finals = [ended(client, one, within_seconds=20) for one in ids]
    assert {final.status for final in finals} == {"completed"}


def test_calls_come_back_and_are_answered(
    stack: Stack, workers: Program, client: openai.OpenAI
) -> None:
    tools: list[openai.types.responses.FunctionToolParam] = [
        {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
    ]
    stack.sim.next(operation="completions", call="f", args={"a": 1})
    response = client.responses.create(model=MODEL, input="call f", tools=tools, background=True)
    [item] = ended(client, response.id).output
    assert item.type == "function_call"
    assert item.arguments == '{"a":1}'
    stack.sim.next(operation="completions", say="Thanks.")
    second = client.responses.create(
        model=MODEL,
        previous_response_id=response.id,
        input=[{"type": "function_call_output", "call_id": item.call_id, "output": "2"}],
        tools=tools,
    )
    assert second.output_text == "Thanks."


def test_one_that_has_not_ended_is_not_carried_on(workers: Program, client: openai.OpenAI) -> None:
    prompt = directive(say="x " * 10, frames=10, delay_ms=200)
    response = client.responses.create(model=MODEL, input=prompt, background=True)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="x", previous_response_id=response.id)
    assert caught.value.param == "previous_response_id"
    client.responses.cancel(response.id)


def test_a_turn_that_fails_says_so(stack: Stack, workers: Program, client: openai.OpenAI) -> None:
    refused = directive(fail="data_inspection_failed")
    cut = directive(say="a b c d", frames=4, cut_after=3)
    for prompt, code in ((refused, "invalid_prompt"), (cut, "server_error")):
        response = client.responses.create(model=MODEL, input=prompt, background=True)
        final = ended(client, response.id)
        assert final.status == "failed"
        assert final.error is not None
        assert final.error.code == code


def test_a_model_nobody_has_is_refused_at_once(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="no-such-model", input="x", background=True)


def test_a_cancelled_one_stops_at_the_upstream_within_two_seconds(
    stack: Stack, workers: Program, client: openai.OpenAI
) -> None:
    prompt = directive(say="x " * 100, frames=100, delay_ms=200)
    response = client.responses.create(model=MODEL, input=prompt, background=True)
    eventually(lambda: stack.sim.open_streams() == 1, within_seconds=10)
    cancelled = client.responses.cancel(response.id)
    assert cancelled.status == "cancelled"
    eventually(lambda: stack.sim.open_streams() == 0, within_seconds=2)
    assert client.responses.cancel(response.id).status == "cancelled"
    assert client.responses.retrieve(response.id).status == "cancelled"
    eventually(lambda: "step was ended by somebody else" in workers.logs(), within_seconds=5)


def test_a_deleted_one_stops_too(stack: Stack, workers: Program, client: openai.OpenAI) -> None:
    prompt = directive(say="x " * 100, frames=100, delay_ms=200)
    response = client.responses.create(model=MODEL, input=prompt, background=True)
    eventually(lambda: stack.sim.open_streams() == 1, within_seconds=10)
    client.responses.delete(response.id)
    eventually(lambda: stack.sim.open_streams() == 0, within_seconds=2)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_one_that_has_ended_is_cancelled_no_more(workers: Program, client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=directive(say="x"), background=True)
    assert ended(client, response.id).status == "completed"
    assert client.responses.cancel(response.id).status == "completed"


def test_its_events_are_streamed_when_it_has_ended_and_can_be_continued(
    workers: Program, client: openai.OpenAI
) -> None:
    prompt = directive(say="Done.", think="Hm.", frames=5, delay_ms=200)
    with client.responses.create(model=MODEL, input=prompt, background=True, stream=True) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert events[-1].type == "response.completed"
    response = events[-1].response
    assert response.output_text == "Done."
    with client.responses.retrieve(response.id, stream=True, starting_after=3) as stream:
        assert [e.to_dict() for e in stream] == [e.to_dict() for e in events[4:]]


def test_the_same_idempotency_key_puts_down_one(
    stack: Stack, workers: Program, client: openai.OpenAI
) -> None:
    ids = {
        client.responses.create(
            model=MODEL,
            input=directive(say="x"),
            background=True,
            extra_headers={"idempotency-key": "the same"},
        ).id
        for _ in range(3)
    }
    assert len(ids) == 1
    assert ended(client, ids.pop()).status == "completed"
    assert len(stack.sim.recorded("completions")) == 1
