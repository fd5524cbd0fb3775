"""An account as the admin API shows it: its record, what it used, why it is or isn't lent."""

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.resources import Resources
from shared.store.accounts import Account
from shared.store.requests import PastUse

View = dict[str, Any]  # Any: one JSON object


async def views(resources: Resources, accounts: Sequence[Account]) -> list[View]:
    """In their order."""
    usage = resources.store.usage
    used = await usage.of_accounts([account.email for account in accounts], await usage.today())
    return [
        {
            **msgspec.structs.asdict(account),
            "used": {
                "today": {
                    "requests": sums.requests,
                    "input_tokens": sums.input_tokens,
                    "output_tokens": sums.output_tokens,
                }
            },
            "cli": {"state": "off", "requests_today": 0},  # its lane isn't open yet
        }
        for account, sums in zip(accounts, used, strict=True)
    ]


async def explained(resources: Resources, email: str) -> View:
    """The account with everything that tells why it is or isn't chosen now.

    `explain`: one per capability, `{capability, lent, reasons: [{code, message, until}], ahead}`;
    `last_uses`, `last_errors`: newest first, `{at, request_id, model, input_tokens, output_tokens,
    error, message}`.

    Raises:
        NotFound: there is none.
    """
    store = resources.store
    [view] = await views(resources, [await store.accounts.get(email)])
    return view | {
        "explain": await store.explanations.of(email),
        "last_uses": [_shown(use) for use in await store.requests.uses_of(email)],
        "last_errors": [_shown(use) for use in await store.requests.errors_of(email)],
    }


def _shown(past: PastUse) -> View:
    fields = msgspec.structs.asdict(past.use)
    del fields["account"]
    return {"at": past.at, **fields}
