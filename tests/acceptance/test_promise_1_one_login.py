"""Promise 1: one login per account however many processes ask at once; a stale holder's late
write never wins."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from shared.store import keys
from tests.fakes.caller import ask, calling, soon
from tests.fakes.stack import Stack

ACCOUNTS = 5


@pytest.fixture(scope="module")
def two_gateways() -> Iterator[Stack]:
    environment = {"ACCOUNT_CONCURRENCY": "40"}
    with Stack(environment=environment, accounts=ACCOUNTS) as stack:
        stack.add_gateway()
        yield stack


def tokens_used(stack: Stack) -> set[str]:
    """The ends of the access tokens that completions came with since the last `clear`."""
    return {one["headers"]["authorization"][-6:] for one in stack.sim.recorded("completions")}


@pytest.mark.anyio
async def test_a_hundred_first_requests_at_two_gateways_log_each_account_in_once(
    two_gateways: Stack,
) -> None:
    stack = two_gateways
    stack.clear()
    assert stack.sim.stats()["logins"] == {}
    stack.sim.config(latency_ms={"signin": 300})  # long enough that all of them ask meanwhile
    urls = [gateway.url for gateway in stack.gateways]

    calls = await asyncio.gather(*[ask(urls[n % 2], stack.key, f"first {n}") for n in range(100)])

    assert [call.status for call in calls] == [200] * 100
    assert stack.sim.stats()["logins"] == dict.fromkeys(stack.emails, 1)
    assert len({one["email"] for one in stack.sim.recorded("completions")}) == ACCOUNTS


@pytest.mark.anyio
async def test_a_hundred_requests_whose_tokens_were_dropped_renew_each_of_them_once(
    two_gateways: Stack,
) -> None:
    stack = two_gateways
    stack.clear()
    before = stack.sim.stats()["logins"]
    assert (await ask(stack.url, stack.key)).whole  # at least one account has a token
    stack.sim.config(latency_ms={"signin": 300})
    stack.sim.revoke()
    urls = [gateway.url for gateway in stack.gateways]

    calls = await asyncio.gather(*[ask(urls[n % 2], stack.key, f"again {n}") for n in range(100)])

    assert [call.status for call in calls] == [200] * 100
    after = stack.sim.stats()["logins"]
    assert {email: after[email] - before.get(email, 0) for email in after} == dict.fromkeys(
        stack.emails, 1
    )


@pytest.mark.anyio
async def test_a_login_that_was_frozen_past_its_time_does_not_overwrite_the_newer_token() -> None:
    """A claims and signs in · A is frozen · its claim lapses · B signs in and stores its token ·
    A wakes, reads its answer and stores: refused, because its fence is lower."""
    one = {"WORKERS": "1", "LEASE_TTL_SECONDS": "60"}
    with Stack(environment=one, accounts=1) as stack:
        second = stack.add_gateway()
        email, [frozen] = stack.emails[0], stack.gateway.pids()
        stack.sim.next(operation="signin", latency_ms=300)
        async with calling(stack.url, stack.key, "through the frozen one") as late:
            await soon(lambda: stack.sim.recorded("signin"), within_seconds=5)
            os.kill(frozen, signal.SIGSTOP)
            try:
                await soon(lambda: stack.sim.stats()["logins"], within_seconds=5)
                # The claim's 30 seconds, made short; Redis ends it itself.
                assert stack.redis.command("PEXPIRE", keys.login(email), "1") == b":1\r\n"
                assert (await ask(second.url, stack.key, "meanwhile")).whole
                [newer] = tokens_used(stack)
            finally:
                os.kill(frozen, signal.SIGCONT)
            await late.end()
        assert late.whole  # its own token is good: the caller need not suffer
        stack.sim.clear()

        for url in (stack.url, second.url) * 2:
            assert (await ask(url, stack.key, "afterwards")).whole

        assert tokens_used(stack) == {newer}
        assert stack.sim.stats()["logins"] == {email: 2}  # and nobody signed in again
