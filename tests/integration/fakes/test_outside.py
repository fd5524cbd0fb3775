"""The proxy behind which the agents run: loopback is reached, everybody else is remembered."""

import socket
import threading

import httpx
import pytest

from tests.fakes.outside import Outside


def test_who_wants_out_is_refused_and_remembered() -> None:
    with Outside() as outside, httpx.Client(proxy=outside.environ["HTTPS_PROXY"]) as client:
        with pytest.raises(httpx.ProxyError):
            client.get("https://example.com/")
        assert outside.asked == ["CONNECT example.com:443 HTTP/1.1"]
        assert client.get("http://example.com/").status_code == 403
        assert outside.asked[1:] == ["GET http://example.com/ HTTP/1.1"]


def test_loopback_is_reached_both_ways() -> None:
    def shout(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            while piece := peer.recv(100):
                peer.sendall(piece.upper())

    with socket.create_server(("127.0.0.1", 0)) as listener, Outside() as outside:
        thread = threading.Thread(target=shout, args=(listener,), daemon=True)
        thread.start()
        proxy = int(outside.environ["HTTPS_PROXY"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", proxy), timeout=5) as client:
            port = listener.getsockname()[1]
            client.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""
        thread.join(5)
        assert outside.asked == []
