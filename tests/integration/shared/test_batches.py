"""Pumps over a real Redis and the simulator: what each end of a login means for its line."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from shared.accounts import Accounts
from shared.batches import LineWork, Pump
from shared.errors import LoginsCrowded
from shared.imports import dry_run, put_down
from shared.intake.lines import BatchLine, InvalidLine, Line
from shared.settings import Settings
from shared.store import keys
from shared.store.outcome import EgressRest
from shared.store.store import Store
from shared.upstream.client import Upstream
from tests.fakes.batches import each
from tests.fakes.redis_server import RedisServer, own_redis, redis_server, redis_url
from tests.simulator.server import Simulator

__all__ = ["own_redis", "redis_server", "redis_url"]

pytestmark = pytest.mark.anyio


class Product:
    """One process's store, upstream and work; further pumps share them."""

    def __init__(self, sim: Simulator, store: Store, settings: Settings) -> None:
        self.sim = sim
        self.store = store
        self.upstream = Upstream(settings)
        self.stopping = asyncio.Event()
        accounts = Accounts(store=store, upstream=self.upstream)
        self.work = LineWork(
            batches=store.batches,
            accounts=accounts,
            upstream=self.upstream,
            egress_rest=EgressRest(seconds=0.3),
        )

    def pump(self, *, share: int = 10) -> Pump:
        return Pump(
            self.work, self.store.batches, share=lambda: share, is_to_stop=self.stopping.is_set
        )

    async def run(self, *, share: int = 10, within_seconds: float = 10) -> None:
        async with asyncio.timeout(within_seconds):
            await self.pump(share=share).run()

    def line(self, which: int, **fields: object) -> BatchLine:
        """A line whose account the simulator knows, unless `password` says otherwise."""
        email = f"line{which}@example.org"
        self.sim.state.accounts.add(email, "right")
        given = {"number": which, "email": email, "password": "right"} | fields
        return BatchLine(**given)  # type: ignore[arg-type]  # fields of any type

    async def statuses(self, batch_id: str) -> list[str]:
        return [result.status async for result in self.store.batches.results(batch_id)]

    async def message(self, batch_id: str) -> str:
        [result] = [result async for result in self.store.batches.results(batch_id)]
        return result.message


@contextlib.asynccontextmanager
async def opened(url: str, **changes: object) -> AsyncIterator[Product]:
    async with Simulator(accounts=0) as sim:
        given = {
            "redis_url": url,
            "secret_key": "0123456789abcdef0123456789abcdef",
            "login_min_interval_ms": 0,
            "qwen_chat_proxy_url": sim.url,
            "batch_login_concurrency": 10,
        }
        settings = Settings(**(given | changes))  # type: ignore[arg-type]  # fields of any type
        async with Store(settings) as store:
            product = Product(sim, store, settings)
            yield product
            await product.upstream.close()


@pytest.fixture
async def product(redis_url: str) -> AsyncIterator[Product]:
    async with opened(redis_url) as product:
        yield product


async def import_of(product: Product, lines: Sequence[Line]) -> str:
    return await put_down(product.store.batches, each(lines))


async def test_a_pump_does_what_waits_and_ends(product: Product) -> None:
    batch_id = await import_of(product, [product.line(number) for number in range(1, 31)])
    await product.run()
    assert await product.statuses(batch_id) == ["succeeded"] * 30
    assert sum(product.sim.stats.logins.values()) == 30


async def test_a_wrong_password_is_tried_once(product: Product) -> None:
    batch_id = await import_of(product, [product.line(1, password="wrong")])
    await product.run()
    assert await product.statuses(batch_id) == ["failed"]
    assert "incorrect" in await product.message(batch_id)
    assert product.sim.stats.total("signin") == 1


async def test_a_token_that_lives_needs_no_login_and_one_that_does_not_does(
    product: Product,
) -> None:
    now = time.time()
    batch_id = await import_of(
        product,
        [
            product.line(1, token="alive", expires_at=now + 86_400),
            product.line(2, token="lapsed", expires_at=now - 1),
            product.line(3, token="lapsing", expires_at=now + 60),
        ],
    )
    await product.run()
    assert await product.statuses(batch_id) == ["succeeded"] * 3
    assert set(product.sim.stats.logins) == {"line2@example.org", "line3@example.org"}
    account = await product.store.accounts.get("line1@example.org")
    assert account.token_expires_at == pytest.approx(now + 86_400)


async def test_what_may_pass_is_tried_three_times(product: Product) -> None:
    batch_id = await import_of(product, [product.line(1)])
    product.sim.next(operation="signin", fail="html_502", times=0)
    await product.run(within_seconds=15)
    assert await product.statuses(batch_id) == ["failed"]
    assert "502" in await product.message(batch_id)
    assert product.sim.stats.total("signin") == 3


async def test_an_unreachable_proxy_fails_its_line_with_a_reason_and_no_other(
    product: Product,
) -> None:
    batch_id = await import_of(
        product, [product.line(1, proxy="http://user:hidden@127.0.0.1:9"), product.line(2)]
    )
    await product.run(within_seconds=15)
    assert await product.statuses(batch_id) == ["failed", "succeeded"]
    results = [result async for result in product.store.batches.results(batch_id)]
    assert results[0].message
    assert "hidden" not in results[0].message


async def test_a_firewall_rests_the_egress_and_the_line_waits_however_often(
    product: Product,
) -> None:
    batch_id = await import_of(product, [product.line(1)])
    product.sim.next(operation="signin", fail="waf_page", times=4)
    began = time.monotonic()
    await product.run(within_seconds=15)
    assert await product.statuses(batch_id) == ["succeeded"]
    assert time.monotonic() - began >= 4 * 0.3
    assert product.sim.stats.total("signin") == 5


async def test_a_429_slows_the_egress_down_by_what_it_says(product: Product) -> None:
    batch_id = await import_of(product, [product.line(number) for number in range(1, 11)])
    product.sim.next(operation="signin", status=429, headers={"retry-after": "1"}, times=3)
    await product.run(share=3, within_seconds=20)
    assert await product.statuses(batch_id) == ["succeeded"] * 10
    moments = [entry.at for entry in product.sim.stats.login_log]
    gaps = [later - sooner for sooner, later in itertools.pairwise(moments)]
    assert min(gaps[:3]) > 0.3  # one after the other, half a second apart at first
    pace = await product.store.connection.ask("test", "GET", keys.login_pace("direct"))
    assert pace is None or int(pace.partition(":")[0]) < 500


async def test_a_line_whose_input_cannot_be_read_any_more_fails(product: Product) -> None:
    batch_id = await import_of(product, [product.line(1), product.line(2)])
    await product.store.connection.ask("test", "HDEL", keys.batch_inputs(batch_id), "1")
    await product.run()
    assert await product.statuses(batch_id) == ["failed", "succeeded"]


async def test_a_pump_that_is_told_to_stop_begins_nothing_and_ends_what_it_began(
    product: Product,
) -> None:
    product.sim.state.config.latency_ms = {"signin": 300}
    batch_id = await import_of(product, [product.line(number) for number in range(1, 31)])
    running = asyncio.create_task(product.pump(share=3).run())
    await until(lambda: product.sim.stats.total("signin") >= 3)
    product.stopping.set()
    async with asyncio.timeout(2):
        await running
    statuses = await product.statuses(batch_id)
    assert 3 <= statuses.count("succeeded") <= 6
    assert (await product.store.batches.get(batch_id)).active == []


async def test_a_pump_that_is_cancelled_gives_its_lines_back_at_once(product: Product) -> None:
    product.sim.next(operation="signin", hang="before", times=3)
    batch_id = await import_of(product, [product.line(number) for number in range(1, 4)])
    running = asyncio.create_task(product.pump(share=3).run())
    await until(lambda: product.sim.stats.total("signin") == 3)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await product.store.batches.get(batch_id)).active == []
    await product.run(within_seconds=3)
    assert await product.statuses(batch_id) == ["succeeded"] * 3


async def test_a_cancelled_batch_begins_no_line_that_still_waits_for_its_turn(
    redis_url: str,
) -> None:
    async with opened(redis_url, login_min_interval_ms=250) as product:
        batch_id = await import_of(product, [product.line(number) for number in range(1, 5)])
        running = asyncio.create_task(product.pump().run())
        await until(lambda: product.sim.stats.total("signin") == 1)
        async with asyncio.timeout(2):
            while len((await product.store.batches.get(batch_id)).active) != 1:
                await asyncio.sleep(0.005)
        await product.store.batches.cancel(batch_id)
        async with asyncio.timeout(3):
            await running
        assert product.sim.stats.total("signin") == 1


async def test_a_refresh_gives_accounts_of_the_pool_new_tokens(product: Product) -> None:
    for number in (1, 2):
        product.line(number)
        await product.store.accounts.add(f"line{number}@example.org", "right")
    await product.store.accounts.add("line3@example.org", "wrong")
    batches = product.store.batches
    batch_id = await batches.open("refresh")
    emails = [f"line{number}@example.org" for number in (1, 2, 3)]
    await batches.add_accounts(batch_id, [*emails, "nobody@example.org"])
    await batches.start(batch_id)
    await product.run()
    assert await product.statuses(batch_id) == ["succeeded", "succeeded", "failed", "failed"]
    states = [(await product.store.accounts.get(email)).state for email in emails]
    assert states == ["ready", "ready", "dead"]


async def test_redis_frozen_for_longer_than_a_time_out_loses_nothing(
    own_redis: RedisServer,
) -> None:
    async with opened(own_redis.url) as product:
        product.sim.state.config.latency_ms = {"signin": 100}
        batch_id = await import_of(product, [product.line(number) for number in range(1, 81)])
        running = asyncio.create_task(product.pump().run())
        await until(lambda: product.sim.stats.total("signin") >= 10)
        own_redis.freeze()
        await asyncio.sleep(2)
        own_redis.thaw()
        async with asyncio.timeout(30):
            await running
            while (await product.store.batches.get(batch_id)).state != "completed":
                await product.pump().run()
                await asyncio.sleep(0.2)
        batch = await product.store.batches.get(batch_id)
        assert (batch.succeeded, batch.failed) == (80, 0)
        assert sum(product.sim.stats.logins.values()) == 80


async def test_a_change_of_the_share_counts_in_the_next_round(product: Product) -> None:
    product.sim.state.config.latency_ms = {"signin": 200}
    await import_of(product, [product.line(number) for number in range(1, 31)])
    shares = {"now": 1}
    pump = Pump(
        product.work,
        product.store.batches,
        share=lambda: shares["now"],
        is_to_stop=product.stopping.is_set,
    )
    running = asyncio.create_task(pump.run())
    await until(lambda: product.sim.stats.total("signin") == 2)
    shares["now"] = 10
    await until(lambda: product.sim.stats.total("signin") >= 12, within_seconds=1)
    async with asyncio.timeout(5):
        await running


async def test_a_fault_of_ours_tries_the_line_again_and_fails_it_at_last(
    product: Product,
) -> None:
    """A batch must not stand still for ever because of one line."""
    batch_id = await import_of(product, [product.line(1), product.line(2)])
    before = product.upstream.sign_in

    async def broken(email: str, *given: str, **named: str) -> object:
        if email.startswith("line1"):
            raise ZeroDivisionError
        return await before(email, *given, **named)

    product.upstream.sign_in = broken  # type: ignore[assignment,method-assign]  # a bug of ours
    await product.run(within_seconds=15)
    assert await product.statuses(batch_id) == ["failed", "succeeded"]


async def test_the_lines_of_a_batch_are_sorted_as_a_dry_run_says(product: Product) -> None:
    await product.store.accounts.add("line2@example.org", "right")
    lines: list[Line] = [
        product.line(1),
        InvalidLine(number=3, reason="no password", email="x@example.org"),
        product.line(2),
        product.line(1, number=7, email=" LINE1@example.org "),
    ]
    told = [line async for line in dry_run(product.store.batches, each(lines))]
    assert [(line.line, line.status) for line in told] == [
        (1, "valid"),
        (3, "invalid"),
        (2, "skipped"),
        (7, "skipped"),
    ]
    assert await product.store.batches.newest() == []


async def until(look: Callable[[], bool], *, within_seconds: float = 5.0) -> None:
    async with asyncio.timeout(within_seconds):
        while not look():
            await asyncio.sleep(0.005)


class Crowded(Accounts):
    """Accounts behind so many other logins that their turn doesn't come."""

    async def refresh(self, email: str, *, wait_seconds: float = 0) -> None:
        raise LoginsCrowded


async def test_a_refresh_whose_turn_to_log_in_does_not_come_waits_again_and_that_was_no_try(
    product: Product,
) -> None:
    batches = product.store.batches
    await product.store.accounts.add("a@example.org", "pw")
    batch_id = await batches.open("refresh")
    await batches.add_accounts(batch_id, ["a@example.org"])
    await batches.start(batch_id)
    crowded = Crowded(store=product.store, upstream=product.upstream)
    [claim] = (await batches.claim(want=1)).claims
    await LineWork(batches=batches, accounts=crowded, upstream=product.upstream).do(claim)
    assert await product.statuses(batch_id) == ["waiting"]
    tries = await product.store.connection.ask("test", "HGET", keys.batch_tries(batch_id), "1")
    assert tries is None
