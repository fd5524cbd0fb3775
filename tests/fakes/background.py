"""Responses in the background: job processes beside a stack, and waiting for an end."""

import contextlib
import time
from collections.abc import Iterator

import openai
from openai.types.responses import Response

from tests.fakes.stack import Program, Stack, eventually


@contextlib.contextmanager
def job_processes(stack: Stack) -> Iterator[Program]:
    """`python -m workers` over the stack's Redis and simulator."""
    log = stack.folder / f"workers-{time.monotonic_ns()}.log"
    program = Program("-m", "workers", environ=stack.environment, log=log)
    try:
        eventually(lambda: "job process ready" in program.logs(), within_seconds=20)
        yield program
    finally:
        program.stop(within_seconds=30)


def open_client(stack: Stack) -> openai.OpenAI:
    """The SDK as strict as it can be."""
    return openai.OpenAI(
        base_url=f"{stack.url}/v1",
        api_key=stack.key,
        max_retries=0,
        timeout=20,
        _strict_response_validation=True,
    )


def ended(client: openai.OpenAI, response_id: str, *, within_seconds: float = 15) -> Response:
    return eventually(
        lambda: client.responses.retrieve(response_id),
        within_seconds=within_seconds,
        until=lambda response: response.status not in ("queued", "in_progress"),
    )
