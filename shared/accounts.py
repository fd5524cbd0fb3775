"""What needs both the store and the upstream: a session whose access token is good.

Logging in is single flight over all processes: the store hands out a claim with a fence, and a
holder that came back too late can't write over a newer token.
"""

import asyncio
import logging
import time

from shared import metrics
from shared.errors import AccountDead, Conflict, GatewayError, LoginsCrowded, UpstreamBlocked
from shared.settings import parse_accounts
from shared.store.accounts import account_id
from shared.store.leases import Lease
from shared.store.logins import Claim, FreshToken, Wait
from shared.store.outcome import EgressRest
from shared.store.store import Store
from shared.upstream.client import Session, Upstream
from shared.upstream.login import AccessToken

log = logging.getLogger(__name__)

# A token is renewed when less than this is left of it (protocol sheet 15.1).
TOKEN_MARGIN_SECONDS = 300

# How long a turn stands in line for the login of its account before it tries another one.
LOGIN_WAIT_SECONDS = 30

# How long nobody tries an account again whose login failed for no reason of its own. Failures that
# hit every account alike rest none for more than 5 s (contract.md 4).
LOGIN_PAUSE_SECONDS = 5

# How an egress address rests after a firewall's refusal (sheet 15.4: "for minutes").
EGRESS_REST = EgressRest(seconds=120)


class Accounts:
    """Sessions for lent accounts, and the verbs of an operator that need both. One per process."""

    def __init__(self, *, store: Store, upstream: Upstream) -> None:
        self._store = store
        self._upstream = upstream

    async def session(self, lease: Lease) -> Session:
        """A session with a live token; logs in when there is none.

        Raises:
            AccountDead: its password is wrong or it isn't activated; it is marked so.
            LoginFailed: not now.
            UpstreamBlocked: the firewall refuses this egress.
            StoreUnavailable: Redis did not answer.
        """
        if lease.signed_in and lease.token_expires_at - time.time() > TOKEN_MARGIN_SECONDS:
            return _session(lease, lease.access_token)
        return await self._logged_in(lease, rejected_version="")

    async def renew(self, lease: Lease) -> Session:
        """A session with another token than the lease's, which was refused. Raises as `session`."""
        return await self._logged_in(lease, rejected_version=lease.token_version)

    async def add(self, email: str, password: str, *, proxy: str = "") -> None:
        """There is a new account and it is signed in; when that fails, nothing is kept of it.

        Raises:
            Conflict: there is one with this e-mail address, or somebody is just adding it.
            LoginFailed: the upstream doesn't let it log in (`AccountDead`: and never will), or
                too many logins wait for this egress (`LoginsCrowded`).
            UpstreamBlocked: the firewall refuses this egress.
            StoreUnavailable: Redis did not answer.
        """
        accounts, logins = self._store.accounts, self._store.logins
        claim = await logins.claim_new(
            account_id(email),
            password=password,
            proxy=proxy,
            egress=accounts.egress_of(proxy),
            patience_seconds=LOGIN_WAIT_SECONDS,
        )
        if isinstance(claim, Wait):
            if claim.spaced:
                raise LoginsCrowded(retry_after_seconds=max(1, claim.milliseconds / 1000))
            raise Conflict("Somebody is just adding this account")
        token = await self._sign_in(claim)
        await asyncio.shield(asyncio.ensure_future(self._add(claim, token)))

    async def refresh(self, email: str, *, wait_seconds: float = LOGIN_WAIT_SECONDS) -> None:
        """The account has a new access token; whoever is just logging it in does it for us, too.

        An operator asks for it: a dead account is tried, and alive when that goes well.

        Args:
            wait_seconds: for its turn to log in.

        Raises:
            NotFound: there is none.
            others: as `session`.
        """
        account = account_id(email)
        answer = await self._store.logins.claim_or_wait(
            account,
            rejected_version=await self._store.logins.token_version(account),
            wait_seconds=wait_seconds,
            by_hand=True,
        )
        if isinstance(answer, Claim):
            await self._log_in(answer)

    async def renew_ahead(self, account: str, *, version: str) -> bool:
        """The account has another token than that of `version`; returns whether we got it.

        Raises:
            NoAccount, NotFound: it was disabled or deleted meanwhile.
            others: as `session`.
        """
        answer = await self._store.logins.claim_or_wait(
            account,
            rejected_version=version,
            wait_seconds=LOGIN_WAIT_SECONDS,
            margin_seconds=TOKEN_MARGIN_SECONDS,
        )
        if isinstance(answer, FreshToken):
            return False
        await self._log_in(answer)
        return True

    async def add_from_environment(self) -> None:
        """Add the accounts of `ACCOUNTS`; one process does it, the others see it done."""
        entries = parse_accounts(self._store.settings.configured.accounts)
        if entries:
            await self._store.accounts.add_missing(entries)

    async def _logged_in(self, lease: Lease, *, rejected_version: str) -> Session:
        answer = await self._store.logins.claim_or_wait(
            lease.account,
            rejected_version=rejected_version,
            wait_seconds=LOGIN_WAIT_SECONDS,
            margin_seconds=TOKEN_MARGIN_SECONDS,
        )
        if isinstance(answer, FreshToken):
            return _session(lease, answer.access_token)
        return _session(lease, await self._log_in(answer))

    async def _log_in(self, claim: Claim) -> str:
        """Sign in under the claim and store the token, or the reason why there is none."""
        token = await self._sign_in(claim)
        await self._store.logins.store(claim, token.token, expires_at=token.expires_at)
        return token.token

    async def _add(self, claim: Claim, token: AccessToken) -> None:
        try:
            await self._store.accounts.add(
                claim.account,
                claim.password,
                proxy=claim.proxy,
                access_token=token.token,
                token_expires_at=token.expires_at,
                age="new",
            )
        finally:
            await self._store.logins.give_up(claim)

    async def _sign_in(self, claim: Claim) -> AccessToken:
        """The token the upstream gives; a failure is told to everybody who waits for it."""
        try:
            await asyncio.sleep(claim.start_in_ms / 1000)
            token = await self._upstream.sign_in(
                claim.account, claim.password, proxy=claim.proxy, cookies=claim.cookies
            )
        except GatewayError as error:
            await self._note_failure(claim, error)
            raise
        except asyncio.CancelledError:
            # The caller left. Who waits for this login takes over at once.
            await self._store.logins.give_up(claim)
            raise
        metrics.LOGINS.of("succeeded").inc()
        return token

    async def _note_failure(self, claim: Claim, error: GatewayError) -> None:
        dead = isinstance(error, AccountDead)
        metrics.LOGINS.of("dead" if dead else "failed").inc()
        log.warning("login failed", extra={"account": claim.account, "error": error.message})
        # A firewall's refusal rests the egress: the account is not to blame.
        blocked = isinstance(error, UpstreamBlocked)
        await self._store.logins.fail(
            claim,
            code=error.code,
            reason=error.message,
            dead=dead,
            pause_seconds=0 if blocked else error.retry_after_seconds or LOGIN_PAUSE_SECONDS,
            egress_rest=EGRESS_REST if blocked else None,
        )


def _session(lease: Lease, token: str) -> Session:
    return Session(email=lease.account, token=token, proxy=lease.proxy, cookies=lease.cookies)
