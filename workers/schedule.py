"""The periodic jobs, in one table. A slot that was missed while nobody ran is made up for once."""

from typing import Final

import msgspec


class Periodic(msgspec.Struct, frozen=True):
    """`job` runs once in every period of `period_seconds`, whoever of the fleet is there."""

    job: str
    period_seconds: float


PERIODIC: Final = (
    Periodic("sweep", period_seconds=15.0),
    Periodic("refresh_tokens", period_seconds=30.0),
    Periodic("rotate_secret_key", period_seconds=60.0),
    Periodic("batches", period_seconds=5.0),
)
