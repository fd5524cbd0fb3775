"""The launcher behind `make run` and `make demo`: one command to a working product.

    python -m deploy.local run      reads .env (made from .env.example on first use), real upstream
    python -m deploy.local demo     no .env, the simulator with three demo accounts

Owns the embedded Redis and the generated keys; starts the gateway and the job processes, and in a
demo the simulator; starts again what dies; stops all of it in order, Redis last. On stdout: one
`Name: value` a line once `/readyz` is 200, nothing else. Everything else goes to stderr.

Exit status: 0 stopped, 1 something is missing or doesn't start, 2 configuration, 98 address taken.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from deploy import generated_keys
from deploy.embedded_redis import EmbeddedRedis, EmbeddedRedisError
from shared import address, discovery, lifeline
from shared.child import Child, python
from shared.log import set_up_log
from shared.run_directory import RunDirectory, RunDirectoryError
from shared.settings import (
    RENAMED,
    Settings,
    SettingsError,
    environment_of,
    load,
    notices,
    read_dotenv,
)

log = logging.getLogger("deploy.local")

ROOT: Final = Path(__file__).resolve().parent.parent

DEMO_ACCOUNTS: Final = 3
DEMO_MODEL: Final = "qwen3-max-2026-01-23"
# A job does a step of at most 20 s; then its process is in no hurry to stay.
WORKERS_GRACE_SECONDS: Final = 30.0
SIMULATOR_GRACE_SECONDS: Final = 5.0
# On top of DRAIN_DELAY_SECONDS and DRAIN_SECONDS: the gateway ends by itself well before.
GATEWAY_GRACE_SECONDS: Final = 15.0
_LOOK_SECONDS = 0.05
_PUBLISH_SECONDS = 2.0


class LaunchError(RuntimeError):
    """Something doesn't start. The message says what."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    parser.add_argument("what", choices=["run", "demo"])
    parser.add_argument(
        "--stop-with-parent", action="store_true", help="also stop when the caller was killed"
    )
    parser.set_defaults(parent=os.getppid())
    given = parser.parse_args(arguments)
    if given.stop_with_parent:
        lifeline.tie(given.parent, signal_number=signal.SIGTERM)
    try:
        if given.what == "demo":
            settings, said = demo_settings(os.environ), notices(os.environ)
        else:
            dotenv = read_dotenv(own_dotenv(Path.cwd()))
            settings, said = load(os.environ, dotenv), notices(os.environ, dotenv)
        for line in said:
            print(line, file=sys.stderr)
        address.require_free(settings.listen_address, settings.service_port)
        with own_run_directory() as run:
            return asyncio.run(Launcher(settings, demo=given.what == "demo", run=run).run())
    except (SettingsError, address.AddressTaken, EmbeddedRedisError, LaunchError) as error:
        print(error, file=sys.stderr)
        return _STATUSES.get(type(error), 1)
    except (RunDirectoryError, OSError) as error:
        print(f"DATA_DIR or the run directory can't be used: {error}", file=sys.stderr)
        return 1


_STATUSES: Final[Mapping[type[Exception], int]] = {
    SettingsError: 2,
    address.AddressTaken: address.TAKEN_STATUS,
}


def own_dotenv(directory: Path) -> Path:
    """`.env`, made from `.env.example` when there is none yet."""
    path = directory / ".env"
    example = ROOT / ".env.example"
    if not path.exists() and example.exists():
        shutil.copyfile(example, path)
        path.chmod(0o600)
    return path


def demo_settings(environ: Mapping[str, str]) -> Settings:
    """The environment's settings without any `.env`; in memory unless it says otherwise.

    Whatever a demo keeps lies apart from `DATA_DIR`'s default, where the real accounts are.
    """
    defaults = {"DATA_SAVE_MODE": "none"}
    if environ.get("DATA_SAVE_MODE") == "file":
        defaults["DATA_DIR"] = "./data/demo"
    return load({**defaults, **{name: value for name, value in environ.items() if value}})


@contextlib.contextmanager
def own_run_directory() -> Iterator[Path]:
    run = RunDirectory("launcher")
    try:
        yield run.path
    finally:
        run.remove()


class Launcher:
    """Everything of one start, from nothing to nothing."""

    def __init__(self, settings: Settings, *, demo: bool, run: Path) -> None:
        self._settings = settings
        self._demo = demo
        self._run = run
        self._stop_signals: asyncio.Queue[int] = asyncio.Queue()
        self._redis: EmbeddedRedis | None = None
        self._children: list[Child] = []
        self._new_api_key = ""

    async def run(self) -> int:
        """Start all, say so, wait for a signal, stop all.

        Raises:
            EmbeddedRedisError, AddressTaken, LaunchError: it doesn't start; all is stopped again.
        """
        set_up_log("launcher", self._settings)
        loop = asyncio.get_running_loop()
        for watched in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(watched, self._stop_signals.put_nowait, int(watched))
        asked = asyncio.create_task(self._stop_signals.get())
        started = asyncio.create_task(self._start())
        try:
            await asyncio.wait({asked, started}, return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                await started
                await asked
        finally:
            started.cancel()
            await asyncio.gather(started, return_exceptions=True)
            number = asked.result() if asked.done() else int(signal.SIGINT)
            asked.cancel()
            await self._stop(number)
        return 0

    async def _start(self) -> None:
        self._settings = self._with_keys(self._settings)
        set_up_log("launcher", self._settings)
        if not self._settings.redis_url:
            await self._start_redis()
        if self._demo:
            await self._start_simulator()
        record = self._record()
        environ = self._child_environ()
        gateway = Child("gateway", python("-m", "gateway"), environ=environ)
        workers = Child("workers", python("-m", "workers"), environ=environ)
        self._children += [gateway, workers]
        await gateway.start()
        await workers.start()
        await self._wait_until_ready(gateway)
        if record is not None:
            discovery.publish(record, self._published())
        self._say_what_is_there()
        if record is not None:
            await self._keep_published(record)

    def _with_keys(self, settings: Settings) -> Settings:
        """The settings with the keys that nobody gave."""
        if settings.data_save_mode == "redis":
            return settings
        data_dir = Path(settings.data_dir)
        changed: dict[str, str] = {}
        if not settings.api_key:
            fresh = generated_keys.make_api_key()
            if settings.data_save_mode == "none":
                key = generated_keys.Generated(fresh, is_new=True)
            else:
                key = generated_keys.kept(data_dir / "api_key", fresh)
            changed["api_key"] = key.value
            self._new_api_key = key.value if key.is_new else ""
        if not settings.secret_key:
            fresh = generated_keys.make_secret_key()
            if settings.data_save_mode == "file":
                fresh = generated_keys.kept(data_dir / "secret_key", fresh).value
            changed["secret_key"] = fresh
        return msgspec.structs.replace(settings, **changed)

    async def _start_redis(self) -> None:
        self._redis = EmbeddedRedis(
            Path(self._settings.data_dir),
            persist=self._settings.data_save_mode == "file",
            run_directory=self._run,
        )
        await self._redis.start()

    async def _start_simulator(self) -> None:
        """Real accounts never meet the simulator, demo accounts never the real upstream."""
        command = python("-m", "tests.simulator", "--accounts", str(DEMO_ACCOUNTS))
        simulator = Child("simulator", [*command, "--port", "0"], environ=self._base_environ())
        self._children.append(simulator)
        await simulator.start(read_stdout=True)
        line = b"" if simulator.stdout is None else await simulator.stdout.readline()
        url = line.decode().removeprefix("Simulator: ").strip()
        if not url.startswith("http"):
            raise LaunchError("the simulator doesn't start (its own lines are above)")
        # Started again it must be where the others look for it.
        simulator.command = [*command, "--port", url.rpartition(":")[2]]
        accounts = range(1, DEMO_ACCOUNTS + 1)
        self._settings = msgspec.structs.replace(
            self._settings,
            qwen_chat_proxy_url=url,
            qwen_cli_proxy_url=url,
            upload_endpoint_url=url,
            accounts=",".join(f"demo{n}@example.com:demo-password-{n}" for n in accounts),
            proxy_url="",
            login_min_interval_ms=0,
        )

    def _base_environ(self) -> dict[str, str]:
        """Our environment without any setting: those are handed on whole."""
        ours = {name.upper() for name in Settings.__struct_fields__} | set(RENAMED)
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def _child_environ(self) -> dict[str, str]:
        settings = self._settings
        if self._redis is not None:
            settings = msgspec.structs.replace(
                settings, redis_url=self._redis.url, data_save_mode="redis"
            )
        return {**self._base_environ(), **environment_of(settings)}

    def _record(self) -> Path | None:
        if self._redis is None:
            return None
        return discovery.record_path(self._settings.data_dir, self._settings.data_save_mode)

    def _published(self) -> dict[str, str]:
        """What a process started alone needs to work with ours: where, with which keys, on whom."""
        environ = self._child_environ()
        return {name: environ[name] for name in _PUBLISHED if name in environ}

    async def _keep_published(self, record: Path) -> None:
        """Another launcher of this `DATA_DIR` may take the record away when it ends."""
        while True:
            await asyncio.sleep(_PUBLISH_SECONDS)
            discovery.publish(record, self._published(), replace=False)

    async def _wait_until_ready(self, gateway: Child) -> None:
        url = address.base_url(self._settings.listen_address, self._settings.service_port)
        while not await asyncio.to_thread(_answers_200, f"{url}/readyz"):
            if address.TAKEN_STATUS in gateway.exit_statuses:
                raise address.AddressTaken(
                    f"SERVICE_PORT: {self._settings.service_port} was taken just now; "
                    "choose another port"
                )
            if 2 in gateway.exit_statuses:
                raise LaunchError("the gateway refused its configuration (its line is above)")
            await asyncio.sleep(_LOOK_SECONDS)

    def _say_what_is_there(self) -> None:
        url = address.base_url(self._settings.listen_address, self._settings.service_port)
        lines = {"Base URL": url, "Admin page": f"{url}/admin/"}
        if self._demo or self._new_api_key:
            lines["Admin key"] = self._settings.api_keys[0]
        if self._demo:
            lines["Try it"] = _curl(url, self._settings.api_keys[0])
        for name, value in lines.items():
            print(f"{name}: {value}")
        sys.stdout.flush()

    async def _stop(self, number: int) -> None:
        """In order: the gateway drains, the job processes finish their step, Redis is last.

        SIGINT skips the gateway's delay for balancers; a second signal ends what still runs.
        """
        log.info("stopping", extra={"signal": signal.Signals(number).name})
        impatient = asyncio.create_task(self._hurry_when_asked_again())
        settings = self._settings
        drain = settings.drain_delay_seconds + settings.drain_seconds + GATEWAY_GRACE_SECONDS
        graces = {"gateway": drain, "workers": WORKERS_GRACE_SECONDS}
        order = ["gateway", "workers", "simulator"]
        for child in sorted(self._children, key=lambda child: order.index(child.name)):
            first = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
            await child.stop(first, grace_seconds=graces.get(child.name, SIMULATOR_GRACE_SECONDS))
        if self._redis is not None:
            if record := self._record():
                discovery.withdraw(record)
            await self._redis.stop()
        impatient.cancel()
        log.info("stopped")

    async def _hurry_when_asked_again(self) -> None:
        """One more signal: streams end now. Two more: all is killed."""
        await self._next_signal()
        for child in self._children:
            if child.name == "gateway":
                child.send(signal.SIGINT)
        await self._next_signal()
        for child in self._children:
            child.send(signal.SIGKILL)

    async def _next_signal(self) -> None:
        """Another signal, not the echo of the last: `make`, `timeout` and shells that signal a
        group deliver one wish twice."""
        await asyncio.sleep(lifeline.SIGNAL_ECHO_SECONDS)
        while not self._stop_signals.empty():
            self._stop_signals.get_nowait()
        await self._stop_signals.get()


_PUBLISHED: Final = (
    "REDIS_URL",
    "API_KEY",
    "SECRET_KEY",
    "SECRET_KEY_PREVIOUS",
    "QWEN_CHAT_PROXY_URL",
    "QWEN_CLI_PROXY_URL",
    "UPLOAD_ENDPOINT_URL",
)


def _answers_200(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  # our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _curl(url: str, key: str) -> str:
    body = {"model": DEMO_MODEL, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    return shlex.join(
        [
            "curl",
            "-N",
            f"{url}/v1/chat/completions",
            "-H",
            f"Authorization: Bearer {key}",
            "-H",
            "Content-Type: application/json",
            "-d",
            msgspec.json.encode(body).decode(),
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
