"""What is to be done when: the steps behind every delayed or periodic piece of work.

A step is a job's name and a few ids, under an id of its own. It is put down (`add`, `add_slot`),
taken by one of the job processes' parents when it is due, begun by a job process, and ends (`done`,
`give_up`) or is put off (`again`). Whoever dies in between loses nothing: a step that was taken and
has not ended within `claim_seconds` is due again.

    t=0  A takes step s, due again at 30      A's queue holds s
    t=1  job process P begins s, due again at 31
    t=2  kill -9 of P, of A, of the whole host
    t=31 B takes s; Q begins it               nobody waited for A

A step may thus run twice, never at the same time unless it overruns its claim: jobs begin by
looking at their record and leave when the work is done.

Knows: the zset and its scripts. Does not know: what a job does, RQ.
"""

import msgspec

from shared.store import keys
from shared.store.connection import Connection


class Step(msgspec.Struct, frozen=True):
    """One thing to be done: `job` names an entry of `shared.jobs.JOBS`, arguments are ids."""

    id: str
    job: str
    arguments: tuple[str, ...] = ()
    claim_seconds: float = 30.0
    tries: int = 0
    queue: str = "jobs"


class Failed(msgspec.Struct, frozen=True):
    """A step that was given up."""

    step: str
    job: str
    arguments: tuple[str, ...]
    reason: str
    tries: int
    at: int


class Due:
    """The steps of the whole fleet."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, step: Step, *, delay_seconds: float = 0.0) -> bool:
        """The step will be done; one with this id that is there already is at most moved earlier.

        Returns whether it is new. Script: due_add.lua
        """
        what, delay_ms = _what(step), int(delay_seconds * 1000)
        return bool(await self._connection.run("due_add", keys.DUE, step.id, what, delay_ms))

    async def keep(self, step: Step) -> None:
        """The step is there: put down again where it was lost, else left as it is."""
        if not await self._connection.ask("due_keep", "HEXISTS", keys.due_steps(), step.id):
            await self.add(step)

    async def add_slot(self, name: str, step: Step, *, period_seconds: float) -> str:
        """Put periodic work down for the current slot of its period, unless somebody did.

        Returns the id of its step, or `""`. `step.id` isn't used. Script: due_slot.lua
        """
        period_ms = int(period_seconds * 1000)
        reply = await self._connection.run("due_slot", keys.DUE, name, period_ms, _what(step))
        return str(reply)

    async def take(self, limit: int) -> list[Step]:
        """What is due, the longest due first; nobody else gets it within its claim.

        Script: due_take.lua
        """
        reply = await self._connection.run("due_take", keys.DUE, limit)
        return [
            _step(step_id, what, int(tries))
            for step_id, what, tries in zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        ]

    async def begin(self, step_id: str) -> bool:
        """Whether the step is now ours to do: it is neither done nor under way elsewhere.

        Script: due_begin.lua
        """
        return bool(await self._connection.run("due_begin", keys.DUE, step_id))

    async def extend(self, step_id: str) -> bool:
        """The step, which is under way here, stays ours for another claim.

        Returns False when it has ended: whoever is at it should stop. Script: due_extend.lua
        """
        return bool(await self._connection.run("due_extend", keys.DUE, step_id))

    async def done(self, step_id: str) -> None:
        """The step has ended well. Script: due_end.lua"""
        await self._connection.run("due_end", keys.DUE, step_id, "")

    async def give_up(self, step_id: str, reason: str) -> None:
        """The step has ended for good; kept for the operator to see. Script: due_end.lua"""
        await self._connection.run("due_end", keys.DUE, step_id, reason or "unknown")

    async def again(self, step_id: str, *, delay_seconds: float, counted: bool = True) -> None:
        """The step is due again after `delay_seconds`; not `counted`: this was no try.

        Script: due_again.lua
        """
        delay_ms, fewer = int(delay_seconds * 1000), 0 if counted else 1
        await self._connection.run("due_again", keys.DUE, step_id, delay_ms, fewer)

    async def tries(self, step_id: str) -> int:
        """How often the step was taken."""
        reply = await self._connection.ask("due_tries", "HGET", keys.due_tries(), step_id)
        return int(reply or 0)

    async def counts(self) -> dict[tuple[str, str], int]:
        """Steps by queue and state (`due`, `later`, `running`, `failed`). Script: due_state.lua"""
        reply = await self._connection.run("due_state", keys.DUE)
        return {
            (queue, state): int(number)
            for queue, state, number in zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        }

    async def failed(self) -> list[Failed]:
        """The newest steps that were given up."""
        reply = await self._connection.ask("due_failed", "LRANGE", keys.due_failed(), 0, -1)
        return [_failed(line) for line in reply]


class _FailedLine(msgspec.Struct, frozen=True):
    """As the script writes it: numbers may come as floats."""

    step: str
    job: str
    arguments: str
    reason: str
    tries: float = 0
    at: float = 0


def _failed(line: str) -> Failed:
    read = msgspec.json.decode(line, type=_FailedLine)
    arguments = msgspec.json.decode(read.arguments, type=tuple[str, ...])
    return Failed(read.step, read.job, arguments, read.reason, int(read.tries), int(read.at))


class _What(msgspec.Struct, frozen=True):
    job: str
    # Not a list in Lua's sense: cjson writes an empty one as `{}`, so it is kept as text.
    arguments: str
    claim_ms: int
    queue: str


def _what(step: Step) -> bytes:
    arguments = msgspec.json.encode(step.arguments).decode()
    claim_ms = int(step.claim_seconds * 1000)
    return msgspec.json.encode(_What(step.job, arguments, claim_ms, step.queue))


def _step(step_id: str, text: str, tries: int) -> Step:
    what = msgspec.json.decode(text, type=_What)
    return Step(
        id=step_id,
        job=what.job,
        arguments=msgspec.json.decode(what.arguments, type=tuple[str, ...]),
        claim_seconds=what.claim_ms / 1000,
        tries=tries,
        queue=what.queue,
    )
