"""Object storage (stub, deepened next)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulator.connection import Exchange

if TYPE_CHECKING:
    from tests.simulator.config import Config


class Storage:
    def usable(self, url: str, exchange: Exchange, config: Config) -> bool:
        return not url.startswith("data:")
