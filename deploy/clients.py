"""Which clients were seen to work: `tests/clients/seen.json`, and its table for the README.

`make clients` runs real agents and SDKs and writes the file (tests/clients/conftest.py).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

SEEN: Final = Path(__file__).resolve().parent.parent / "tests" / "clients" / "seen.json"


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A client at one version. `works`, `fails`, `not_yet` = what its tests showed, in words.

    `speaks` = the API it used; `date` = the day, ISO 8601.
    """

    client: str
    version: str
    speaks: str
    date: str
    works: list[str] = []
    fails: list[str] = []
    not_yet: list[str] = []


def read_seen(path: Path = SEEN) -> list[Client]:
    return msgspec.json.decode(path.read_bytes(), type=list[Client])


def write_seen(clients: Sequence[Client], path: Path = SEEN) -> None:
    """In the order of the names, so that the difference between two runs is what changed."""
    ordered = sorted(clients, key=lambda one: one.client.casefold())
    path.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n")


def markdown_table(path: Path = SEEN) -> str:
    """The table of the README."""
    rows = [f"| {_row(client)} |" for client in read_seen(path)]
    head = ["| client | version | API | seen to work | seen on |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _row(client: Client) -> str:
    parts = list(client.works)
    parts += [f"**fails:** {what}" for what in client.fails]
    parts += [f"*not yet:* {what}" for what in client.not_yet]
    cells = (client.client, client.version, client.speaks, " · ".join(parts), client.date)
    return " | ".join(cell.replace("|", "\\|") for cell in cells)
