"""The control route, the queue, scripts of several turns, and what is counted."""

from typing import Any

import pytest

from tests.integration.simulator.raw import ask, credentials, sign_in, turn
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

EMAIL = "demo1@example.com"


async def control(sim: Simulator, path: str, body: Any = None) -> Any:
    reply = await ask(sim, "GET" if body is None else "POST", f"/_sim/{path}", body)
    assert reply.status == 200, reply.body
    return reply.json()


async def test_actions_are_taken_in_order(sim: Simulator) -> None:
    queue = [{"operation": "completions", "say": "one"}, {"operation": "completions", "say": "two"}]
    assert await control(sim, "next", queue) == {"queued": 2}
    assert [(await turn(sim)).text() for _ in range(2)] == ["one", "two"]
    assert (await turn(sim)).text().startswith("Hello!")


async def test_an_action_may_ask_for_text_in_the_body(sim: Simulator) -> None:
    await control(sim, "next", {"match": "needle", "say": "found", "times": 0})
    assert (await turn(sim, "hay")).text().startswith("Hello!")
    assert (await turn(sim, "a needle")).text() == "found"
    assert (await turn(sim, "the needle")).text() == "found"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("next", {"bogus": 1}),
        ("next", {"frames": "many"}),
        ("next", {"style": "purple"}),
        ("config", {"bogus": 1}),
        ("config", {"signin_v1": "other"}),
        ("accounts", {"password": "x"}),
        ("accounts", {"email": EMAIL, "bogus": 1}),
        ("scripts", {"name": "x"}),
    ],
)
async def test_a_wrong_control_request_says_why(
    sim: Simulator, path: str, body: dict[str, Any]
) -> None:
    reply = await ask(sim, "POST", f"/_sim/{path}", body)
    assert reply.status == 400
    assert reply.json()["error"]
    assert (await ask(sim, "GET", "/_sim/other")).status == 404


async def test_a_script_gives_one_step_per_request_and_repeats_the_last(sim: Simulator) -> None:
    """For agents that loop: call a tool, read its result, answer."""
    steps = [{"call": "get_weather", "args": {"city": "Oslo"}}, {"say": "Sunny."}]
    await control(sim, "scripts", {"name": "weather", "steps": steps})
    prompt = "Weather? [[sim: script=weather]]"
    first = (await turn(sim, prompt)).text()
    assert first.startswith("<tool_call>\n")
    assert first.endswith('{"city":"Oslo"}}\n</tool_call>')
    assert [(await turn(sim, prompt)).text() for _ in range(2)] == ["Sunny.", "Sunny."]


async def test_a_queued_action_may_name_a_script(sim: Simulator) -> None:
    sim.script("two", {"say": "a"}, {"say": "b"})
    sim.next(operation="completions", script="two", times=0)
    assert [(await turn(sim)).text() for _ in range(2)] == ["a", "b"]


async def test_accounts_are_added_changed_and_removed(sim: Simulator) -> None:
    added = {"email": "new@example.com", "password": "p", "quota": {"t2v": 1}}
    await control(sim, "accounts", [added, {"email": EMAIL, "state": "pending"}])
    listed = {one["email"]: one for one in (await control(sim, "accounts"))["data"]}
    assert listed["new@example.com"]["quota"] == {"t2v": 1}
    assert listed[EMAIL]["state"] == "pending"
    assert "password" not in listed[EMAIL]
    await control(sim, "accounts", {"email": EMAIL, "remove": True})
    assert (await ask(sim, "POST", "/api/v1/auths/signin", credentials())).status == 400


async def test_tokens_are_revoked(sim: Simulator) -> None:
    headers = await sign_in(sim)
    assert await control(sim, "revoke", {"email": EMAIL}) == {"revoked": 1}
    assert (await ask(sim, "GET", "/api/v1/auths/", headers=headers)).status == 401


async def test_configuration_is_changed_and_shown(sim: Simulator) -> None:
    assert (await control(sim, "config", {"task_polls": 7}))["task_polls"] == 7
    assert (await control(sim, "config"))["task_polls"] == 7


async def test_reset_makes_everything_new(sim: Simulator) -> None:
    await turn(sim)
    sim.next(say="x")
    sim.configure(task_polls=7)
    sim.accounts.remove(EMAIL)
    await control(sim, "reset", {})
    assert sim.stats.requests == {}
    assert sim.chats() == {}
    assert sim.config.task_polls == 1
    assert (await ask(sim, "POST", "/api/v1/auths/signin", credentials())).status == 200


async def test_stats_tell_what_was_sent_with_tokens_masked(sim: Simulator) -> None:
    headers = await sign_in(sim)
    await turn(sim, "hello", headers=headers)
    stats = await control(sim, "stats?requests=5&operation=completions")
    assert stats["requests"]["completions"] == {"total": 1, "by_account": {EMAIL: 1}}
    assert stats["logins"] == {EMAIL: 1}
    assert stats["streams"]["ended"] == {"complete": 1}
    assert stats["chats"] == {EMAIL: {"kept": 1, "temporary": 0}}
    sent = stats["last_requests"][0]
    token = headers["authorization"].split()[1]
    assert sent["body"]["messages"][0]["content"] == "hello"
    assert sent["headers"]["version"] == "0.2.63"
    assert sent["headers"]["authorization"] == f"Bearer …{token[-6:]}"
    assert token not in str(stats)
    assert sent["status"] == 200


async def test_failed_logins_are_logged_not_counted(sim: Simulator) -> None:
    await ask(sim, "POST", "/api/v1/auths/signin", credentials() | {"password": "x"})
    stats = await control(sim, "stats")
    assert stats["logins"] == {}
    assert [one["outcome"] for one in stats["login_log"]] == ["wrong_password"]
    assert stats["requests"]["signin"]["by_account"] == {EMAIL: 1}


async def test_an_unknown_path_is_404_html(sim: Simulator) -> None:
    assert (await ask(sim, "GET", "/nothing")).status == 404
    assert sim.stats.total("unknown") == 1


async def test_a_path_prefix_is_taken_off_and_put_on() -> None:
    """The base URL may carry a path prefix."""
    async with Simulator(prefix="/up/stream/") as sim:
        assert sim.url.endswith("/up/stream")
        assert (await ask(sim, "GET", "/up/stream/api/models")).status == 200
        path = "/up/stream/api/v1/auths/signin"
        assert (await ask(sim, "POST", path, credentials())).json()["token"]


async def test_a_stopped_simulator_can_start_again_on_its_port() -> None:
    sim = Simulator()
    async with sim:
        port = sim.port
    with pytest.raises(ConnectionRefusedError):
        await ask(sim, "GET", "/api/models")
    async with sim:
        assert sim.port == port
        assert (await ask(sim, "GET", "/api/models")).status == 200


async def test_an_absolute_target_is_understood(sim: Simulator) -> None:
    """As a forward proxy sends it (12)."""
    assert (await ask(sim, "GET", f"{sim.url}/api/models")).status == 200
