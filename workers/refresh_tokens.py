"""Access tokens are renewed before they lapse, one account after the other over the whole fleet.

A step looks for the accounts whose moment has come and renews them until none is left. It is the
only one (the next is put down when it has ended), and single flight with turns that need a token:
whoever logs in first does it for both. Accounts that are dead, disabled or were never needed are
left alone.
"""

import logging
from typing import Final

from shared.accounts import TOKEN_MARGIN_SECONDS
from shared.errors import AccountDead, LoginFailed, NoAccount, NotFound, UpstreamBlocked
from shared.store.accounts import Lapsing
from workers.runtime import Resources, lasting_job

log = logging.getLogger(__name__)

LEAD_SECONDS: Final = 86_400
"""Protocol sheet 1: a token lives about 30 days; existing clients renew it in its last day."""

PAUSE_SECONDS: Final = 60
"""An account that has just failed lets the others go first."""


async def _given_up(resources: Resources) -> None:
    """The next slot begins anew: there is no record to tell."""


@lasting_job(given_up=_given_up)
async def run(resources: Resources) -> None:
    """Every token that was due is renewed, or its account's failure noted."""
    if not _is_wanted(resources):
        return
    due = await resources.store.accounts.lapsing(
        lead_seconds=LEAD_SECONDS, least_seconds=TOKEN_MARGIN_SECONDS, pause_seconds=PAUSE_SECONDS
    )
    renewed = 0
    refused: set[str] = set()  # egress addresses that need a rest from us
    for one in due:
        if not _is_wanted(resources):
            break
        if one.egress not in refused:
            renewed += await _renew(resources, one, refused)
    if due:
        log.info("tokens renewed", extra={"due": len(due), "renewed": renewed})


def _is_wanted(resources: Resources) -> bool:
    """An operator may change it while we are at it."""
    return resources.settings.auto_refresh


async def _renew(resources: Resources, one: Lapsing, refused: set[str]) -> bool:
    """Whether we did. What a failure means for its account is written down where it happened."""
    try:
        return await resources.accounts.renew_ahead(one.account, version=one.version)
    except (AccountDead, NoAccount, NotFound):
        pass  # it is dead now, or somebody disabled or deleted it meanwhile
    except (LoginFailed, UpstreamBlocked):
        refused.add(one.egress)
    return False
