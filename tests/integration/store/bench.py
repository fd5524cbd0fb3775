"""What a turn costs at the store: `python -m tests.integration.store.bench [accounts]`.

Prints the server's time per script in each situation, and pairs of acquire and release per second
from one process (uvloop), with the client's CPU time per pair. On a noisy 2-core machine, Valkey 9.1,
2026-11-23 (without an account to lend there is nothing to release):

    10000 accounts; microseconds of the server per script
    situation                                        acquire release  p99 of an acquire seen by the client
    all ready                                             75      43    3674
    all must log in                                       70      36     499
    each with its own egress                              86      41    2885
    all busy                                              43     nan     595
    all cooling                                           33     nan     324
    one egress resting with nearly all behind it          20      50     224
    all but one dead                                      27      54     271
    half dead, half signed in                             44      29     325
       1 at once:   3452 pairs/s,  177 µs CPU a pair
       8 at once:   3986 pairs/s,  135 µs CPU a pair
      32 at once:   6594 pairs/s,  122 µs CPU a pair
     100 at once:   4504 pairs/s,  141 µs CPU a pair
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from shared.errors import GatewayError
from shared.settings import Settings
from shared.store.leases import SERVED
from shared.store.store import Store
from tests.fakes.redis_server import RedisServer
from tests.integration.store.crowd import SITUATIONS, crowd

TURNS = 1000


async def situations(server: RedisServer, accounts: int) -> None:
    print(f"{accounts} accounts; microseconds of the server per script")
    print(f"{'situation':48} acquire release  p99 of an acquire seen by the client")
    for situation in SITUATIONS:
        server.command("FLUSHALL")
        async with Store(Settings(redis_url=server.url, secret_key="x" * 32)) as store:
            await crowd(store, situation, accounts)
            acquire = await cost(server, store, accounts)
        print(f"{situation:48} {acquire}", flush=True)


async def cost(server: RedisServer, store: Store, accounts: int) -> str:
    waits, leases = [], []
    server.command("CONFIG", "RESETSTAT")
    for _ in range(TURNS):
        started = time.perf_counter()
        try:
            leases.append(await store.leases.acquire("chat"))
        except GatewayError:
            pass
        waits.append(time.perf_counter() - started)
    acquire = await per_script(store)
    server.command("CONFIG", "RESETSTAT")
    for lease in leases:
        await store.leases.release(lease, SERVED)
    release = await per_script(store)
    p99 = sorted(waits)[int(TURNS * 0.99)] * 1e6
    return f"{acquire:7.0f} {release if leases else float('nan'):7.0f} {p99:7.0f}"


async def per_script(store: Store) -> float:
    stats = await store.connection.ask("info", "INFO", "commandstats")
    entry = stats.get("cmdstat_evalsha", {"usec_per_call": 0})
    return float(entry["usec_per_call"])


async def pairs(server: RedisServer) -> None:
    server.command("FLUSHALL")
    settings = Settings(redis_url=server.url, secret_key="x" * 32, account_concurrency=50)
    async with Store(settings) as store:
        await crowd(store, "all ready", 1000)
        for at_once in (1, 8, 32, 100):
            began, cpu = time.perf_counter(), time.process_time()

            async def turns(count: int) -> None:
                for _ in range(count):
                    await store.leases.release(await store.leases.lend("chat"), SERVED)

            each = 4000 // at_once
            await asyncio.gather(*(turns(each) for _ in range(at_once)))
            total = each * at_once
            rate = total / (time.perf_counter() - began)
            used = (time.process_time() - cpu) / total * 1e6
            print(f"{at_once:4} at once: {rate:6.0f} pairs/s, {used:4.0f} µs CPU a pair")


def main() -> None:
    accounts = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="gw-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            uvloop.run(situations(server, accounts))
            uvloop.run(pairs(server))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
