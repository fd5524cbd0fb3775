"""A backup: accounts, created API keys and stored settings, taken out and put back.

What is there already stays as it is, except that settings are what they were. So a restore may be
interrupted and run again, and may be run into a gateway that is in use.

Knows: what belongs to a backup. Does not know: its form (`archive.py`).
"""

import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from shared.sealing import SealBroken
from shared.settings import SettingsError
from shared.store import keys
from shared.store.accounts import account_id
from shared.store.archive import AccountCopy, Contents
from shared.store.settings import Author
from shared.store.store import Store

log = logging.getLogger(__name__)

_READ_AT_ONCE: Final = 500
# In the order of lua/account_copy.lua; the first four are sealed.
_COPIED: Final = (
    "password",
    "proxy",
    "cookies",
    "token",
    "enabled",
    "concurrency",
    "token_expires_at",
    "token_at",
)


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What came back of one kind, and what stayed as it was."""

    restored: int
    skipped: int


class Restoration(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore did."""

    accounts: Restored
    keys: Restored
    settings: Restored


async def collect(store: Store) -> Contents:
    """Everything that makes another gateway go on as this one would.

    An account whose secrets this `SECRET_KEY` can't read is left out; the log says how many.

    Script: account_copy.lua
    """
    ids = await store.connection.ask("accounts", "ZRANGE", keys.accounts(), 0, -1)
    accounts: list[AccountCopy] = []
    for start in range(0, len(ids), _READ_AT_ONCE):
        some = ids[start : start + _READ_AT_ONCE]
        rows = await store.connection.run("account_copy", keys.POOL, *some)
        for account, row in zip(some, rows, strict=True):
            if row and (copy := _copy(store, account, row)) is not None:
                accounts.append(copy)
    if len(accounts) < len(ids):
        log.warning("accounts left out of a backup", extra={"accounts": len(ids) - len(accounts)})
    return Contents(
        accounts=accounts,
        keys=await store.api_keys.created(),
        settings=dict(store.settings.stored),
        fingerprint_keys=store.sealer.fingerprint_keys,
    )


async def restore(store: Store, contents: Contents, *, by: Author) -> Restoration:
    """All of it is there again."""
    settings = await _restore_settings(store, contents, by)
    added = 0
    for account in contents.accounts:
        added += await _restore_account(store, account)
    put_back = await store.api_keys.put_back(
        contents.keys, fingerprint_keys=contents.fingerprint_keys
    )
    return Restoration(
        accounts=Restored(restored=added, skipped=len(contents.accounts) - added),
        keys=Restored(restored=put_back, skipped=len(contents.keys) - put_back),
        settings=settings,
    )


def _copy(store: Store, account: str, row: Sequence[str]) -> AccountCopy | None:
    values = dict(zip(_COPIED, row, strict=True))
    place = keys.account(account)
    try:
        secrets = {
            name: store.sealer.unseal(values[name] or "", place=f"{place}#{name}")
            for name in _COPIED[:4]
        }
    except SealBroken:
        return None
    return AccountCopy(
        email=account,
        **secrets,
        enabled=values["enabled"] == "1",
        concurrency=int(values["concurrency"]) if values["concurrency"] else None,
        token_expires_at=float(values["token_expires_at"] or 0),
        token_at=float(values["token_at"]) if values["token_at"] else None,
    )


async def _restore_account(store: Store, copy: AccountCopy) -> bool:
    """Script: account_restore.lua"""
    account = account_id(copy.email)
    place, seal = keys.account(account), store.sealer.seal
    added = await store.connection.run(
        "account_restore",
        keys.POOL,
        account,
        store.settings.current.account_concurrency,
        seal(copy.password, place=f"{place}#password"),
        seal(copy.proxy, place=f"{place}#proxy"),
        store.accounts.egress_of(copy.proxy),
        seal(copy.token, place=f"{place}#token"),
        repr(copy.token_expires_at),
        "" if copy.token_at is None else int(copy.token_at),
        seal(copy.cookies, place=f"{place}#cookies"),
        "1" if copy.enabled else "0",
        "" if copy.concurrency is None else copy.concurrency,
    )
    return bool(added)


async def _restore_settings(store: Store, contents: Contents, by: Author) -> Restored:
    """What this version hasn't got, or doesn't take, is skipped."""
    wanted = dict(contents.settings)
    while wanted:
        try:
            await store.settings.change(wanted, by=by)
            break
        except SettingsError as error:
            log.warning("setting of a backup not used", extra={"setting": error.setting})
            if wanted.pop(error.setting, None) is None:
                raise
    skipped = len(contents.settings) - len(wanted)
    return Restored(restored=len(wanted), skipped=skipped)
