"""Account records: add, import, change, list, remove; secrets sealed at rest.

Knows: the fields of an account and who may set them. Does not know: lending (`leases.py`), logging
in (`logins.py`). What these share is in `lua/pool.lua`.

An account's id is its e-mail address, trimmed and in lower case.
"""

import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from shared.errors import Conflict, NotFound
from shared.sealing import SealBroken, Sealer
from shared.settings import AccountEntry
from shared.store import keys
from shared.store.connection import Connection
from shared.store.settings import SettingsInForce

State = Literal["new", "ready", "cooling", "disabled", "dead"]
STATES: Final[tuple[State, ...]] = ("new", "ready", "cooling", "disabled", "dead")

TokenAge = Literal["new", "unknown"]

# The egress of accounts without a proxy of their own: straight out, or through `PROXY_URL`.
COMMON_EGRESS: Final = "direct"

_T = TypeVar("_T")

_SCAN = 2000
_IMPORT_LOOK = 1000
# In the order of lua/account_read.lua.
_FIELDS = (
    "state",
    "proxy",
    "enabled",
    "concurrency",
    "in_flight",
    "token_expires_at",
    "cooldowns",
    "error_at",
    "error_code",
    "error_message",
    "added_at",
    "last_used",
    "state_reason",
    "egress",
)


class CooldownView(msgspec.Struct, frozen=True):
    """A cooldown that lasts: `until` in epoch seconds."""

    capability: str
    until: float
    reason: str


class LastError(msgspec.Struct, frozen=True):
    """The last failure this account had; `at` in epoch seconds."""

    at: int
    code: str
    message: str


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account as an operator sees it: no password, no token; `proxy` without its credentials."""

    email: str
    state: State
    state_reason: str
    proxy: str
    egress: str
    enabled: bool
    concurrency: int | None
    in_flight: int
    token_expires_at: float | None
    cooldowns: list[CooldownView]
    last_error: LastError | None
    added_at: int
    last_used: float | None


class AccountChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What a change may set; what isn't given stays.

    `proxy` and `cookies`: None or '' = none of its own. `concurrency`: None = that of all accounts.
    A new `password` makes the account new: it has no token and isn't dead any more.
    """

    enabled: bool | UnsetType = UNSET
    concurrency: int | UnsetType | None = UNSET
    proxy: str | UnsetType | None = UNSET
    cookies: str | UnsetType | None = UNSET
    password: str | UnsetType = UNSET

    def __repr__(self) -> str:
        """Three of them are secrets."""
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not UNSET]
        return f"AccountChanges({', '.join(given)})"


class Lapsing(msgspec.Struct, frozen=True):
    """An account whose access token lapses soon (epoch seconds), and that token's version."""

    account: str
    expires_at: float
    version: str
    egress: str


class AccountPage(msgspec.Struct, frozen=True):
    """One page of accounts in alphabetical order; `next_cursor` is None on the last."""

    accounts: list[Account]
    next_cursor: str | None


class _StoredCooldown(msgspec.Struct, rename={"until_ms": "until"}):
    until_ms: float
    reason: str


class Accounts:
    """The accounts of the pool."""

    def __init__(
        self, connection: Connection, sealer: Sealer, *, settings: SettingsInForce
    ) -> None:
        self._connection = connection
        self._sealer = sealer
        self._settings = settings

    async def add_missing(self, entries: Iterable[AccountEntry]) -> int:
        """The entries of `ACCOUNTS` are accounts; returns how many this call added or changed.

        Every process may call it: each entry is taken over once, by one of them. A changed password
        or proxy is taken over (a dead account is new again); an account that was deleted since its
        entry was imported stays deleted until the entry changes.
        """
        changed = 0
        unique = {account_id(entry.email): entry for entry in entries}
        for some in _pieces(list(unique.items()), _IMPORT_LOOK):
            known = await self._connection.ask(
                "account_imported", "HMGET", keys.imported(), *(account for account, _ in some)
            )
            for (account, entry), fingerprint in zip(some, known, strict=True):
                changed += await self._import(account, entry, fingerprint)
        return changed

    async def add(
        self,
        email: str,
        password: str,
        *,
        proxy: str = "",
        access_token: str = "",
        token_expires_at: float = 0,
        age: TokenAge = "unknown",
    ) -> None:
        """There is a new account, with its token if it is known already.

        Args:
            age: `new` = the upstream has just given it: its whole life lies before it.

        Raises:
            Conflict: there is one with this e-mail address.
        """
        account = account_id(email)
        done = await self._put(
            account, "add", password, proxy, access_token, token_expires_at, age=age
        )
        if done == "exists":
            raise Conflict("There is an account with this e-mail address.")

    async def replace(
        self, email: str, password: str, *, access_token: str = "", token_expires_at: float = 0
    ) -> None:
        """The account has new credentials; its proxy stays, a dead one is new or ready again."""
        account = account_id(email)
        proxy = await self._proxy(account)
        done = await self._put(account, "replace", password, proxy, access_token, token_expires_at)
        if done == "missing":
            raise NotFound("There is no such account.")

    async def get(self, email: str) -> Account:
        """
        Raises:
            NotFound: there is none.
        """
        found = await self._read([account_id(email)])
        if not found:
            raise NotFound("There is no such account.")
        return found[0]

    async def password(self, email: str) -> str:
        """The password in clear; for an export.

        Raises:
            NotFound: there is none.
            SealBroken: sealed with another `SECRET_KEY`.
        """
        account = account_id(email)
        record = keys.account(account)
        sealed = await self._connection.ask("account_password", "HGET", record, "password")
        if sealed is None:
            raise NotFound("There is no such account.")
        return self._sealer.unseal(sealed, place=f"{record}#password")

    async def page(
        self, *, state: State | None = None, search: str = "", cursor: str = "", limit: int = 100
    ) -> AccountPage:
        """The next page of accounts; `search` is a part of the e-mail address."""
        found: list[Account] = []
        after = cursor
        while len(found) < limit:
            ids, after = await self._scan(after, state or "", search, limit - len(found))
            found += await self._read(ids)
            if not after:
                break
        return AccountPage(found, after or None)

    async def counts(self) -> dict[State, int]:
        """How many accounts are in each state, in O(log n)."""
        numbers = await self._connection.run("pool_state", keys.POOL)
        return dict(zip(STATES, numbers, strict=False))

    async def delete(self, email: str) -> None:
        """The account is gone; what is under way on it may end, nothing new begins.

        Raises:
            NotFound: there was none.
        """
        _found(await self._connection.run("account_delete", keys.POOL, account_id(email)))

    async def change(self, email: str, changes: AccountChanges) -> None:
        """In force with the next lease, all of it at once.

        Raises:
            NotFound: there is none.

        Script: account_change.lua
        """
        account = account_id(email)
        pairs = self._pairs(account, changes)
        if pairs:
            await self._change(account, *pairs)
        else:
            await self.get(account)

    async def set_enabled(self, email: str, enabled: bool) -> None:
        """In force with the next lease."""
        await self.change(email, AccountChanges(enabled=enabled))

    async def set_concurrency(self, email: str, concurrency: int | None) -> None:
        """Leases at once; None = `ACCOUNT_CONCURRENCY`."""
        await self.change(email, AccountChanges(concurrency=concurrency))

    async def set_proxy(self, email: str, proxy: str) -> None:
        """The account leaves through `proxy` ('' = as all do)."""
        await self.change(email, AccountChanges(proxy=proxy))

    async def set_cookies(self, email: str, cookies: str) -> None:
        """Cookies for the upstream's site that belong to this account alone."""
        await self.change(email, AccountChanges(cookies=cookies))

    async def reset(self, email: str) -> None:
        """Ends its cooldowns, the rest of its egress address, its pause after a failed login, and
        death: an operator says that it is well."""
        _found(
            await self._connection.run(
                "account_reset", keys.POOL, account_id(email), self._concurrency
            )
        )

    async def due_for_refresh(self, *, within_seconds: float) -> list[str]:
        """Accounts whose token lapses within that time or that have none, when an operator asks.

        Not those that are disabled or dead. Script: account_due.lua
        """
        due: list[str] = []
        after = ""
        while True:
            ids, after = await self._scan(after, "", "", _IMPORT_LOOK)
            due += await self._connection.run("account_due", keys.POOL, int(within_seconds), *ids)
            if not after:
                return due

    async def lapsing(
        self, *, lead_seconds: float, least_seconds: float, pause_seconds: float
    ) -> list[Lapsing]:
        """Accounts to be renewed ahead, the soonest to lapse first; for the schedule.

        Those that never had a token, are disabled or dead are none of its business. Each account
        has a moment of its own between one and two `lead_seconds` before the end, so that tokens
        given in one hour aren't renewed in one hour. Reads every account: a job's work.

        Args:
            lead_seconds: or a quarter of the token's life, where that is known and shorter.
            least_seconds: no lead is shorter, as far as the token's life allows.
            pause_seconds: an account that has just failed is left alone for so long.

        Script: account_lapsing.lua
        """
        found: list[Lapsing] = []
        after = ""
        while True:
            ids, after = await self._scan(after, "", "", _IMPORT_LOOK)
            words = await self._connection.run(
                "account_lapsing",
                keys.POOL,
                lead_seconds,
                least_seconds,
                pause_seconds,
                *ids,
            )
            rows = zip(words[::4], words[1::4], words[2::4], words[3::4], strict=True)
            found += [Lapsing(row[0], float(row[1]), row[2], row[3]) for row in rows]
            if not after:
                return sorted(found, key=lambda one: one.expires_at)

    def egress_of(self, proxy: str) -> str:
        """The name of the egress address behind `proxy`; tells nothing about its credentials."""
        if not proxy:
            return COMMON_EGRESS
        return self._sealer.fingerprint(proxy, purpose="egress")[:16]

    @property
    def _concurrency(self) -> int:
        return self._settings.current.account_concurrency

    async def _import(self, account: str, entry: AccountEntry, fingerprint: str | None) -> int:
        text = f"{entry.password}\0{entry.proxy}"
        fingerprints = self._sealer.fingerprints(f"{account}\0{text}", purpose="accounts entry")
        if fingerprint == fingerprints[0]:
            return 0
        same = fingerprint in fingerprints  # only SECRET_KEY has changed since
        if same or await self._has_credentials(account, entry):
            await self._connection.ask(
                "account_imported", "HSET", keys.imported(), account, fingerprints[0]
            )
            return 0
        done = await self._put(
            account, "import", entry.password, entry.proxy, "", 0, entry=fingerprints[0]
        )
        return int(done in ("added", "changed"))

    async def _has_credentials(self, account: str, entry: AccountEntry) -> bool:
        """Whether the account is there with just these, perhaps from a batch: its token stays."""
        record = keys.account(account)
        password, proxy, state = await self._connection.ask(
            "account_credentials", "HMGET", record, "password", "proxy", "state"
        )
        if password is None or state == "dead":
            return False
        try:
            return (
                self._sealer.unseal(password, place=f"{record}#password") == entry.password
                and self._sealer.unseal(proxy, place=f"{record}#proxy") == entry.proxy
            )
        except SealBroken:
            return False

    async def _proxy(self, account: str) -> str:
        record = keys.account(account)
        sealed = await self._connection.ask("account_proxy", "HGET", record, "proxy")
        return self._sealer.unseal(sealed or "", place=f"{record}#proxy")

    async def _put(
        self,
        account: str,
        mode: Literal["add", "replace", "import"],
        password: str,
        proxy: str,
        access_token: str,
        token_expires_at: float,
        *,
        entry: str = "",
        age: TokenAge = "unknown",
    ) -> str:
        record = keys.account(account)
        done: str = await self._connection.run(
            "account_put",
            keys.POOL,
            account,
            mode,
            self._concurrency,
            entry,
            self._sealer.seal(password, place=f"{record}#password"),
            self._sealer.seal(proxy, place=f"{record}#proxy"),
            self.egress_of(proxy),
            self._sealer.seal(access_token, place=f"{record}#token"),
            repr(float(token_expires_at)) if access_token else "",
            age,
        )
        return done

    def _pairs(self, account: str, changes: AccountChanges) -> list[str]:
        """Field, value, field, value … as the script takes them."""
        place = keys.account(account)
        pairs: list[str] = []
        if changes.enabled is not UNSET:
            pairs += "enabled", "1" if changes.enabled else "0"
        if changes.concurrency is not UNSET:
            pairs += "concurrency", "" if changes.concurrency is None else str(changes.concurrency)
        if changes.proxy is not UNSET:
            proxy = changes.proxy or ""
            pairs += "proxy", self._sealer.seal(proxy, place=f"{place}#proxy")
            pairs += "egress", self.egress_of(proxy)
        if changes.cookies is not UNSET:
            cookies = self._sealer.seal(changes.cookies or "", place=f"{place}#cookies")
            pairs += "cookies", cookies
        if changes.password is not UNSET:
            pairs += "password", self._sealer.seal(changes.password, place=f"{place}#password")
        return pairs

    async def _change(self, email: str, *pairs: str) -> None:
        _found(
            await self._connection.run(
                "account_change", keys.POOL, account_id(email), self._concurrency, *pairs
            )
        )

    async def _scan(self, after: str, state: str, search: str, limit: int) -> tuple[list[str], str]:
        """Up to `limit` account ids behind `after`, and where to go on ('' = that was all)."""
        next_after, *ids = await self._connection.run(
            "account_list", keys.POOL, after, state, search.strip().lower(), limit, _SCAN
        )
        return ids, next_after

    async def _read(self, ids: Sequence[str]) -> list[Account]:
        """The accounts with these ids that are still there, in one round trip."""
        if not ids:
            return []
        seconds, rows = await self._connection.run("account_read", keys.POOL, *ids)
        now = float(seconds)
        return [
            self._account(account, row, now) for account, row in zip(ids, rows, strict=True) if row
        ]

    def _account(self, account: str, row: Sequence[str], now: float) -> Account:
        values = dict(zip(_FIELDS, row, strict=True))
        cooldowns = _cooldowns(values["cooldowns"], now)
        state: State = "ready" if values["state"] == "ready" else "new"
        if cooldowns:
            state = "cooling"
        if values["state"] == "dead":
            state = "dead"
        if values["enabled"] != "1":
            state = "disabled"
        return Account(
            email=account,
            state=state,
            state_reason=values["state_reason"],
            proxy=self._shown_proxy(account, values["proxy"]),
            egress=values["egress"],
            enabled=values["enabled"] == "1",
            concurrency=int(values["concurrency"]) if values["concurrency"] else None,
            in_flight=int(values["in_flight"]),
            token_expires_at=(
                float(values["token_expires_at"]) if values["token_expires_at"] else None
            ),
            cooldowns=cooldowns,
            last_error=(
                LastError(int(values["error_at"]), values["error_code"], values["error_message"])
                if values["error_at"]
                else None
            ),
            added_at=int(values["added_at"]),
            last_used=float(values["last_used"]) / 1000 if values["last_used"] else None,
        )

    def _shown_proxy(self, account: str, sealed: str) -> str:
        if not sealed:
            return ""
        try:
            proxy = self._sealer.unseal(sealed, place=f"{keys.account(account)}#proxy")
        except SealBroken:
            return "(sealed with another SECRET_KEY)"
        parts = urllib.parse.urlsplit(proxy)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def account_id(email: str) -> str:
    """The id of the account with this e-mail address."""
    return email.strip().lower()


def _found(found: int) -> None:
    if not found:
        raise NotFound("There is no such account.")


def _cooldowns(text: str, now: float) -> list[CooldownView]:
    if not text:
        return []
    stored = msgspec.json.decode(text, type=dict[str, _StoredCooldown])
    return [
        CooldownView(capability, cooldown.until_ms / 1000, cooldown.reason)
        for capability, cooldown in sorted(stored.items())
        if cooldown.until_ms / 1000 > now
    ]


def _pieces(items: list[_T], size: int) -> Iterator[list[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
