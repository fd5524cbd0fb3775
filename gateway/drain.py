"""Learns from the parent process that this gateway is going away.

The parent of the gateway processes writes one word into the file named by `DRAIN_VARIABLE`:
`draining` = answer 503 on /readyz and go on serving; `ending` = the wait is over, end what is open.
A file of this instance and not Redis: other hosts must not drain too.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

# The variable that tells a gateway process where the file is.
DRAIN_VARIABLE = "GATEWAY_DRAIN_FILE"

LOOK_SECONDS = 0.2


class Drain:
    """What the parent said. `watch` runs as long as the process does."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    @property
    def began(self) -> bool:
        return self._said() != ""

    async def watch(self, on_ending: Callable[[], None]) -> None:
        """Call `on_ending` once, when the wait for open streams is over."""
        while self._said() != "ending":  # noqa: ASYNC110  # a file has no event to wait for
            await asyncio.sleep(LOOK_SECONDS)
        on_ending()

    def _said(self) -> str:
        if self._file is None:
            return ""
        try:
            return self._file.read_text().strip()
        except OSError:
            return ""
