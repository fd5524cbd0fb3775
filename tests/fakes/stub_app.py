"""A small ASGI app in place of the gateway's, for tests of the server around it.

/readyz      200 "ready", or 503 once the drain file exists
/pid         the pid of the answering worker process
/crash       that process ends with -9
/stream?n=N  N lines, ten a second; ends with "ending" when the drain file says so
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any


def create_app() -> Any:
    drain_file = Path(os.environ["GATEWAY_DRAIN_FILE"])

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        status, lines = 200, _lines(scope, drain_file)
        if scope["path"] == "/readyz" and drain_file.exists():
            status = 503
        await send({"type": "http.response.start", "status": status, "headers": []})
        async for line in lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


async def _lines(scope: dict[str, Any], drain_file: Path) -> Any:
    match scope["path"]:
        case "/pid":
            yield str(os.getpid()).encode()
        case "/crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "/stream":
            for number in range(int(scope["query_string"].removeprefix(b"n="))):
                yield b"%d\n" % number
                await asyncio.sleep(0.1)
                if drain_file.exists() and drain_file.read_text() == "ending":
                    yield b"ending\n"
                    return
        case _:
            yield b"ready"
