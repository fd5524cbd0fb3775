"""Every call of the client against the simulator, which refuses what the real one refuses."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from shared import errors
from shared.chat.events import Event, ReasoningDelta, TextDelta, TurnEnd, TurnFailed
from shared.errors import GatewayError
from shared.settings import Settings
from shared.upstream import headers, wire
from shared.upstream.client import Session, Upstream
from shared.upstream.stream import UpstreamDecoder
from tests.fakes.raw_server import Peer, RawServer, Received
from tests.integration.upstream.conftest import MODEL, Observed, until
from tests.simulator.server import Simulator, demo_account

pytestmark = pytest.mark.anyio

EMAIL, PASSWORD = demo_account(1)


def body_for(chat_id: str, content: str = "hello", **options: object) -> bytes:
    given = {
        "chat_type": "t2t",
        "thinking_enabled": False,
        "thinking_budget": None,
        "now": int(time.time()),
        "fid": "0b7a1f6e-5a0f-4c39-9d55-6f8f8a0f7c11",
        **options,
    }
    return wire.completion_body(chat_id=chat_id, model=MODEL, content=content, **given)  # type: ignore[arg-type]  # options of a test


async def generate(
    upstream: Upstream, session: Session, content: str, **options: object
) -> list[Event]:
    """One turn: open a chat, stream, decode."""
    chat_id = await upstream.open_chat(session, model=MODEL, chat_type="t2t")
    decoder = UpstreamDecoder()
    events: list[Event] = []
    body = body_for(chat_id, content, **options)
    async with upstream.stream_completion(session, chat_id, body) as chunks:
        async for chunk in chunks:
            events += decoder.feed(chunk)
    return events + decoder.close()


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


# -- a turn


async def test_a_turn_streams_what_the_upstream_says(upstream: Upstream, session: Session) -> None:
    events = await generate(upstream, session, '[[sim: say="Hello, world!" frames=5]]')
    assert text_of(events) == "Hello, world!"
    assert isinstance(events[-1], TurnEnd)


async def test_a_turn_thinks_when_it_is_asked_to(upstream: Upstream, session: Session) -> None:
    def reasoning(events: list[Event]) -> str:
        return "".join(event.text for event in events if isinstance(event, ReasoningDelta))

    prompt = "[[sim: think=3 say=ok]]"
    thinking = await generate(upstream, session, prompt, thinking_enabled=True)
    assert reasoning(thinking)
    assert text_of(thinking) == "ok"


@pytest.mark.parametrize("thinking_enabled", [None, True, False])
@pytest.mark.parametrize("chat_type", ["t2t", "search"])
async def test_every_kind_of_turn_is_accepted(
    upstream: Upstream,
    session: Session,
    sim: Simulator,
    chat_type: str,
    thinking_enabled: bool | None,
) -> None:
    events = await generate(
        upstream,
        session,
        "hello",
        chat_type=chat_type,
        thinking_enabled=thinking_enabled,
        thinking_budget=1000,
    )
    assert isinstance(events[-1], TurnEnd)
    [sent] = [r for r in sim.stats.log if r.operation == "completions"]
    message = sent.request.json()["messages"][0]
    assert message["feature_config"]["auto_search"] is (chat_type == "search")
    assert message["feature_config"]["output_schema"] == "phase"


async def test_turns_leave_nothing_behind_in_the_account(
    upstream: Upstream, session: Session, sim: Simulator
) -> None:
    for _ in range(3):
        await generate(upstream, session, "hello")
    assert sim.chats(EMAIL)["kept"] == 0


async def test_a_prompt_of_a_megabyte_arrives_whole(
    upstream: Upstream, session: Session, sim: Simulator
) -> None:
    sim.configure(prompt_limit_bytes=10_000_000)
    prompt = "[[sim: say=ok]]" + "Grüße 世界 " * 60_000
    assert text_of(await generate(upstream, session, prompt)) == "ok"


async def test_packed_streams_are_unpacked(
    upstream: Upstream, session: Session, sim: Simulator
) -> None:
    sim.configure(gzip=True)
    events = await generate(upstream, session, '[[sim: say="Hello, world!" frames=5]]')
    assert text_of(events) == "Hello, world!"


async def test_turns_share_connections(
    upstream: Upstream, session: Session, sim: Simulator
) -> None:
    for _ in range(5):
        await generate(upstream, session, "hello")
    assert sim.connections == 1


# -- other calls


async def test_models_are_read_with_and_without_a_session(
    upstream: Upstream, session: Session, sim: Simulator
) -> None:
    expected = [model["id"] for model in sim.config.models]
    assert [model.id for model in await upstream.models()] == expected
    sim.configure(models_need_login=True)
    assert [model.id for model in await upstream.models(session)] == expected
    with pytest.raises(errors.TokenRejected):
        await upstream.models()


async def test_the_profile_tells_a_live_token_from_a_dead_one(
    upstream: Upstream, session: Session
) -> None:
    profile = await upstream.profile(session)
    assert (profile.email, profile.role) == (EMAIL, "user")
    with pytest.raises(errors.TokenRejected):
        await upstream.profile(Session(EMAIL, "dead"))


async def test_a_chat_can_be_deleted_once(upstream: Upstream, session: Session) -> None:
    chat_id = await upstream.open_chat(session, model=MODEL, chat_type="t2t")
    await upstream.delete_chat(session, chat_id)
    with pytest.raises(errors.ChatGone):
        await upstream.delete_chat(session, chat_id)


async def test_a_generation_can_be_stopped(
    upstream: Upstream, session: Session, sim: Simulator
) -> None:
    chat_id = await upstream.open_chat(session, model=MODEL, chat_type="t2t")
    body = body_for(chat_id, "[[sim: frames=1000 delay_ms=50]]")
    decoder = UpstreamDecoder()
    async with upstream.stream_completion(session, chat_id, body) as chunks:
        async for chunk in chunks:
            decoder.feed(chunk)
            if decoder.response_id:
                break
    await upstream.stop(session, chat_id, decoder.response_id)
    assert [stop["chat_id"] for stop in sim.stats.stops] == [chat_id]


async def test_the_chat_of_another_account_is_gone_for_us(
    upstream: Upstream, session: Session
) -> None:
    chat_id = await upstream.open_chat(session, model=MODEL, chat_type="t2t")
    token = await upstream.sign_in(*demo_account(2))
    stranger = Session(demo_account(2)[0], token.token)
    with pytest.raises(errors.ChatGone):
        async with upstream.stream_completion(stranger, chat_id, body_for(chat_id)):
            pass


# -- signing in


@pytest.mark.parametrize(
    ("v1", "v2"),
    [
        ("flat", "gone"),
        ("gone", "token"),
        ("gone", "access_token"),
        ("gone", "pair"),
        ("gone", "cookie"),
        ("cookie", "gone"),
        ("token", "gone"),
    ],
)
async def test_every_variant_of_sign_in_gives_a_token_that_works(
    upstream: Upstream, sim: Simulator, v1: str, v2: str
) -> None:
    sim.configure(signin_v1=v1, signin_v2=v2)
    token = await upstream.sign_in(EMAIL, PASSWORD)
    assert token.expires_at > time.time() + 600
    await upstream.profile(Session(EMAIL, token.token))


async def test_a_sign_in_that_is_offered_nowhere_fails(upstream: Upstream, sim: Simulator) -> None:
    sim.configure(signin_v1="gone", signin_v2="gone")
    with pytest.raises(errors.LoginFailed):
        await upstream.sign_in(EMAIL, PASSWORD)


@pytest.mark.parametrize("form", ["detail", "envelope"])
@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_wrong_password_makes_a_dead_account(
    upstream: Upstream, sim: Simulator, form: str, status: int
) -> None:
    sim.configure(wrong_password=form, wrong_password_status=status)
    with pytest.raises(errors.AccountDead):
        await upstream.sign_in(EMAIL, "wrong")
    assert len(sim.stats.login_log) == 1, "a wrong password is told once, not at every address"


async def test_an_account_that_is_not_activated_is_dead(upstream: Upstream, sim: Simulator) -> None:
    account = sim.accounts.get(EMAIL)
    assert account is not None
    account.state = "pending"
    with pytest.raises(errors.AccountDead):
        await upstream.sign_in(EMAIL, PASSWORD)


@pytest.mark.parametrize("form", ["no_exp", "undecodable"])
async def test_a_token_without_expiry_is_no_login(
    upstream: Upstream, sim: Simulator, form: str
) -> None:
    sim.configure(token_form=form)
    with pytest.raises(errors.LoginFailed, match="expiry"):
        await upstream.sign_in(EMAIL, PASSWORD)


async def test_logins_that_come_too_fast_are_told_from_dead_accounts(
    upstream: Upstream, sim: Simulator
) -> None:
    sim.configure(login_limit=1)
    await upstream.sign_in(EMAIL, PASSWORD)
    with pytest.raises(errors.LoginsTooFast) as told:
        await upstream.sign_in(EMAIL, PASSWORD)
    assert told.value.retry_after_seconds
    sim.configure(login_limit_form="waf")
    with pytest.raises(errors.UpstreamBlocked):
        await upstream.sign_in(EMAIL, PASSWORD)


@pytest.mark.parametrize("trouble", [{"status": 503}, {"reset": "before"}, {"fail": "html_502"}])
async def test_a_broken_sign_in_is_no_dead_account(
    upstream: Upstream, sim: Simulator, trouble: dict[str, object]
) -> None:
    sim.next(operation="signin", times=0, **trouble)
    with pytest.raises(errors.LoginFailed) as told:
        await upstream.sign_in(EMAIL, PASSWORD)
    assert type(told.value) is errors.LoginFailed


# -- failures: promise 8


# What a failure means that comes before any text, by the simulator's name for it.
MEANING: dict[str, type[GatewayError]] = {
    "Unauthorized": errors.TokenRejected,
    "Forbidden": errors.TokenRejected,
    "ChatInProgress": errors.UpstreamBusy,
    "ChatInProgressRateLimited": errors.UpstreamBusy,
    "CHAT_NOT_FOUND": errors.ChatGone,
    "PARENT_NOT_FOUND": errors.ChatGone,
    "NotExist": errors.ChatGone,
    "Not_Found": errors.ChatGone,
    "RateLimited": errors.UpstreamQuota,
    "TodaysLimit": errors.UpstreamQuota,
    "TooQuickly": errors.UpstreamBusy,
    "HighDemand": errors.UpstreamBusy,
    "ParallelLimited": errors.UpstreamBusy,
    "Too_Many_Requests": errors.UpstreamBusy,
    "quotaLimited": errors.UpstreamQuota,
    "ExceedLimit": errors.UpstreamQuota,
    "quota_exhausted": errors.UpstreamQuota,
    "membership_limit": errors.UpstreamQuota,
    "insufficient_quota": errors.UpstreamQuota,
    "AllocatedQuota": errors.UpstreamQuota,
    "ModelNotFound": errors.UnknownModel,
    "invalid_input": errors.InputRefused,
    "InvalidAttachment": errors.InputRefused,
    "data_inspection_failed": errors.ContentRefused,
    "Bad_Request": errors.UpstreamRejected,
    "MissingVersion": errors.UpstreamRejected,
    "InternalError": errors.UpstreamUnavailable,
    "internal_error": errors.UpstreamUnavailable,
    "server_busy": errors.UpstreamUnavailable,
    "waf_page": errors.UpstreamBlocked,
    "punish": errors.UpstreamBlocked,
    "rgv587": errors.UpstreamBlocked,
    "x5sec": errors.UpstreamBlocked,
    "captcha": errors.UpstreamBlocked,
    "html_403": errors.UpstreamBlocked,
    "html_401": errors.TokenRejected,
    "html_429": errors.UpstreamBusy,
    "html_500": errors.UpstreamUnavailable,
    "html_504": errors.UpstreamUnavailable,
    "http_401": errors.TokenRejected,
    "http_403": errors.TokenRejected,
    "http_429": errors.UpstreamBusy,
    "http_500": errors.UpstreamUnavailable,
    "empty": errors.UpstreamEmpty,
    "nonsense": errors.UpstreamProtocolError,
    "json_answer": errors.UpstreamProtocolError,
}


@pytest.mark.parametrize(("name", "error"), MEANING.items(), ids=list(MEANING))
async def test_a_failure_in_place_of_a_stream_is_raised(
    upstream: Upstream,
    session: Session,
    sim: Simulator,
    observed: Observed,
    name: str,
    error: type[GatewayError],
) -> None:
    sim.next(operation="completions", fail=name)
    with pytest.raises(error) as told:
        await generate(upstream, session, "hello")
    assert type(told.value) is error
    assert observed.outcomes[-1] == ("completion", error.__name__)


@pytest.mark.parametrize("form", ["frame", "error", "error_text"])
async def test_a_failure_inside_the_stream_ends_the_turn(
    upstream: Upstream, session: Session, sim: Simulator, form: str
) -> None:
    sim.next(operation="completions", fail="internal_error", form=form, after=3, say="a b c d e f")
    events = await generate(upstream, session, "hello")
    end = events[-1]
    assert isinstance(end, TurnFailed)
    assert isinstance(end.error, errors.UpstreamUnavailable)
    assert text_of(events)


@pytest.mark.parametrize("cut", [{"reset_after": 2}, {"close_after": 2}, {"cut_after": 2}])
async def test_a_stream_that_breaks_off_fails_once_and_last(
    upstream: Upstream, session: Session, sim: Simulator, cut: dict[str, object]
) -> None:
    sim.next(operation="completions", frames=9, delay_ms=5, **cut)
    events = await generate(upstream, session, "hello")
    ends = [event for event in events if isinstance(event, TurnEnd | TurnFailed)]
    assert ends == [events[-1]]
    assert isinstance(events[-1], TurnFailed)
    assert isinstance(events[-1].error, errors.UpstreamProtocolError)


@pytest.mark.parametrize("operation", ["chats_new", "completions"])
async def test_a_connection_that_breaks_before_an_answer_is_unavailable(
    upstream: Upstream, session: Session, sim: Simulator, operation: str
) -> None:
    sim.next(operation=operation, reset="before", times=0)
    with pytest.raises(errors.UpstreamUnavailable):
        await generate(upstream, session, "hello")


async def test_an_upstream_that_is_away_is_unavailable(observed: Observed) -> None:
    async with RawServer() as server:
        url = server.url
    upstream = Upstream(Settings(qwen_chat_proxy_url=url), observe=observed)
    with pytest.raises(errors.UpstreamUnavailable):
        await upstream.models()
    await upstream.close()
    assert observed.outcomes == [("models", "UpstreamUnavailable")]


@pytest.mark.parametrize("body", [{}, {"data": {}}, {"success": True, "data": {"id": ""}}])
async def test_a_chat_without_id_is_a_failure_whatever_the_status(
    upstream: Upstream, session: Session, sim: Simulator, body: dict[str, object]
) -> None:
    sim.next(operation="chats_new", body=msgspec.json.encode(body).decode())
    with pytest.raises(errors.UpstreamProtocolError):
        await upstream.open_chat(session, model=MODEL, chat_type="t2t")


async def test_an_answer_in_an_encoding_nobody_asked_for_is_nonsense() -> None:
    async def brotli(peer: Peer, request: Received) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 3\r\n\r\n"
        await peer.send(head + b"\x8b\x00\x80")

    async with serving(brotli) as (upstream, _):
        with pytest.raises(errors.UpstreamProtocolError):
            await upstream.models()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("503 Service Unavailable", errors.UpstreamUnavailable),
        ("429 Too Many Requests", errors.UpstreamBusy),
        ("401 Unauthorized", errors.TokenRejected),
        ("200 OK\r\nx-actual-status-code: 503", errors.UpstreamUnavailable),
    ],
)
async def test_a_status_is_believed_whatever_the_body_looks_like(
    status: str, error: type[GatewayError]
) -> None:
    async def handler(peer: Peer, request: Received) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: text/event-stream\r\ncontent-length: 13\r\n\r\n"
        await peer.send(head.encode() + b"data: sorry\n\n")

    async with serving(handler) as (upstream, _):
        with pytest.raises(error):
            async with upstream.stream_completion(SESSION, "c1", body_for("c1")):
                pass


# -- giving up: promise 3


@pytest.mark.parametrize(
    "script",
    [
        {"hang": "before"},
        {"hang": "after"},
        {"stall_after": 0},
        {"stall_after": 3},
        {"frames": 5000, "delay_ms": 20},
    ],
    ids=["before the head", "after the head", "before text", "in mid-stream", "while it flows"],
)
async def test_a_cancelled_turn_closes_its_connection_within_a_second(
    upstream: Upstream, session: Session, sim: Simulator, script: dict[str, object]
) -> None:
    await upstream.close()
    await until(lambda: sim.connections == 0)
    sim.next(operation="completions", **script)
    task = asyncio.create_task(generate(upstream, session, "hello"))
    await until(lambda: bool(sim.stats.requests.get("completions")))
    await asyncio.sleep(0.05)
    assert sim.connections == 1
    task.cancel()
    await until(lambda: sim.connections == 0)
    assert task.cancelled()


async def test_leaving_a_stream_early_closes_its_connection_within_a_second(
    upstream: Upstream, session: Session, sim: Simulator
) -> None:
    chat_id = await upstream.open_chat(session, model=MODEL, chat_type="t2t")
    body = body_for(chat_id, "[[sim: frames=5000 delay_ms=20]]")
    async with upstream.stream_completion(session, chat_id, body) as chunks:
        async for _ in chunks:
            break
    await until(lambda: sim.connections == 0)
    assert sim.stats.ended["aborted"] == 1


async def test_a_cancelled_call_is_observed_as_such(
    upstream: Upstream, session: Session, sim: Simulator, observed: Observed
) -> None:
    sim.next(operation="completions", hang="before")
    task = asyncio.create_task(generate(upstream, session, "hello"))
    await until(lambda: bool(sim.stats.requests.get("completions")))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert observed.outcomes[-1] == ("completion", "cancelled")


# -- what is sent


@asynccontextmanager
async def serving(
    handler: Callable[[Peer, Received], object], **settings: str
) -> AsyncIterator[tuple[Upstream, RawServer]]:
    async with RawServer(handler) as server:  # type: ignore[arg-type]  # awaits
        url = settings.pop("url", "") or server.url
        upstream = Upstream(
            Settings(qwen_chat_proxy_url=url.replace("PORT", str(server.port)), **settings)  # type: ignore[arg-type]  # of a test
        )
        try:
            yield upstream, server
        finally:
            await upstream.close()


async def a_chat(peer: Peer, request: Received) -> None:
    body = b'{"success": true, "data": {"id": "c1"}}'
    if "completions" in request.line:
        body = b'data: {"choices":[{"delta":{"content":"x","phase":"answer"}}]}\n\n'
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


SESSION = Session("a@example.com", "the-token", cookies="")


async def test_the_headers_are_those_of_the_site() -> None:
    async with serving(a_chat) as (upstream, server):
        await upstream.open_chat(SESSION, model=MODEL, chat_type="t2t")
        async with upstream.stream_completion(SESSION, "c1", body_for("c1")):
            pass
    new, completion = server.requests
    for request in (new, completion):
        assert request.header("authorization") == "Bearer the-token"
        assert request.header("cookie") == "token=the-token"
        assert request.header("version") == headers.FRONT_END_VERSION
        assert request.header("source") == "web"
        assert request.header("bx-v") == headers.BX_V
        assert request.header("origin") == server.url
        assert request.header("referer") == server.url + "/"
        assert request.header("content-type") == "application/json"
        assert "GMT" in (request.header("timezone") or "")
        assert len(request.header("x-request-id") or "") == 36
    assert new.header("x-request-id") != completion.header("x-request-id")
    assert new.header("accept") == "*/*"
    assert completion.header("accept") == "text/event-stream"
    assert completion.header("x-accel-buffering") == "no"
    assert completion.line == "POST /api/v2/chat/completions?chat_id=c1 HTTP/1.1"


async def test_an_operators_headers_stand_in_place_of_ours() -> None:
    """The site changes its front end now and then, and refuses writes of an older one (2)."""
    changed = '{"Version": "0.3.1", "bx-ua": "231!x", "sec-ch-ua": "", "user-agent": "Mine/1"}'
    async with serving(a_chat, site_headers=changed) as (upstream, server):
        await upstream.open_chat(SESSION, model=MODEL, chat_type="t2t")
        async with upstream.stream_completion(SESSION, "c1", body_for("c1")):
            pass
    for request in server.requests:
        assert request.header("version") == "0.3.1"
        assert request.header("bx-ua") == "231!x"
        assert request.header("sec-ch-ua") is None
        assert request.header("user-agent") == "Mine/1"
        assert request.header("source") == "web"
        assert request.head.lower().count(b"\r\nversion:") == 1


@pytest.mark.parametrize(
    ("of_all", "of_one", "sent"),
    [
        ("", "", "token=the-token"),
        ("ssxmod_itna=a; acw_tc=b==", "", "token=the-token; ssxmod_itna=a; acw_tc=b=="),
        ("ssxmod_itna=a", "acw_tc=own", "token=the-token; acw_tc=own"),
    ],
)
async def test_site_cookies_follow_the_token_as_they_are(
    of_all: str, of_one: str, sent: str
) -> None:
    session = Session("a@example.com", "the-token", cookies=of_one)
    async with serving(a_chat, site_cookies=of_all) as (upstream, server):
        await upstream.open_chat(session, model=MODEL, chat_type="t2t")
    assert server.requests[0].header("cookie") == sent


@pytest.mark.parametrize("tail", ["", "/", "/prefix", "/prefix/", "/two/deep/"])
async def test_the_base_url_may_have_a_path_and_a_trailing_slash(tail: str) -> None:
    async with serving(a_chat, url="http://localhost:PORT" + tail) as (upstream, server):
        await upstream.open_chat(SESSION, model=MODEL, chat_type="t2t")
    prefix = tail.rstrip("/")
    assert server.requests[0].line == f"POST {prefix}/api/v2/chats/new HTTP/1.1"


async def test_ids_can_not_change_the_address() -> None:
    async with serving(a_chat) as (upstream, server):
        await upstream.delete_chat(SESSION, "../../x?y=1#z")
        async with upstream.stream_completion(SESSION, "a&b c", b"{}"):
            pass
    assert server.requests[0].line == "DELETE /api/v2/chats/..%2F..%2Fx%3Fy%3D1%23z HTTP/1.1"
    assert "chat_id=a%26b%20c " in server.requests[1].line


async def test_every_call_is_observed_with_its_outcome(
    upstream: Upstream, session: Session, observed: Observed
) -> None:
    await generate(upstream, session, "hello")
    assert observed.outcomes == [("sign_in", "ok"), ("open_chat", "ok"), ("completion", "ok")]
    assert all(0 <= seconds < 5 for _, _, seconds in observed.calls)


# -- secrets: promise 10


async def test_nothing_secret_is_logged_or_shown(
    upstream: Upstream, session: Session, sim: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = [repr(session), str(session)]
    await generate(upstream, session, "a private prompt")
    for name in MEANING:
        sim.next(operation="completions", fail=name)
        try:
            await generate(upstream, session, "a private prompt")
        except GatewayError as error:
            shown += [str(error), repr(error), error.message]
    with pytest.raises(errors.AccountDead) as dead:
        await upstream.sign_in(EMAIL, "a-wrong-password")
    shown += [str(dead.value), caplog.text]
    for secret in (session.token, PASSWORD, EMAIL, "a-wrong-password", "a private prompt"):
        assert not any(secret in text for text in shown)
