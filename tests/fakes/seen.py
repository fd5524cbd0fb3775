"""What the tests of a client showed, put together for `deploy/clients.py`."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from deploy.clients import Client

Outcome = Literal["works", "fails", "not_yet"]
_RANK: Mapping[Outcome, int] = {"works": 0, "not_yet": 1, "fails": 2}


class Family(msgspec.Struct, frozen=True):
    """The client that a test file is about, as its `client` mark says.

    `npm`, `python` = the package whose version is told, from one or the other.
    """

    name: str
    speaks: str
    npm: str | None = None
    python: str | None = None


class Seen:
    """Takes test after test; what didn't hold once doesn't hold."""

    def __init__(self) -> None:
        self._held: dict[Family, dict[str, Outcome]] = {}

    @property
    def families(self) -> list[Family]:
        return list(self._held)

    def note(self, family: Family, what: str, outcome: Outcome) -> None:
        held = self._held.setdefault(family, {})
        held[what] = max(held.get(what, outcome), outcome, key=_RANK.__getitem__)

    def client(self, family: Family, *, version: str, date: str) -> Client:
        held = self._held[family]

        def those(outcome: Outcome) -> list[str]:
            return [what for what, found in held.items() if found == outcome]

        return Client(
            client=family.name,
            version=version,
            speaks=family.speaks,
            date=date,
            works=those("works"),
            fails=those("fails"),
            not_yet=those("not_yet"),
        )
