"""Responses in the background, whoever dies: each ends once and honestly, and is nobody's to read."""

import signal
import time
from collections.abc import Iterator

import openai
import psutil  # type: ignore[import-untyped]  # no stubs in the lock file
import pytest

from tests.fakes.background import ended, job_processes, open_client
from tests.fakes.chat import MODEL, directive
from tests.fakes.stack import Program, Stack, eventually

TAKEN_UP_SECONDS = 60.0
"""Contract 7.4: interrupted work goes on within this."""


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with open_client(stack) as client:
        yield client


def job_process_of(program: Program) -> psutil.Process:
    return next(
        child
        for child in psutil.Process(program.pid).children(recursive=True)
        if "job-process" in child.cmdline()
    )


def test_when_its_job_process_is_killed_it_is_taken_up_again(
    stack: Stack, client: openai.OpenAI
) -> None:
    prompt = directive(say="Whole at last.", frames=20, delay_ms=250)
    with job_processes(stack) as workers:
        response = client.responses.create(model=MODEL, input=prompt, background=True)
        eventually(lambda: stack.sim.open_streams() == 1, within_seconds=10)
        job_process_of(workers).kill()
        killed_at = time.monotonic()
        eventually(lambda: stack.sim.open_streams() == 0, within_seconds=5)
        assert client.responses.retrieve(response.id).status == "in_progress"
        eventually(lambda: stack.sim.open_streams() == 1, within_seconds=TAKEN_UP_SECONDS)
        assert time.monotonic() - killed_at < TAKEN_UP_SECONDS
        final = ended(client, response.id, within_seconds=30)
    assert (final.status, final.output_text) == ("completed", "Whole at last.")
    assert len(stack.sim.recorded("completions")) == 2


def test_when_job_processes_stop_another_one_takes_up_what_they_had(
    stack: Stack, client: openai.OpenAI
) -> None:
    """A stop gives what runs a moment; what takes longer is due again at once."""
    prompt = directive(say="x " * 200, frames=200, delay_ms=250)
    with job_processes(stack) as first:
        response = client.responses.create(model=MODEL, input=prompt, background=True)
        eventually(lambda: stack.sim.open_streams() == 1, within_seconds=10)
        first.signal(signal.SIGTERM)
        assert first.process.wait(30) == 0
    assert stack.sim.open_streams() == 0
    assert client.responses.retrieve(response.id).status == "in_progress"
    with job_processes(stack):
        eventually(lambda: stack.sim.open_streams() == 1, within_seconds=5)
        client.responses.cancel(response.id)


def test_what_was_put_down_while_no_job_process_ran_runs_when_one_does(
    stack: Stack, client: openai.OpenAI
) -> None:
    response = client.responses.create(model=MODEL, input=directive(say="x"), background=True)
    assert client.responses.retrieve(response.id).status == "queued"
    with job_processes(stack):
        assert ended(client, response.id).output_text == "x"


def test_one_whose_step_redis_has_lost_runs_when_it_is_asked_for(
    stack: Stack, client: openai.OpenAI
) -> None:
    """A Redis that died may have lost its last second."""
    response = client.responses.create(model=MODEL, input=directive(say="x"), background=True)
    stack.redis.command("DEL", "gw:{due}:steps", "gw:{due}:at")
    with job_processes(stack):
        assert ended(client, response.id).output_text == "x"


def test_nothing_of_a_conversation_can_be_read_in_redis_at_any_time(
    stack: Stack, client: openai.OpenAI
) -> None:
    """Jobs are given ids alone, and records are sealed."""
    prompt = "Mum is the word " + directive(say="Not a word", frames=10, delay_ms=200)
    response = client.responses.create(model=MODEL, input=prompt, background=True)
    assert f"answer-{response.id}".encode() in everything_in(stack)
    assert b"Mum is" not in everything_in(stack)
    with job_processes(stack):
        eventually(lambda: stack.sim.open_streams() == 1, within_seconds=10)
        assert b"Mum is" not in everything_in(stack)
        assert ended(client, response.id).output_text == "Not a word"
    assert b"Mum is" not in everything_in(stack)
    assert b"Not a word" not in everything_in(stack)


def everything_in(stack: Stack) -> bytes:
    """Every key with all it holds."""
    return stack.redis.command("EVAL", _EVERYTHING, "0")


_EVERYTHING = """
local all = {}
local read = {
  string = function(key) return {redis.call('GET', key)} end,
  hash = function(key) return redis.call('HGETALL', key) end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1) end,
}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = read[redis.call('TYPE', key).ok]
  all[#all + 1] = key .. ' ' .. (kind and table.concat(kind(key), ' ') or '')
end
return table.concat(all, ' ')
"""
