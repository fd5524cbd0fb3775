"""A forward proxy that leads to loopback only and remembers who wanted further.

    with Outside() as outside:
        subprocess.run([...], env={**outside.environ, ...})
        assert outside.asked == []

Programs that honour `HTTPS_PROXY` reach loopback and nothing else; what they tried is in `asked`.
Those that don't honour `NO_PROXY` (Qwen Code) find their way to loopback through here.
"""

import contextlib
import re
import socket
import socketserver
import threading
from types import TracebackType
from typing import Self

_ACCEPTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REFUSAL = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Outside:
    """`asked`: the request line of everybody who wanted out: `CONNECT example.com:443 HTTP/1.1`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._server = _Server(self.asked)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def environ(self) -> dict[str, str]:
        """What makes a program go through here, in both spellings that are in use."""
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        said = {"HTTP_PROXY": url, "HTTPS_PROXY": url, "ALL_PROXY": url}
        said["NO_PROXY"] = "127.0.0.1,localhost"
        return said | {name.lower(): value for name, value in said.items()}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, asked: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Door)
        self.asked = asked


class _Door(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        line = self.rfile.readline(2000).decode("latin-1").strip()
        while self.rfile.readline(2000).strip():
            pass
        if loopback := re.match(r"CONNECT (?:127\.0\.0\.1|localhost):(\d+) ", line):
            self._tunnel(int(loopback[1]))
        else:
            self.server.asked.append(line)
            self.wfile.write(_REFUSAL)

    def _tunnel(self, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as far:
            self.wfile.write(_ACCEPTED)
            back = threading.Thread(target=_copy, args=(far, self.connection), daemon=True)
            back.start()
            _copy(self.connection, far)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Everything, and the end of it."""
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
