"""What is measured, figure by figure. Every phase returns figures; none asserts anything.

Phases that compare interleave their targets inside each repetition (A B A B …), because the machine
is noisy: a ratio of two numbers of one repetition says more than either of them.
"""

import asyncio
import time
from collections import defaultdict

import msgspec

from tests.bench.load import Load, closed_loop, fixed_count, open_loop, percentile
from tests.bench.processes import Meter
from tests.bench.report import Figure, Spread, spread
from tests.bench.rig import ACCOUNTS, Rig
from tests.bench.targets import Kind, Target, Turn

FRAMES = 64
PACE_MS = 20.0
P99_LIMIT_SECONDS = 0.050
# A pause a reader notices. A frame that comes one frame too late is no stall.
STALL_SECONDS = 0.100
WARM_UP_SECONDS = 3.0
KINDS: tuple[Kind, Kind] = ("plain", "streamed")


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: `make bench`, `--quick`, or just enough to see that it works."""

    repetitions: int
    cold_starts: int
    phase_seconds: float
    probe_seconds: float
    probes: int
    most_streams: int
    memory_streams: int
    memory_hold_seconds: float
    frames: int = FRAMES


FULL = Effort(
    repetitions=5,
    cold_starts=3,
    phase_seconds=2.5,
    probe_seconds=1.5,
    probes=6,
    most_streams=600,
    memory_streams=500,
    memory_hold_seconds=6.0,
)
QUICK = Effort(
    repetitions=1,
    cold_starts=1,
    phase_seconds=1.2,
    probe_seconds=0.7,
    probes=3,
    most_streams=400,
    memory_streams=500,
    memory_hold_seconds=4.0,
)
TINY = Effort(
    repetitions=1,
    cold_starts=1,
    phase_seconds=0.2,
    probe_seconds=0.2,
    probes=1,
    most_streams=20,
    memory_streams=20,
    memory_hold_seconds=0.3,
    frames=8,
)


class CostCase(msgspec.Struct, frozen=True):
    """A shape of load whose cost is taken; `pace_ms` 0: all upstream frames at once."""

    name: str
    kind: Kind
    pace_ms: float
    callers: int


COST_CASES = (
    CostCase("plain_at_once", "plain", 0, 16),
    CostCase("streamed_at_once", "streamed", 0, 16),
    CostCase("plain_20ms", "plain", PACE_MS, 100),
    CostCase("streamed_20ms", "streamed", PACE_MS, 100),
)

# Figure → unit and what it means.
MEASURES = {
    "cold_start": ("s", "from the start of `python -m gateway` with an empty Redis"),
    "turns_per_cpu_s": ("turns/CPU-s", "turns per CPU-second of the whole gateway process tree"),
    "cpu_ms_per_turn": ("ms", "CPU of the whole gateway process tree (parent included)"),
    "turns_per_s": ("turns/s", "turns answered per second of wall time, closed loop"),
    "frames_per_core_s": ("frames/CPU-s", "frames the client read per gateway CPU-second"),
    "redis_cpu_ms_per_turn": ("ms", "CPU of Redis"),
    "simulator_cpu_ms_per_turn": ("ms", "CPU of the simulator"),
    "client_cpu_ms_per_turn": ("ms", "CPU of the load client"),
    "redis_scripts_per_turn": ("scripts", "scripts Redis was asked to run"),
    "redis_commands_per_turn": ("commands", "commands Redis ran, those inside scripts included"),
    "redis_bytes_in_per_turn": ("bytes", "bytes sent to Redis"),
    "redis_bytes_out_per_turn": ("bytes", "bytes Redis sent"),
    "upstream_requests_per_turn": ("requests", "requests the simulator got"),
    "first_token": (
        "ms",
        "from the request's first byte sent to the first frame with text read; one caller, "
        "streamed, all frames at once; direct = chats/new, then the completion",
    ),
    "added_first_token": ("ms", "first_token less the direct one of the same repetition"),
    "frame": (
        "ms",
        "from the simulator's write of a frame to the client's read of it (one monotonic clock), "
        f"a frame every {PACE_MS:g} ms",
    ),
    "added_frame": ("ms", "frame less the direct one of the same repetition"),
    "rate_p99_under_50ms": (
        "turns/s",
        "highest arrival rate at which 99 of 100 answers were whole within 50 ms of the moment "
        "they were due; open loop, exponential pauses, found by bisection, each probe twice when "
        "the first failed",
    ),
    "p99_at_that_rate": ("ms", "of the gateway's last probe that held; direct at the same rate"),
    "streams_without_stall": (
        "streams",
        f"callers in a closed loop, an upstream frame every {PACE_MS:g} ms; no pause "
        f"over {STALL_SECONDS * 1000:g} ms between two frames of any stream and none failed; by "
        "bisection, each probe twice when the first failed (direct: the rig itself carries as "
        "many at least)",
    ),
    "streams_open_meanwhile": ("streams", "streams the simulator had open when memory was read"),
    "rss_per_process": (
        "MB",
        "resident memory, median (least–most) over the processes; the least is granian's parent. "
        "The simulator tells its usage, so no vocabulary is loaded",
    ),
    "rss_tree": ("MB", "resident memory, sum over the processes"),
}
CASES = {
    "ready": "until /readyz is 200",
    "first_answer": "until a plain answer is read; the model list and a sign-in are on its way",
    **{
        case.name: f"{case.kind}, upstream frames "
        + (f"one every {case.pace_ms:g} ms" if case.pace_ms else "at once")
        + f", {case.callers} callers"
        for case in COST_CASES
    },
    "p50": "half of the samples of a repetition are below",
    "p99": "99 of 100 samples of a repetition are below",
    "plain": "one short JSON answer, upstream frames at once",
    "streamed": "SSE, upstream frames at once",
    "20ms": f"a frame every {PACE_MS:g} ms",
    "1_stream, 50_streams": "streams at once while frames are timed",
    "idle": "ready and one turn answered",
    "before_streams": "after all other phases, no stream open",
    "with_streams": "streams open",
    "after_streams": "2 s after all of them ended",
}

Seen = dict[tuple[str, str], dict[str, list[float]]]


class Faults(Exception):
    """A phase whose answers were wrong proves nothing."""


async def cold_start(rig: Rig, effort: Effort) -> list[Figure]:
    """Process start → ready → first answer, on an empty Redis; the last one stays."""
    seen = _nothing_seen()
    rig.upstream.answer(frames=effort.frames, pace_ms=0)
    for _ in range(effort.cold_starts):
        rig.gateway.stop()
        rig.flush_redis()
        begun = time.monotonic()
        rig.start_gateway()
        seen["cold_start", "ready"]["gateway"].append(await rig.ready() - begun)
        turn = await rig.targets["gateway"].turn("plain")
        _refuse([turn], "the first answer")
        seen["cold_start", "first_answer"]["gateway"].append(turn.ended_at - begun)
    return _figures(seen)


async def warm_up(rig: Rig, effort: Effort) -> None:
    """Every account has signed in; every target gives the right answer, both kinds.

    Raises:
        Faults: an answer's text is not what the simulator said.
    """
    rig.upstream.answer(frames=effort.frames, pace_ms=0)
    expected = await rig.targets["direct"].text("streamed")
    for name in rig.gateways:
        target = rig.targets[name]
        for kind in KINDS:
            if (text := await target.text(kind)) != expected:
                raise Faults(f"{name}, {kind}: {text[:200]!r} is not {expected[:200]!r}")
        # All slots at once: accounts that have signed in are lent first, so that fewer callers
        # would leave logins to the phases.
        slots = 2 * ACCOUNTS
        rig.upstream.answer(frames=effort.frames, pace_ms=WARM_UP_SECONDS * 1000 / effort.frames)
        load = await fixed_count(target, "streamed", callers=slots, count=slots)
        _refuse(load.turns, f"warming up {name}")
        rig.upstream.answer(frames=effort.frames, pace_ms=0)


async def cost(rig: Rig, effort: Effort) -> list[Figure]:
    """CPU, Redis and frames of a turn, for answers sent at once and frame by frame."""
    seen = _nothing_seen()
    for _ in range(effort.repetitions):
        for case in COST_CASES:
            rig.upstream.answer(frames=effort.frames, pace_ms=case.pace_ms)
            for name in rig.gateways:
                for measure, value in (await _cost_of(rig, name, case, effort)).items():
                    seen[measure, case.name][name].append(value)
    return _figures(seen)


async def _cost_of(rig: Rig, name: str, case: CostCase, effort: Effort) -> dict[str, float]:
    lasting = effort.frames * case.pace_ms / 1000
    operations, use = rig.upstream.operations(), rig.redis_use()
    meter = Meter(rig.trees)
    load = await closed_loop(
        rig.targets[name],
        case.kind,
        callers=case.callers,
        seconds=max(effort.phase_seconds, 2 * lasting),
        stagger_seconds=lasting,
    )
    spent = meter.spent()
    _refuse(load.turns, f"{case.name}, {name}")
    turns = len(load.turns)
    asked = sum(rig.upstream.operations().values()) - sum(operations.values())
    numbers = {
        "turns_per_s": turns / load.seconds,
        "simulator_cpu_ms_per_turn": spent["simulator"] * 1000 / turns,
        "client_cpu_ms_per_turn": spent["client"] * 1000 / turns,
        "upstream_requests_per_turn": asked / turns,
    }
    if name in spent:
        numbers["turns_per_cpu_s"] = turns / spent[name]
        numbers["cpu_ms_per_turn"] = spent[name] * 1000 / turns
        if case.kind == "streamed":
            numbers["frames_per_core_s"] = load.frames / spent[name]
    if name == "gateway":
        grown = rig.redis_use().since(use)
        numbers["redis_cpu_ms_per_turn"] = spent["redis"] * 1000 / turns
        numbers["redis_scripts_per_turn"] = grown.scripts / turns
        numbers["redis_commands_per_turn"] = sum(grown.commands.values()) / turns
        numbers["redis_bytes_in_per_turn"] = grown.bytes_in / turns
        numbers["redis_bytes_out_per_turn"] = grown.bytes_out / turns
    return numbers


async def commands(rig: Rig, effort: Effort) -> dict[str, dict[str, float]]:
    """What one streamed turn asks of Redis and of the upstream, by name; most frequent first."""
    rig.upstream.answer(frames=effort.frames, pace_ms=0)
    operations, use = rig.upstream.operations(), rig.redis_use()
    load = await fixed_count(
        rig.targets["gateway"], "streamed", callers=16, count=int(400 * effort.phase_seconds)
    )
    grown = rig.redis_use().since(use)
    asked = rig.upstream.operations()
    turns = len(load.turns)

    def per_turn(counts: dict[str, int]) -> dict[str, float]:
        ordered = sorted(counts.items(), key=lambda pair: -pair[1])
        return {name: count / turns for name, count in ordered if count / turns >= 0.01}

    return {
        "Redis commands per streamed turn": per_turn(grown.commands),
        "Upstream requests per streamed turn": per_turn(
            {name: count - operations.get(name, 0) for name, count in asked.items()}
        ),
    }


async def latency(rig: Rig, effort: Effort) -> list[Figure]:
    """What a target adds to the first token, and to each frame on its way."""
    seen = _nothing_seen()
    for _ in range(effort.repetitions):
        rig.upstream.answer(frames=effort.frames, pace_ms=0)
        for name, target in rig.targets.items():
            load = await closed_loop(
                target, "streamed", callers=1, seconds=effort.phase_seconds / 2
            )
            _refuse(load.turns, f"first token, {name}")
            _keep(seen, "first_token", "", name, _first_token_seconds(load))
        rig.upstream.answer(frames=effort.frames, pace_ms=PACE_MS, stamped=True)
        for prefix, callers in (("1_stream ", 1), ("50_streams ", 50)):
            for name, target in rig.targets.items():
                load = await _paced(target, callers, effort, seconds=effort.phase_seconds / 2)
                _refuse(load.turns, f"frames, {name}")
                _keep(seen, "frame", prefix, name, _frame_seconds(load))
    return _figures(_with_added(seen))


def _keep(seen: Seen, measure: str, prefix: str, name: str, values: list[float]) -> None:
    for percent in (50, 99):
        milliseconds = percentile(values, percent) * 1000
        seen[measure, f"{prefix}p{percent}"][name].append(milliseconds)


def _with_added(seen: Seen) -> Seen:
    """Beside each figure what a target adds to the floor of the same repetition."""
    both = _nothing_seen()
    for (measure, case), by_target in seen.items():
        both[measure, case] = by_target
        for name, values in by_target.items():
            if name != "direct":
                pairs = zip(values, by_target["direct"], strict=True)
                both[f"added_{measure}", case][name] = [value - floor for value, floor in pairs]
    return both


def _first_token_seconds(load: Load) -> list[float]:
    return [
        turn.first_token_at - turn.started_at
        for turn in load.turns
        if turn.first_token_at is not None
    ]


def _frame_seconds(load: Load) -> list[float]:
    return [lateness for turn in load.turns for lateness in turn.lateness]


async def rates(rig: Rig, effort: Effort) -> list[Figure]:
    """The highest arrival rate at which 99 of 100 answers are whole within 50 ms."""
    rig.upstream.answer(frames=effort.frames, pace_ms=0)
    seen = _nothing_seen()
    for kind in KINDS:
        for name in rig.gateways:
            rate, p99_ms = await _highest_rate(rig.targets[name], kind, effort)
            seen["rate_p99_under_50ms", kind][name].append(rate)
            seen["p99_at_that_rate", kind][name].append(p99_ms)
        load = await _arrivals(rig.targets["direct"], kind, rate, effort, seed=1)
        seen["p99_at_that_rate", kind]["direct"].append(_p99_seconds(load) * 1000)
    return _figures(seen)


async def _highest_rate(target: Target, kind: Kind, effort: Effort) -> tuple[float, float]:
    """By bisection below the closed loop's throughput; with the p99 in ms that it had there."""
    saturated = await closed_loop(target, kind, callers=16, seconds=effort.probe_seconds / 2)
    _refuse(saturated.turns, f"saturation, {target.name}")
    low, high, p99_ms = 0.0, 1.1 * len(saturated.turns) / saturated.seconds, 0.0
    rate = 0.7 * high
    for number in range(effort.probes):
        load = await _arrivals(target, kind, rate, effort, seed=number)
        if not _held(load):  # once more: a neighbour on this machine may have had the core
            load = await _arrivals(target, kind, rate, effort, seed=number)
        if _held(load):
            low, p99_ms = rate, _p99_seconds(load) * 1000
        else:
            high = rate
        rate = (low + high) / 2
    return low, p99_ms


async def _arrivals(target: Target, kind: Kind, rate: float, effort: Effort, *, seed: int) -> Load:
    per_second = max(rate, 1 / effort.probe_seconds)
    return await open_loop(
        target, kind, per_second=per_second, seconds=effort.probe_seconds, seed=seed
    )


def _p99_seconds(load: Load) -> float:
    return percentile([turn.seconds for turn in load.turns], 99)


def _held(load: Load) -> bool:
    return _p99_seconds(load) < P99_LIMIT_SECONDS and not load.errors and not load.lost


async def streams(rig: Rig, effort: Effort) -> list[Figure]:
    """How many streams of a frame every 20 ms run at once before one of them stalls."""
    rig.upstream.answer(frames=effort.frames, pace_ms=PACE_MS)
    seen = _nothing_seen()
    for name in rig.gateways:
        most = await _most_streams(rig.targets[name], effort)
        seen["streams_without_stall", "20ms"][name].append(most)
    carried = seen["streams_without_stall", "20ms"]
    for count in (effort.most_streams, max(max(values) for values in carried.values())):
        if count and await _flows(rig.targets["direct"], int(count), effort):
            carried["direct"].append(count)
            break
    return _figures(seen)


async def _most_streams(target: Target, effort: Effort) -> int:
    """By bisection; the upper bound itself is never tried."""
    low, high = 0, effort.most_streams
    for _ in range(effort.probes):
        count = (low + high + 1) // 2
        if await _flows(target, count, effort) or await _flows(target, count, effort):
            low = count
        else:
            high = count
        if high - low <= 10:
            break
    return low


async def _flows(target: Target, count: int, effort: Effort) -> bool:
    """Whether so many streams run without one that stalls or fails."""
    load = await _paced(target, count, effort, seconds=effort.probe_seconds)
    await asyncio.sleep(effort.probe_seconds / 10)
    return not load.errors and all(turn.gap_seconds < STALL_SECONDS for turn in load.turns)


async def _paced(target: Target, callers: int, effort: Effort, *, seconds: float) -> Load:
    """Streams that began evenly spread over the length of one."""
    lasting = effort.frames * PACE_MS / 1000 if callers > 1 else 0.0
    return await closed_loop(
        target,
        "streamed",
        callers=callers,
        seconds=lasting + seconds,
        stagger_seconds=lasting,
    )


def idle_memory(rig: Rig) -> list[Figure]:
    """Resident memory of a gateway that has answered a single turn."""
    return _figures(_memory_of("gateway", "idle", rig))


async def memory(rig: Rig, effort: Effort) -> list[Figure]:
    """Resident memory with many streams open, and once they have ended."""
    count = effort.memory_streams
    rig.upstream.answer(
        frames=effort.frames, pace_ms=effort.memory_hold_seconds * 1000 / effort.frames
    )
    seen = _nothing_seen()
    for name in rig.gateways:
        if name not in rig.trees:
            continue
        seen |= _merged(seen, _memory_of(name, "before_streams", rig))
        load = asyncio.create_task(
            fixed_count(rig.targets[name], "streamed", callers=count, count=count)
        )
        await asyncio.sleep(effort.memory_hold_seconds * 0.7)
        under_way = float(rig.upstream.open_streams())
        seen["streams_open_meanwhile", "with_streams"][name].append(under_way)
        seen |= _merged(seen, _memory_of(name, "with_streams", rig))
        _refuse((await load).turns, f"{count} streams, {name}")
        await asyncio.sleep(min(2.0, effort.memory_hold_seconds))
        seen |= _merged(seen, _memory_of(name, "after_streams", rig))
    return _figures(seen)


def _memory_of(name: str, case: str, rig: Rig) -> Seen:
    sizes = rig.trees[name].rss_mb()
    return {("rss_per_process", case): {name: sizes}, ("rss_tree", case): {name: [sum(sizes)]}}


def _merged(seen: Seen, more: Seen) -> Seen:
    return {key: seen.get(key, {}) | values for key, values in more.items()}


def _nothing_seen() -> Seen:
    return defaultdict(lambda: defaultdict(list))


def _figures(seen: Seen) -> list[Figure]:
    return [
        Figure(measure, case, MEASURES[measure][0], _spreads(by_target))
        for (measure, case), by_target in seen.items()
    ]


def _spreads(by_target: dict[str, list[float]]) -> dict[str, Spread]:
    return {name: spread(values) for name, values in by_target.items()}


def _refuse(turns: list[Turn], what: str) -> None:
    """Raises Faults: a phase with wrong answers, or with none, proves nothing."""
    errors = [turn.error for turn in turns if turn.error]
    if errors:
        raise Faults(f"{what}: {len(errors)} of {len(turns)} answers were wrong: {errors[0]}")
    if not turns:
        raise Faults(f"{what}: no answer")
