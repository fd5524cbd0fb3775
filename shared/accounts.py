"""What needs both the store and the upstream: a session whose access token is good.

Logging in is single flight over all processes: the store hands out a claim with a fence, and a
holder that came back too late can't write over a newer token.
"""

import asyncio
import logging
import time

from shared import metrics
from shared.errors import AccountDead, GatewayError, LoginFailed
from shared.settings import Settings, parse_accounts
from shared.store.accounts import Account
from shared.store.logins import Claim, FreshToken
from shared.store.store import Store
from shared.upstream.client import Session, Upstream

log = logging.getLogger(__name__)

# A token is renewed when less than this is left of it (protocol sheet 15.1).
TOKEN_MARGIN_SECONDS = 300

# A turn that would stand in line for a login longer than this tries another account instead.
LONGEST_LOGIN_WAIT_SECONDS = 15


class Accounts:
    """Sessions for lent accounts. One per process."""

    def __init__(self, *, settings: Settings, store: Store, upstream: Upstream) -> None:
        self._settings = settings
        self._store = store
        self._upstream = upstream

    async def session(self, account: Account) -> Session:
        """A session with a live token; logs in when there is none.

        Raises:
            AccountDead: its password is wrong or it isn't activated; it is marked so.
            LoginFailed: not now.
            UpstreamBlocked: the firewall refuses this egress.
            StoreUnavailable: Redis did not answer.
        """
        if account.token and account.token_expires_at - time.time() > TOKEN_MARGIN_SECONDS:
            return self._session(account, account.token)
        return await self._renewed(account, rejected_token=None)

    async def renew(self, account: Account, *, rejected: Session) -> Session:
        """A session with another token than the rejected one. Raises as `session` does."""
        return await self._renewed(account, rejected_token=rejected.token)

    async def add_from_environment(self) -> None:
        """Add the accounts of `ACCOUNTS`; one process does it, the others see it done."""
        entries = parse_accounts(self._settings.accounts)
        if entries:
            added = await self._store.accounts.add_missing(entries)
            if added:
                log.info("accounts added from ACCOUNTS", extra={"accounts": added})

    async def _renewed(self, account: Account, *, rejected_token: str | None) -> Session:
        give_up_at = time.monotonic() + LONGEST_LOGIN_WAIT_SECONDS
        while True:
            answer = await self._store.logins.claim(account, rejected_token=rejected_token)
            match answer:
                case FreshToken(token):
                    return self._session(account, token)
                case Claim():
                    return self._session(account, await self._log_in(account, answer))
                case _:
                    if time.monotonic() > give_up_at:
                        raise LoginFailed("Another process is still logging this account in")
                    await self._store.logins.wait(account, answer)

    async def _log_in(self, account: Account, claim: Claim) -> str:
        """Sign in under the claim and store the token, or the reason why there is none."""
        if claim.start_in_ms > LONGEST_LOGIN_WAIT_SECONDS * 1000:
            error = LoginFailed("Too many logins are waiting for this egress address")
            await self._store.logins.fail(account, claim, error)
            raise error
        await asyncio.sleep(claim.start_in_ms / 1000)
        try:
            token = await self._upstream.sign_in(
                account.email, claim.password, proxy=account.proxy, cookies=account.site_cookies
            )
        except BaseException as error:
            metrics.LOGINS.of("failed").inc()
            reason = error if isinstance(error, GatewayError) else LoginFailed("cancelled")
            await asyncio.shield(self._store.logins.fail(account, claim, reason))
            if isinstance(error, AccountDead):
                log.warning("account is dead", extra={"error": error.message})
            raise
        metrics.LOGINS.of("succeeded").inc()
        await self._store.logins.store(account, claim, token.token, token.expires_at)
        return token.token

    def _session(self, account: Account, token: str) -> Session:
        return Session(
            email=account.email, token=token, proxy=account.proxy, cookies=account.site_cookies
        )
