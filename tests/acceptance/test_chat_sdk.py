"""The official OpenAI SDK, as strict as it can be, against two gateway processes."""

import asyncio
import re
from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tests.fakes.chat import MODEL, directive
from tests.fakes.stack import Stack

Messages = list[ChatCompletionMessageParam]

CONVERSATION: Messages = [
    {"role": "system", "content": "You are terse."},
    {"role": "developer", "content": [{"type": "text", "text": "Speak Norwegian."}]},
    {"role": "user", "content": "Hei"},
    {"role": "assistant", "content": "Hallo!"},
    {"role": "user", "content": [{"type": "text", "text": "Hvem er du?"}]},
]


@pytest.fixture
async def async_client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1",
        api_key=stack.key,
        max_retries=0,
        timeout=20,
        _strict_response_validation=True,
    ) as client:
        yield client


def test_a_conversation_is_answered_whole(stack: Stack, client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=CONVERSATION)
    [choice] = reply.choices
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert (choice.message.content or "").startswith("Hello! This is the upstream simulator")
    assert reply.id.startswith("chatcmpl-")
    assert (reply.object, reply.model) == ("chat.completion", MODEL)
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.prompt_tokens > 0
    [prompt] = stack.sim.prompts()
    places = [prompt.index(text) for text in ("terse", "Norwegian", "Hei", "Hallo!", "Hvem er du?")]
    assert places == sorted(places)


def test_a_conversation_is_answered_as_a_stream(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=CONVERSATION, stream=True))
    assert len({chunk.id for chunk in chunks}) == 1
    assert {(chunk.model, chunk.object) for chunk in chunks} == {(MODEL, "chat.completion.chunk")}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in chunks), "nobody asked for usage"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"
    assert text_of(chunks).startswith("Hello! This is the upstream simulator")


def test_stream_and_whole_say_the_same(client: openai.OpenAI) -> None:
    prompt = directive(say='Bokmål, 漢字, 🙂 and\n\n"quotes" \u2028 \\ </s>', frames=9, cut=3)
    messages: Messages = [{"role": "user", "content": prompt}]
    whole = client.chat.completions.create(model=MODEL, messages=messages)
    stream = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
    assert whole.choices[0].message.content == text_of(list(stream))
    assert whole.choices[0].message.content == 'Bokmål, 漢字, 🙂 and\n\n"quotes" \u2028 \\ </s>'


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for(client: openai.OpenAI) -> None:
    messages: Messages = [{"role": "user", "content": "hi"}]
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens > 0
    assert chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_the_sdk_accumulates_our_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="Qwen3.6-Plus-thinking", messages=[{"role": "user", "content": "hi"}]
    ) as events:
        for _ in events:
            pass
        reply = events.get_final_completion()
    assert (reply.choices[0].message.content or "").startswith("Hello!")
    assert reply.choices[0].message.model_extra
    assert reply.choices[0].message.model_extra["reasoning_content"].startswith("The caller wrote")


def test_errors_become_the_sdks_own_classes(stack: Stack, client: openai.OpenAI) -> None:
    messages: Messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4o", messages=messages)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=MODEL, messages=messages, n=2)
    assert wrong.value.param == "n"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").models.list()
    stack.sim.next(operation="completions", fail="RateLimited", times=0)
    with pytest.raises(openai.RateLimitError) as spent:
        client.chat.completions.create(model=MODEL, messages=messages)
    assert spent.value.code == "accounts_exhausted"


def test_a_failure_in_band_becomes_an_exception_of_the_sdk(client: openai.OpenAI) -> None:
    prompt = directive(frames=6, fail="internal_error", after=4)
    messages: Messages = [{"role": "user", "content": prompt}]
    stream = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
    seen: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APIError) as failure:
        seen.extend(stream)
    assert failure.value.code == "upstream_error"


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert MODEL in models
    assert client.models.retrieve(MODEL) == models[MODEL]


@pytest.mark.anyio
async def test_many_conversations_at_once_over_both_processes(
    stack: Stack, async_client: openai.AsyncOpenAI
) -> None:
    """Each of 24 callers gets his own answer; more than the pool's six slots, so some wait."""

    async def whole(number: int) -> str:
        prompt = f"caller {number} {directive(say=f'answer {number}', delay_ms=3)}"
        messages: Messages = [{"role": "user", "content": prompt}]
        reply = await async_client.chat.completions.create(model=MODEL, messages=messages)
        return reply.choices[0].message.content or ""

    async def streamed(number: int) -> str:
        prompt = f"caller {number} {directive(say=f'answer {number}', cut=1)}"
        messages: Messages = [{"role": "user", "content": prompt}]
        stream = await async_client.chat.completions.create(
            model=MODEL, messages=messages, stream=True
        )
        return text_of([chunk async for chunk in stream])

    asked = [(streamed if number % 2 else whole)(number) for number in range(24)]
    assert await asyncio.gather(*asked) == [f"answer {number}" for number in range(24)]
    lines = [line for line in stack.logs().splitlines() if "route=/v1/chat/completions" in line]
    served = {int(found[1]) for line in lines if (found := re.search(r" pid=(\d+) ", line))}
    assert served == set(stack.gateway_pids())
    assert max(stack.sim.stats()["streams"]["max_open_by_account"].values()) <= 2


@pytest.mark.anyio
async def test_a_conversation_goes_on_turn_by_turn(
    stack: Stack, async_client: openai.AsyncOpenAI
) -> None:
    stack.sim.script(
        "talk", {"say": "Oslo."}, {"say": "About 700,000."}, {"say": "You're welcome."}
    )
    messages: Messages = []
    for question in (f"Capital? {directive(script='talk')}", "How many live there?", "Thanks!"):
        messages.append({"role": "user", "content": question})
        reply = await async_client.chat.completions.create(model=MODEL, messages=messages)
        messages.append({"role": "assistant", "content": reply.choices[0].message.content})
    assert [message["content"] for message in messages if message["role"] == "assistant"] == [
        "Oslo.", "About 700,000.", "You're welcome.",
    ]  # fmt: skip
    assert "About 700,000." in stack.sim.prompts()[-1]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
