"""The soak's callers see through every answer that is not what it says it is."""

import msgspec
import pytest

from tests.bench.client import REFUSED, Answer, Client
from tests.simulator.server import Simulator
from tests.soak.callers import Callers, Verdict, judge

TEXT = "w1.0 w1.1 w1.2"
DONE = b"data: [DONE]"


def frame(text: str) -> bytes:
    return b"data: " + msgspec.json.encode({"choices": [{"delta": {"content": text}}]})


def failure(code: str) -> bytes:
    return b"data: " + msgspec.json.encode({"error": {"message": "m", "code": code}})


def stream(*frames: bytes, error: str = "") -> Answer:
    answer = Answer(0.0)
    answer.status, answer.is_stream = 200, True
    answer.frames, answer.error = list(frames), error
    return answer


def whole(status: int, body: object, *, error: str = "") -> Answer:
    answer = Answer(0.0)
    answer.status, answer.body, answer.error = status, msgspec.json.encode(body), error
    return answer


def reply(text: str, reason: str = "stop") -> dict[str, object]:
    return {"choices": [{"message": {"content": text}, "finish_reason": reason}]}


STREAMS: dict[str, tuple[Answer, Verdict]] = {
    "all of it": (stream(frame("w1.0 "), frame("w1.1 w1.2"), DONE), "whole"),
    "told in band": (stream(frame("w1.0 "), failure("upstream_error")), "failed"),
    "cut by a kill": (stream(frame("w1.0 "), error="connection lost"), "broken"),
    "ended too early as if whole": (stream(frame("w1.0 "), DONE), "wrong"),
    "no end at all": (stream(frame(TEXT)), "wrong"),
    "doubled": (stream(frame(TEXT), frame(TEXT), DONE), "wrong"),
    "another's": (stream(frame("w2.0"), DONE), "wrong"),
    "another's, then cut": (stream(frame("w2.0"), error="connection lost"), "wrong"),
    "an error and a good end": (stream(frame(TEXT), failure("x"), DONE), "wrong"),
    "empty": (stream(DONE), "wrong"),
}
PLAIN: dict[str, tuple[Answer, Verdict]] = {
    "all of it": (whole(200, reply(TEXT)), "whole"),
    "a part": (whole(200, reply("w1.0")), "wrong"),
    "another's": (whole(200, reply("w2.0 w2.1")), "wrong"),
    "no proper reason": (whole(200, reply(TEXT, "length")), "wrong"),
    "busy": (whole(503, {"error": {"code": "no_account"}}), "refused"),
    "a refusal without our body": (whole(503, {"detail": "no"}), "wrong"),
    "our fault": (whole(500, {"error": {"code": "internal_error"}}), "wrong"),
    "nobody there": (whole(0, {}, error=REFUSED), "unreachable"),
    "cut by a kill": (whole(0, {}, error="connection lost"), "broken"),
}


@pytest.mark.parametrize("case", STREAMS)
def test_a_streamed_answer_is_judged_by_what_was_heard(case: str) -> None:
    answer, verdict = STREAMS[case]
    assert judge(answer, TEXT, streamed=True)[0] == verdict


@pytest.mark.parametrize("case", PLAIN)
def test_a_plain_answer_is_judged_by_what_was_heard(case: str) -> None:
    answer, verdict = PLAIN[case]
    assert judge(answer, TEXT, streamed=False)[0] == verdict


@pytest.mark.anyio
async def test_callers_that_hear_something_else_say_so() -> None:
    """The simulator's web API is no gateway: whatever it answers must not pass for a turn."""
    async with Simulator(accounts=1) as simulator:
        callers = Callers(simulator.url, key="sk-x", count=1, seed=1, leavers=0)
        outcome = await callers.turn()
        await callers.close()
    assert outcome.verdict == "wrong"
    assert callers.bad() == [outcome]


@pytest.mark.anyio
async def test_a_caller_who_leaves_takes_nobody_with_him() -> None:
    """2026-11-23: an answer that arrived while its caller left freed the connection for another
    caller, whose answer was then given up in the name of the first."""
    async with Simulator(accounts=1, canned=True) as simulator:
        client = Client(simulator.url)
        request = client.request("GET", "/_sim/config")
        assert not (await client.ask(request)).error
        connection = next(iter(client.connections))
        first = connection.ask(request)
        await first
        second = connection.ask(request)
        assert not connection.answers(first)
        assert connection.answers(second)
        await second
        await client.close()
