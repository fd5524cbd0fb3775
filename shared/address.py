"""The address the gateway listens on: which it is, whether it is free, how to reach it."""

import contextlib
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from typing import Final

# The exit status of a process that found its address taken (EADDRINUSE of Linux).
TAKEN_STATUS: Final = 98


class AddressTaken(RuntimeError):
    """Another program listens there. The message says what to change."""


def numeric(host: str, port: int) -> str:
    """`localhost` → `127.0.0.1`; an address stays what it is.

    Raises:
        AddressTaken: this machine has no such address.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0].__str__()
    except OSError as error:
        raise AddressTaken(f"LISTEN_ADDRESS: {host} is no address of this machine") from error


def require_free(host: str, port: int) -> None:
    """
    Raises:
        AddressTaken: a program listens there, or listening there isn't allowed.
    """
    address = numeric(host, port)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Not SO_REUSEPORT: with it a second server would share the port silently.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError as error:
            raise AddressTaken(
                f"SERVICE_PORT: listening on {host}:{port} isn't allowed; choose a port above 1023"
            ) from error
        except OSError as error:
            raise AddressTaken(
                f"SERVICE_PORT: {host}:{port} is taken by another program ({error.strerror}); "
                "stop that program or choose another port"
            ) from error


@contextlib.contextmanager
def claimed(host: str, port: int) -> Iterator[None]:
    """`require_free`, and nobody else who asks gets it until the block ends.

    Race: two gateways look at a free port, both find it free, both listen (SO_REUSEPORT lets
    them). So each first binds a name in Linux's abstract namespace, which only one process per
    network namespace can have and which goes with its process.
    """
    if sys.platform != "linux":
        require_free(host, port)
        yield
        return
    with socket.socket(socket.AF_UNIX) as claim:
        try:
            claim.bind(f"\0qwen-gateway/{os.getuid()}/{numeric(host, port)}/{port}")
        except OSError as error:
            raise AddressTaken(
                f"SERVICE_PORT: {host}:{port} is taken by another gateway; "
                "stop it or choose another port"
            ) from error
        require_free(host, port)
        yield


def base_url(host: str, port: int) -> str:
    """Where a program on this machine reaches a server that listens there."""
    address = ipaddress.ip_address(numeric(host, port))
    if address.is_unspecified:
        address = ipaddress.ip_address("::1" if address.version == 6 else "127.0.0.1")
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{shown}:{port}"
