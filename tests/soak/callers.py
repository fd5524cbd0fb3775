"""Callers that keep asking, know what they should hear, and judge what they do hear.

Every turn asks for a text of its own, so that a piece of another turn's answer, a lost piece or a
doubled one is seen. A turn ends in one of the verdicts below; `wrong` and `hung` break a promise.
"""

import asyncio
import itertools
import random
import re
import time
from collections import Counter
from typing import Literal

import msgspec

from tests.bench.client import REFUSED, Answer, Client

# Longest turn that is no hang: a wait for an account, three attempts without a first token, the
# answer itself, and a machine that is busy with other things.
HANG_SECONDS = 15 + 3 * 10 + 30

Verdict = Literal[
    "whole",  # the text, all of it, and a proper end
    "refused",  # a status of contract section 4 with its body
    "failed",  # told in band on a stream, after some right text
    "broken",  # the connection ended: its process was killed
    "unreachable",  # nobody listened
    "left",  # the caller went away
    "wrong",  # anything else: a 200 that hides a failure, another's text, a 500
    "hung",
]
BAD: tuple[Verdict, ...] = ("wrong", "hung")
ACCEPTED_STATUSES = {429, 502, 503, 504}


class Outcome(msgspec.Struct):
    """How one turn ended; moments are `time.monotonic()` seconds."""

    verdict: Verdict
    detail: str
    begun_at: float
    ended_at: float


class Callers:
    """So many at once, streamed and plain turns in turn; some leave in the middle."""

    def __init__(self, url: str, *, key: str, count: int, seed: int, leavers: float = 0.1) -> None:
        self.outcomes: list[Outcome] = []
        self._client = Client(url)
        self._key = key
        self._count = count
        self._chance = random.Random(seed)
        self._leavers = leavers
        self._numbers = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        self._going = False

    def begin(self) -> None:
        self._going = True
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._count)]

    async def end(self) -> None:
        """No new turns; returns when every turn has its verdict."""
        self._going = False
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        await self._client.close()

    def tally(self, since: int = 0) -> Counter[str]:
        return Counter(outcome.verdict for outcome in self.outcomes[since:])

    def bad(self, since: int = 0) -> list[Outcome]:
        return [outcome for outcome in self.outcomes[since:] if outcome.verdict in BAD]

    async def _call(self) -> None:
        while self._going:
            outcome = await self.turn()
            if outcome.verdict not in ("whole", "left"):
                await asyncio.sleep(0.05)  # an honest client backs off a little

    async def turn(self) -> Outcome:
        """One turn with its verdict."""
        number = next(self._numbers)
        streamed = number % 3 != 0
        text = " ".join(f"w{number}.{index}" for index in range(self._chance.randint(5, 30)))
        leaves = self._chance.random() < self._leavers
        patience = self._chance.uniform(0.0, 0.3) if leaves else HANG_SECONDS
        begun_at = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                answer = await self._client.ask(self._request(text, streamed=streamed))
            verdict, detail = judge(answer, text, streamed=streamed)
        except TimeoutError:
            verdict, detail = ("left", "") if leaves else ("hung", f"{HANG_SECONDS} s")
        outcome = Outcome(verdict, detail, begun_at, time.monotonic())
        self.outcomes.append(outcome)
        return outcome

    def _request(self, text: str, *, streamed: bool) -> bytes:
        said = msgspec.json.encode(text).decode()
        prompt = f"[[sim: say={said} frames={text.count(' ') + 1}]]"
        body = {
            "model": "qwen3.6-plus",
            "stream": streamed,
            "messages": [{"role": "user", "content": prompt}],
        }
        return self._client.request(
            "POST",
            "/v1/chat/completions",
            headers={"authorization": f"Bearer {self._key}"},
            body=msgspec.json.encode(body),
        )


def judge(answer: Answer, text: str, *, streamed: bool) -> tuple[Verdict, str]:
    """What an answer is worth to a caller who asked for `text`."""
    if answer.error == REFUSED:
        return "unreachable", ""
    if answer.status in (0, 200) and answer.error:
        if streamed and answer.frames and not text.startswith(_heard(answer)[0]):
            return "wrong", "another text before the connection broke"
        return "broken", answer.error
    if answer.status != 200:
        return _judge_refusal(answer)
    if not streamed:
        reply = msgspec.json.decode(answer.body)["choices"][0]
        right = reply["message"]["content"] == text and reply["finish_reason"] == "stop"
        return ("whole", "") if right else ("wrong", f"plain: {answer.body[:300]!r}")
    heard, error = _heard(answer)
    done = answer.frames[-1:] == [b"data: [DONE]"]
    if done and heard == text and not error:
        return "whole", ""
    if error and not done and text.startswith(heard):
        return "failed", error
    return "wrong", f"stream: {heard[:100]!r} for {text[:100]!r}, done={done}, error={error!r}"


def _judge_refusal(answer: Answer) -> tuple[Verdict, str]:
    code = re.search(rb'"code": ?"(\w+)"', answer.body)
    detail = f"{answer.status} {code[1].decode() if code else answer.body[:200]!r}"
    if answer.status in ACCEPTED_STATUSES and code and not answer.error:
        return "refused", detail
    return "wrong", f"{detail} {answer.error}"


def _heard(answer: Answer) -> tuple[str, str]:
    """The text of a stream so far, and the error it told, if any."""
    text, error = "", ""
    for frame in answer.frames:
        if frame == b"data: [DONE]":
            continue
        payload = msgspec.json.decode(frame.removeprefix(b"data:"))
        if "error" in payload:
            error = str(payload["error"].get("code") or payload["error"])
        for choice in payload.get("choices", []):
            text += choice["delta"].get("content") or ""
    return text, error
