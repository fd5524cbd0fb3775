"""While `SECRET_KEY_PREVIOUS` is given, what it sealed is sealed anew with `SECRET_KEY`.

Nobody waits for it: every process reads both. Processes that still run with the old key may seal
with it, so a round is made every minute until an operator takes the previous key away; the log says
when nothing is left of it.
"""

import logging

from shared.store.rotation import Rotation
from workers.runtime import Resources, lasting_job

log = logging.getLogger(__name__)


async def _given_up(resources: Resources) -> None:
    """The next slot begins anew."""


@lasting_job(given_up=_given_up)
async def run(resources: Resources) -> None:
    """Nothing is sealed with the previous key any more."""
    if not resources.settings.secret_key_previous:
        return
    rotation = Rotation(resources.store.connection, resources.store.sealer)
    while (done := await rotation.run()).sealed:
        log.info("SECRET_KEY rotation goes on", extra={"sealed_anew": done.sealed})
    if done.unreadable:
        log.warning(
            "SECRET_KEY rotation: some secrets were sealed with a third key",
            extra={"unreadable": done.unreadable},
        )
    else:
        log.info("SECRET_KEY rotation is complete: SECRET_KEY_PREVIOUS can be taken away")
