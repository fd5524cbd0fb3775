"""Settings and API keys of a Qwen2API instance, in force here.

Accounts come as lines of a batch; this is what lies beside them. A setting that we don't accept is
left out and told. A key that holds here already stays what it is; every other one becomes a regular
key, the old admin key, too: who administrates is said by `API_KEY` alone.

Knows: what is taken over and what is not. Does not know: where it was found.
"""

import logging

import msgspec

from shared.errors import Conflict
from shared.intake.qwen2api import read_kept
from shared.settings import SettingsError
from shared.store.settings import Author
from shared.store.store import Store

log = logging.getLogger(__name__)

KEY_NAME = "Qwen2API"


class TakenOver(msgspec.Struct, frozen=True):
    """What came along: names of settings, how many keys were new, what was refused and why."""

    settings: list[str]
    api_keys: int
    refused: list[str]


async def take_over(store: Store, kept: bytes, *, by: Author) -> TakenOver:
    """These settings (JSON as Qwen2API keeps it) are stored, its keys hold. Again: no change.

    Raises:
        StoreUnavailable: Redis did not answer; what came before is in force.
    """
    found = read_kept(kept)
    settings, refused = [], []
    for name, value in found.settings.items():
        try:
            await store.settings.change({name: value}, by=by)
            settings.append(name)
        except (SettingsError, Conflict) as error:
            refused.append(str(error))
    adopted = 0
    for number, key in enumerate(found.api_keys, start=1):
        adopted += await store.api_keys.adopt(key, f"{KEY_NAME} {number}")
    log.info(
        "taken over from Qwen2API",
        extra={"settings": settings, "api_keys": adopted, "refused": refused},
    )
    return TakenOver(settings, adopted, refused)
