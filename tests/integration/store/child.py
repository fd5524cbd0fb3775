"""A process that uses the store and may be killed: `python -m tests.integration.store.child`.

Arguments: the settings as JSON, then what to do. Each line on stdout is one thing that happened.

    wait                 waits in line for a chat account; `queued`, then `lent <account>`
    hold <count>         takes so many leases and keeps them; `held`
    turns <count>        so many turns at once, each again and again until stdin closes, with pauses;
                         who uses an account is in the set `test:users:<account>`, the highest number
                         ever seen there in the hash `test:most`
    entries <count>      so many entries of the ledger at once, again and again until stdin closes;
                         a line with `<count>` for each time all of them were written
"""

import asyncio
import os
import random
import sys

import msgspec

from shared.errors import NoAccount
from shared.settings import Settings
from shared.store.leases import SERVED
from shared.store.ledger import Entry, Record, Use
from shared.store.store import Store

# Notes one more user of an account and keeps the highest number, as an outside witness.
_ENTER = """
redis.call('SADD', 'test:users:' .. ARGV[1], ARGV[2])
local users = redis.call('SCARD', 'test:users:' .. ARGV[1])
if users > tonumber(redis.call('HGET', 'test:most', ARGV[1]) or 0) then
  redis.call('HSET', 'test:most', ARGV[1], users)
end
return users
"""


async def main(settings: Settings, work: str, count: int) -> None:
    async with Store(settings) as store:
        if work == "wait":
            waiter = asyncio.create_task(store.leases.lend("chat", wait_seconds=60))
            while not await store.connection.ask("x", "ZCARD", "gw:{pool}:queue:chat"):
                await asyncio.sleep(0.005)
            print("queued", flush=True)
            print("lent", (await waiter).account, flush=True)
        elif work == "hold":
            for _ in range(count):
                await store.leases.acquire("chat")
            print("held", flush=True)
            await asyncio.Event().wait()
        elif work == "turns":
            print("begun", flush=True)
            closed = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
            await asyncio.gather(*(turns(store, closed) for _ in range(count)))
        elif work == "entries":
            print("begun", flush=True)
            closed = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
            while not closed.done():
                await asyncio.gather(*(write_entry(store, number) for number in range(count)))
                print(count, flush=True)


async def write_entry(store: Store, number: int) -> None:
    """One turn that used 10 and 3 tokens."""
    use = Use(
        account=f"a{number}@example.org",
        request_id="r",
        model="m",
        input_tokens=10,
        output_tokens=3,
    )
    record = Record(
        request_id="r",
        route="/v1/x",
        status=200,
        total_ms=1.0,
        key_id="k1",
        model="m",
        input_tokens=10,
        output_tokens=3,
    )
    await store.ledger.write(Entry(record=record, key_name="ci", model="m", uses=(use,)))


async def turns(store: Store, closed: asyncio.Task[str]) -> None:
    while not closed.done():
        try:
            lease = await store.leases.lend("chat", wait_seconds=60)
        except NoAccount:
            continue
        user = f"{os.getpid()}:{lease.token}"
        await store.connection.ask("enter", "EVAL", _ENTER, 0, lease.account, user)
        await asyncio.sleep(random.uniform(0, 0.01))
        await store.connection.ask("leave", "SREM", f"test:users:{lease.account}", user)
        await store.leases.release(lease, SERVED)


if __name__ == "__main__":
    asyncio.run(
        main(
            msgspec.json.decode(sys.argv[1], type=Settings),
            sys.argv[2],
            int(sys.argv[3]) if len(sys.argv) > 3 else 0,
        )
    )
