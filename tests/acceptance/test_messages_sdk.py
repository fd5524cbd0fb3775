"""The official Anthropic SDK, as strict as it can be, against two gateway processes."""

from collections.abc import AsyncIterator

import anthropic
import pydantic
import pytest
from anthropic.types import Message, MessageParam, TextBlock

from tests.fakes.chat import MODEL, directive
from tests.fakes.stack import Stack

CONVERSATION: list[MessageParam] = [
    {"role": "user", "content": "Hei"},
    {"role": "assistant", "content": "Hallo!"},
    {"role": "user", "content": [{"type": "text", "text": "Hvem er du?"}]},
]
THINKS = "qwen3.5-plus"


@pytest.fixture
def client(anthropic_client: anthropic.Anthropic) -> anthropic.Anthropic:
    return anthropic_client


@pytest.fixture
async def async_client(stack: Stack) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=stack.url,
        auth_token=stack.key,
        max_retries=0,
        timeout=20,
        _strict_response_validation=True,
    ) as client:
        yield client


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


def say(prompt: str) -> list[MessageParam]:
    return [{"role": "user", "content": prompt}]


def test_a_conversation_is_answered_whole(stack: Stack, client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model=MODEL, max_tokens=500, system="You are terse.", messages=CONVERSATION
    )
    assert message.id.startswith("msg_")
    assert (message.role, message.type, message.model) == ("assistant", "message", MODEL)
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert [block.type for block in message.content] == ["text"]
    assert text_of(message).startswith("Hello! This is the upstream simulator")
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0
    assert message._request_id
    [prompt] = stack.sim.prompts()
    places = [prompt.index(text) for text in ("terse", "Hei", "Hallo!", "Hvem er du?")]
    assert places == sorted(places)


@pytest.mark.anyio
async def test_a_stream_accumulates_to_the_whole_message(
    async_client: anthropic.AsyncAnthropic,
) -> None:
    prompt = directive(say='Bokmål, 漢字, 🙂 and\n\n"quotes" \u2028 \\ </s>', frames=9, cut=3)
    whole = await async_client.messages.create(model=MODEL, max_tokens=500, messages=say(prompt))
    async with async_client.messages.stream(
        model=MODEL, max_tokens=500, messages=say(prompt)
    ) as stream:
        pieces = [text async for text in stream.text_stream]
        streamed = await stream.get_final_message()
    assert len(pieces) > 3
    assert "".join(pieces) == text_of(whole) == text_of(streamed)
    assert (streamed.stop_reason, streamed.usage) == (whole.stop_reason, whole.usage)


def test_thinking_comes_in_signed_blocks_and_is_taken_back(
    stack: Stack, client: anthropic.Anthropic
) -> None:
    prompt = directive(think="First this, then that.", say="So it is.")
    with client.messages.stream(
        model=THINKS,
        max_tokens=3000,
        thinking={"type": "enabled", "budget_tokens": 1024},
        messages=say(prompt),
    ) as stream:
        message = stream.get_final_message()
    thought, text = message.content
    assert thought.type == "thinking"
    assert thought.thinking == "First this, then that."
    assert thought.signature
    assert text.type == "text"
    [asked] = stack.sim.recorded("completions")
    features = asked["body"]["messages"][0]["feature_config"]
    assert (features["thinking_enabled"], features["thinking_budget"]) == (True, 1024)

    history: list[MessageParam] = [
        *say("[[sim: off]]"),
        {"role": "assistant", "content": [thought, text]},
        *say("And now?"),
    ]
    again = client.messages.create(model=THINKS, max_tokens=500, messages=history)
    assert again.stop_reason == "end_turn"
    assert "First this" not in stack.sim.prompts()[-1], "old reasoning isn't read again"


def test_who_does_not_ask_for_thinking_gets_none(stack: Stack, client: anthropic.Anthropic) -> None:
    for asked in (anthropic.omit, {"type": "disabled"}):
        message = client.messages.create(
            model=THINKS,
            max_tokens=500,
            thinking=asked,  # type: ignore[arg-type]  # a dict is what it takes
            messages=say(directive(think=3, say="So.")),
        )
        assert [block.type for block in message.content] == ["text"]
    for sent in stack.sim.recorded("completions"):
        assert sent["body"]["messages"][0]["feature_config"]["thinking_enabled"] is False


def test_adaptive_thinking_and_a_thinking_variant_show_it(client: anthropic.Anthropic) -> None:
    prompt = say(directive(think="Hm.", say="So."))
    adaptive = client.messages.create(
        model=THINKS, max_tokens=500, thinking={"type": "adaptive"}, messages=prompt
    )
    variant = client.messages.create(model=f"{THINKS}-thinking", max_tokens=500, messages=prompt)
    for message in (adaptive, variant):
        assert [block.type for block in message.content] == ["thinking", "text"]


def test_a_stop_sequence_ends_it_and_is_named(client: anthropic.Anthropic) -> None:
    prompt = say(directive(say="one two STOP three", frames=6))
    for stream in (False, True):
        if stream:
            with client.messages.stream(
                model=MODEL, max_tokens=500, stop_sequences=["STOP"], messages=prompt
            ) as events:
                message: Message = events.get_final_message()
        else:
            message = client.messages.create(
                model=MODEL, max_tokens=500, stop_sequences=["STOP"], messages=prompt
            )
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "STOP")
        assert text_of(message) == "one two "


def test_max_tokens_are_kept(client: anthropic.Anthropic) -> None:
    prompt = say(directive(say="one two three four five six seven eight", frames=8))
    message = client.messages.create(model=MODEL, max_tokens=3, messages=prompt)
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 3
    assert text_of(message) == "one two three"


def test_a_web_search_is_told_with_its_results_and_cited(
    stack: Stack, client: anthropic.Anthropic
) -> None:
    prompt = '[[sim: say="Fjords are inlets [[2]]." search=3]]'
    with client.messages.stream(
        model=MODEL,
        max_tokens=500,
        tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}],
        messages=say(prompt),
    ) as stream:
        message = stream.get_final_message()
    use, result, text = message.content
    assert use.type == "server_tool_use"
    assert set(use.input) == {"query"}
    assert result.type == "web_search_tool_result"
    assert result.tool_use_id == use.id
    assert isinstance(result.content, list)
    assert [hit.type for hit in result.content] == ["web_search_result"] * 3
    assert text.type == "text"
    assert text.text == "Fjords are inlets [[2]]."
    [cited] = text.citations or []
    assert cited.type == "web_search_result_location"
    assert cited.url == result.content[1].url
    assert message.usage.server_tool_use is not None
    assert message.usage.server_tool_use.web_search_requests == 1
    [sent] = stack.sim.recorded("completions")
    assert sent["body"]["messages"][0]["chat_type"] == "search"

    history: list[MessageParam] = [
        *say("[[sim: off]] fjords?"),
        {"role": "assistant", "content": message.content},
        *say("Where is the second from?"),
    ]
    again = client.messages.create(model=MODEL, max_tokens=500, messages=history)
    assert again.stop_reason == "end_turn"
    assert result.content[1].url in stack.sim.prompts()[-1]


def test_who_names_claude_and_only_searches_gets_a_model_that_can(
    stack: Stack, client: anthropic.Anthropic
) -> None:
    """As Claude Code searches; the model that stands for Claude's can't."""
    answer = client.messages.with_raw_response.create(
        model="claude-opus-5",
        max_tokens=500,
        tools=[{"type": "web_search_20250305", "name": "web_search"}],
        messages=say("Perform a web search for the query: fjords"),
    )
    kinds = [block.type for block in answer.parse().content]
    assert kinds == ["server_tool_use", "web_search_tool_result", "text"]
    assert answer.headers["x-gateway-model"] == "qwen3.6-plus"
    with pytest.raises(anthropic.BadRequestError, match="can't search the web"):
        client.messages.create(
            model="qwen3-coder-plus",
            max_tokens=500,
            tools=[{"type": "web_search_20250305", "name": "web_search"}],
            messages=say("hi"),
        )


def test_a_prefilled_answer_goes_on(stack: Stack, client: anthropic.Anthropic) -> None:
    for written in ('{"a": 1}', '"a": 1}'):
        message = client.messages.create(
            model=MODEL,
            max_tokens=500,
            messages=[*say(directive(say=written)), {"role": "assistant", "content": "{"}],
        )
        assert text_of(message) == '"a": 1}'


class Sum(pydantic.BaseModel):
    sum: int


def test_an_answer_in_a_schema_is_parsed(stack: Stack, client: anthropic.Anthropic) -> None:
    stack.sim.next(
        {"operation": "completions", "say": "It is three."},
        {"operation": "completions", "say": '{"sum": 3}'},
    )
    message = client.messages.parse(
        model=MODEL, max_tokens=500, messages=say("1 + 2?"), output_format=Sum
    )
    assert message.parsed_output == Sum(sum=3)
    assert all('"sum"' in prompt for prompt in stack.sim.prompts())


def test_models_of_claude_are_qwens(stack: Stack, client: anthropic.Anthropic) -> None:
    for name in ("claude-opus-5", "claude-haiku-20290101", "claude-sonnet-4-5[1m]"):
        answer = client.messages.with_raw_response.create(
            model=name, max_tokens=500, messages=say("hi")
        )
        assert answer.headers["x-gateway-model"] == "qwen3-coder-plus"
        assert answer.parse().model == name


# -- errors, as the SDK's classes


def test_errors_are_the_sdks_own(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.messages.create(model="no-such-model", max_tokens=9, messages=say("hi"))
    assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    assert unknown.value.request_id == unknown.value.body["request_id"]  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError, match="image isn't supported yet"):
        client.messages.create(
            model=MODEL,
            max_tokens=9,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "url", "url": "https://e.org/x.png"}}
                    ],
                }
            ],
        )
    with pytest.raises(anthropic.AuthenticationError):
        client.with_options(api_key="sk-wrong").messages.create(
            model=MODEL, max_tokens=9, messages=say("hi")
        )


def test_a_stream_that_breaks_raises_and_keeps_what_was_said(client: anthropic.Anthropic) -> None:
    prompt = say(directive(say="one two three", frames=3, cut_after=3))
    heard: list[str] = []
    with (
        client.messages.stream(model=MODEL, max_tokens=500, messages=prompt) as stream,
        pytest.raises(anthropic.APIStatusError) as broken,
    ):
        heard += stream.text_stream
    assert broken.value.body["error"]["type"] == "api_error"  # type: ignore[index]


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=CONVERSATION, system="Terse.")
    assert counted.input_tokens > 10
