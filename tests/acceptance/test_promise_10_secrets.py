"""Promise 10: secrets appear in no log line, answer, metric or Redis value, through success and
every failure, even when the upstream itself says them back."""

import asyncio
import hashlib
import os
import re
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import psutil
import pytest
import redis

from tests.fakes.caller import Call, ask, calling, soon
from tests.fakes.stack import Program, Stack, free_port

# Each is found by itself, whatever stands around it.
PASSWORDS = [f"pass-sentinel-{n}-$#:w0rd" for n in (1, 2, 3)]
SECRETS = {
    "secret key": "secret-key-sentinel-0123456789abcdef",
    "admin key": "sk-admin-sentinel-7f3a9c",
    "regular key": "sk-regular-sentinel-5d2e8b",
    "metrics token": "metrics-sentinel-b81f",
    "site cookie": "cookie-sentinel-c92a",
    "redis password": "redis-sentinel-d03b",
    "proxy password": "proxy-sentinel-e14c",
    "global proxy password": "global-proxy-sentinel-f25d",
    "a wrong key": "sk-wrong-sentinel-a61b",
    **{f"password {n}": word for n, word in enumerate(PASSWORDS, start=1)},
    # What the upstream takes in place of a password is as good as one.
    **{
        f"hash of password {n}": hashlib.sha256(word.encode()).hexdigest()
        for n, word in enumerate(PASSWORDS, start=1)
    },
}
PROMPT = "prompt-sentinel-42"
JWT = re.compile(rb"eyJ[\w-]{8,}\.[\w-]{8,}")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    port = free_port()
    user = ("--user", "gateway", "on", f">{SECRETS['redis password']}", "~*", "&*", "+@all")
    persistence = ("--appendonly", "yes", "--appendfsync", "always", "--aof-use-rdb-preamble", "no")
    proxy = f"http://proxy-user:{SECRETS['proxy password']}@127.0.0.1:{free_port()}"
    entries = [f"demo{n}@example.com:{word}" for n, word in enumerate(PASSWORDS, start=1)]
    environment = {
        "ACCOUNTS": ",".join([*entries[:2], f"{entries[2]}|{proxy}"]),
        "API_KEY": f"{SECRETS['admin key']},{SECRETS['regular key']}",
        "SECRET_KEY": SECRETS["secret key"],
        "METRICS_TOKEN": SECRETS["metrics token"],
        "SITE_COOKIES": f"acw_tc={SECRETS['site cookie']}; ssxmod_itna=1",
        "REDIS_URL": f"redis://gateway:{SECRETS['redis password']}@127.0.0.1:{port}/0",
        "LOG_LEVEL": "DEBUG",
        "ENABLE_FILE_LOG": "true",
        "STREAM_IDLE_TIMEOUT_SECONDS": "1",
        "FIRST_TOKEN_TIMEOUT_SECONDS": "1",
        "ACCOUNT_WAIT_SECONDS": "1",
        "CHAT_RETRY_COUNT": "1",
    }
    options = ("--port", str(port), *user, *persistence)
    stack = Stack(environment=environment, redis=options)
    with stack:
        for email, password in zip(stack.emails, PASSWORDS, strict=True):
            stack.sim.account(email, password=password)
        yield stack


class Witness:
    """Everything that anybody outside may see of a session."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.answers: list[bytes] = []
        self.command_lines: set[str] = set()

    async def ask(self, prompt: str = "", *, key: str = "", stream: bool = True) -> Call:
        prompt = f"{PROMPT} {prompt}"
        call = await ask(self.stack.url, key or self.stack.key, prompt, stream=stream)
        self.answers += [repr(call.headers.raw).encode(), call.body]
        return call

    async def get(self, path: str, *, key: str = "", bearer: str = "") -> httpx.Response:
        headers = {"x-api-key": key or self.stack.key}
        if bearer:
            headers = {"authorization": f"Bearer {bearer}"}
        async with httpx.AsyncClient(verify=False) as client:
            answer = await client.get(self.stack.url + path, headers=headers)
        self.answers += [repr(answer.headers.raw).encode(), answer.content]
        return answer

    def look_at_processes(self) -> None:
        for parent in [self.stack.gateway.program]:
            assert parent is not None
            root = psutil.Process(parent.pid)
            for process in [root, *root.children(recursive=True)]:
                self.command_lines.add(" ".join(process.cmdline()))

    def seen(self) -> dict[str, bytes]:
        """Name → everything that is to be seen there."""
        folder = self.stack.folder
        logs = {path.name: path.read_bytes() for path in folder.rglob("*.log*")}
        # Everything that was ever written to Redis, also what is gone since; and what is there.
        written = b"".join(path.read_bytes() for path in folder.rglob("*.aof"))
        assert b"account:demo1@example.com" in written
        return {
            **logs,
            "answers": b"\n".join(self.answers),
            "redis, ever": written,
            "redis, now": dump(self.stack),
            "command lines": "\n".join(self.command_lines).encode(),
        }


def dump(stack: Stack) -> bytes:
    """Every key with its value."""
    with redis.Redis.from_url(stack.environment["REDIS_URL"]) as client:
        reads: Mapping[bytes, Any] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"zset": lambda name: client.zrange(name, 0, -1, withscores=True),
            b"set": client.smembers,
            b"list": lambda name: client.lrange(name, 0, -1),
            b"stream": client.xrange,
        }
        names = list(client.scan_iter(count=1000))
        lines = [b"%s %r" % (name, reads[client.type(name)](name)) for name in names]
    return b"\n".join(lines)


async def tokens(stack: Stack) -> dict[str, str]:
    """The access tokens in clear, as the store gives them to a turn."""
    found: dict[str, str] = {}
    async with stack.store() as store:
        held = []
        for _ in stack.emails:
            try:
                held.append(await store.leases.acquire("chat", tried=frozenset(found)))
            except Exception:  # the rest of them rests: those that are there will do
                break
            found[held[-1].account] = held[-1].access_token
        for lease in held:
            await store.leases.release(lease)
    return {f"token of {email}": token for email, token in found.items() if token}


@pytest.mark.anyio
async def test_no_secret_is_seen_anywhere_whatever_happens(stack: Stack) -> None:
    witness = Witness(stack)
    async with stack.store() as store:
        created = (await store.api_keys.create("of the session")).key
    secrets = {**SECRETS, "created key": created}

    await successes(witness, created)
    secrets |= await tokens(stack)
    assert any(name.startswith("token of") for name in secrets)
    await refusals_of_callers(witness)
    await failures_of_the_upstream(witness, secrets)
    await failures_of_logins(witness)
    secrets |= await tokens(stack)
    await redis_away(witness)
    await another_instance(witness)
    with_workers = await job_processes(witness)
    page = await witness.get("/metrics", bearer=SECRETS["metrics token"])
    assert b"qwen_gateway_requests_total" in page.content
    witness.look_at_processes()
    stack.gateway.stop()
    with_workers.stop()

    seen = witness.seen()
    assert {"gateway.log", "workers.log", "redis.log", "simulator.log"} <= set(seen)
    found = [
        f"{name} in {place}: …{around(text, secret.encode())}…"
        for place, text in seen.items()
        for name, secret in secrets.items()
        if secret.encode() in text
    ]
    found += [f"a JWT in {place}" for place, text in seen.items() if JWT.search(text)]
    assert not found, "\n".join(found)
    logs = {place: text for place, text in seen.items() if place.startswith(("gateway", "workers"))}
    assert [place for place, text in logs.items() if PROMPT.encode() in text] == []
    assert [place for place, text in logs.items() if b"demo1@example.com" in text] == []
    assert_sealed(seen["redis, ever"])


def around(text: bytes, secret: bytes) -> str:
    at = text.index(secret)
    return text[max(0, at - 120) : at].decode(errors="replace")


def assert_sealed(written: bytes) -> None:
    """What Redis holds of passwords and tokens is there, sealed."""
    for field in (b"password", b"token", b"proxy"):
        values = re.findall(rb"\$%d\r\n%s\r\n\$(\d+)\r\n([^\r]*)" % (len(field), field), written)
        kept = [value for _, value in values if value]
        assert kept, field
        assert all(value.startswith(b"v1:") for value in kept), field


async def successes(witness: Witness, created: str) -> None:
    assert (await witness.ask()).whole
    assert (await witness.ask(stream=False)).whole
    assert (await witness.ask(key=created)).whole
    calls = await asyncio.gather(*[witness.ask("[[sim: frames=20 delay_ms=10]]") for _ in range(6)])
    assert any(call.whole for call in calls)
    for path in ("/v1/models", "/readyz", "/healthz", "/models"):
        assert (await witness.get(path)).status_code == 200


async def refusals_of_callers(witness: Witness) -> None:
    assert (await witness.ask(key=SECRETS["a wrong key"])).status == 401
    assert (await witness.get("/metrics", key=SECRETS["a wrong key"])).status_code == 401
    wrong = SECRETS["a wrong key"]
    assert (await witness.get("/nothing/" + "here", key=wrong)).status_code in (401, 404)
    assert (await witness.ask(key=witness.stack.key + "x")).status == 401


async def failures_of_the_upstream(witness: Witness, secrets: dict[str, str]) -> None:
    """Each of them with the most talkative words an upstream could find: all it was told by us."""
    stack = witness.stack
    told = [secret for name, secret in secrets.items() if name.startswith(TOLD)]
    leak = " ".join(told)
    said: list[dict[str, Any]] = [
        *({"fail": fail, "details": leak} for fail in TALKATIVE),
        *({"fail": "internal_error", "details": leak, "form": form} for form in FORMS),
        {"status": 500, "body": leak, "content_type": "text/plain"},
        {"status": 200, "body": leak, "content_type": "text/html"},
        {"status": 403, "body": f'{{"detail": "{leak}"}}'},
        {"fail": "ErrorText", "details": leak, "after": 3},
        {"fail": "waf_page"},
        {"fail": "punish"},
        {"reset": "before"},
        {"reset_after": 2},
        {"hang": "before"},
        {"stall_after": 3},
        {"empty": True},
    ]
    for stream in (True, False):
        for action in said:
            stack.clear()
            stack.sim.next(operation="completions", times=0, **action)
            assert not (await witness.ask(stream=stream)).whole, action
    stack.clear()
    stack.sim.next(operation="chats_new", times=0, fail="Bad_Request", details=leak)
    assert not (await witness.ask()).whole
    stack.clear()
    async with calling(stack.url, stack.key, f"{PROMPT} [[sim: hang=before]]"):
        await soon(lambda: stack.sim.open_streams() == 1, within_seconds=5)


TOLD = ("token of", "hash of", "site cookie")
FORMS = ("json", "frame", "error", "error_text")
TALKATIVE = (
    "Unauthorized",
    "Forbidden",
    "RateLimited",
    "HighDemand",
    "Bad_Request",
    "invalid_input",
    "data_inspection_failed",
    "ModelNotFound",
    "Not_Found",
    "a_code_nobody_knows",
)


async def failures_of_logins(witness: Witness) -> None:
    stack = witness.stack
    leak = " ".join(secret for name, secret in SECRETS.items() if name.startswith(TOLD))
    said: list[dict[str, Any]] = [
        {"status": 400, "body": f'{{"detail": "wrong: {leak}"}}'},
        {"fail": "InvalidPassword", "details": leak},
        {"status": 429, "body": leak},
        {"status": 502, "body": leak, "content_type": "text/html"},
        {"status": 200, "body": f'{{"hello": "{leak}"}}'},
        {"fail": "waf_page"},
        {"reset": "before"},
    ]
    for action in said:
        stack.clear()
        stack.sim.revoke()
        stack.sim.next(operation="signin", times=0, **action)
        assert not (await witness.ask()).whole, action
    stack.clear()
    await revived(stack)
    assert (await witness.ask()).whole


async def revived(stack: Stack) -> None:
    """The dead live again: what an operator's new password does."""
    async with stack.store() as store:
        for email in stack.emails:
            await store.accounts.reset(email)


async def redis_away(witness: Witness) -> None:
    stack = witness.stack
    stack.redis.freeze()
    try:
        assert (await witness.ask()).status == 503
    finally:
        stack.redis.thaw()
    stack.redis.stop()
    assert (await witness.ask()).status == 503
    stack.redis.start()
    await soon(lambda: httpx.get(f"{stack.url}/readyz").status_code == 200, within_seconds=10)
    os.kill(stack.gateway.pids()[0], signal.SIGKILL)
    await soon(lambda: len(stack.gateway.pids()) == 2, within_seconds=10)


async def another_instance(witness: Witness) -> None:
    """With a global proxy that isn't there, and told to go while it works."""
    stack = witness.stack
    proxy = f"socks5://user:{SECRETS['global proxy password']}@127.0.0.1:{free_port()}"
    other = stack.add_gateway({"PROXY_URL": proxy, "DRAIN_SECONDS": "0"})
    call = await ask(other.url, stack.key, PROMPT)
    assert not call.whole
    witness.answers.append(call.body)
    other.stop()
    stack.clear()


async def job_processes(witness: Witness) -> Program:
    stack = witness.stack
    log = stack.folder / "workers-output.log"
    program = Program("-m", "workers", environ=stack.environment, log=log)
    await soon(lambda: "job process" in program.logs(), within_seconds=20, what=program.logs)
    return program
