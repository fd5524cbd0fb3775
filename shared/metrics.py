"""Every metric of the product: name, help, labels, buckets.

A gateway process counts in files of `PROMETHEUS_MULTIPROC_DIR` (which `gateway.__main__` sets
before this module is imported); whoever is scraped sums the files of all of them. A job process
counts in its own memory and hands its counts on with `take_counts` after each job; they lie in
Redis until a scrape brings them back as `PoolState.counts`. What is state and not a count
(accounts ready, jobs waiting) is read from Redis at scrape time and handed to `render`.

    REQUESTS.of("/v1/chat/completions", "qwen3-max", "200").inc()
    FIRST_TOKEN_SECONDS.of("qwen3-max").observe(0.8)

`of` resolves a child once and keeps it: 0.2 µs instead of 2 µs; an increment is 1 µs, an
observation 2 µs (measured 2026-11, mmap mode). Labels are bounded by whoever sets them: `model`
is a name of the catalogue, else `OTHER`; never an e-mail, a key or a path with ids. As a last fence
a family takes `MAX_CHILDREN` label sets and counts the rest under `OTHER`.

Knows: families, summing. Does not know: Redis, HTTP.
"""

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Generic, Literal, TypeVar

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OTHER: Final = "other"
MAX_CHILDREN: Final = 2_000

# `qwen_gateway_requests_total{model="m"}` as JSON `["requests_total", {"model": "m"}]` → increase.
Counts = dict[str, float]

_REGISTRY = CollectorRegistry(auto_describe=False)
_PREFIX: Final = "qwen_gateway_"

M = TypeVar("M", bound=MetricWrapperBase)


class Family(Generic[M]):
    """One metric with all its label sets."""

    def __init__(self, metric: M, *, max_children: int = MAX_CHILDREN) -> None:
        self.metric = metric
        self._max_children = max_children
        self._children: dict[tuple[str, ...], M] = {}
        self._labels = len(metric._labelnames)

    def of(self, *labels: str) -> M:
        """The child with these label values, in the order of their declaration."""
        child = self._children.get(labels)
        if child is None:
            child = self._resolve(labels)
        return child

    def _resolve(self, labels: tuple[str, ...]) -> M:
        if not self._labels:
            child = self.metric
        elif len(self._children) >= self._max_children:
            return self.metric.labels(*[OTHER] * self._labels)
        else:
            child = self.metric.labels(*labels)
        self._children[labels] = child
        return child


def _counter(name: str, help_text: str, *labels: str) -> Family[Counter]:
    return Family(Counter(_PREFIX + name, help_text, labels, registry=_REGISTRY))


def _histogram(
    name: str, help_text: str, *labels: str, buckets: Sequence[float]
) -> Family[Histogram]:
    metric = Histogram(_PREFIX + name, help_text, labels, registry=_REGISTRY, buckets=buckets)
    return Family(metric)


_TURN = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1200)
_FIRST_TOKEN = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120)
_OVERHEAD = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1)
_REDIS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.5)

REQUESTS = _counter(
    "requests",
    "Requests answered, by path pattern, catalogue model and HTTP status.",
    "route",
    "model",
    "status",
)
REQUEST_SECONDS = _histogram(
    "request_seconds", "From a request's arrival to the end of its answer.", buckets=_TURN
)
FIRST_TOKEN_SECONDS = _histogram(
    "first_token_seconds",
    "From a turn's arrival to its first event.",
    "model",
    buckets=_FIRST_TOKEN,
)
OVERHEAD_SECONDS = _histogram(
    "overhead_seconds",
    "From a turn's arrival to its headers, less the waits for an account and for the upstream.",
    buckets=_OVERHEAD,
)
# livesum: summed over the processes that live; a killed one takes its open streams with it.
STREAMS_OPEN = Family(
    Gauge(
        _PREFIX + "streams_open",
        "Streams open towards callers.",
        registry=_REGISTRY,
        multiprocess_mode="livesum",
    )
)
UPSTREAM_REQUESTS = _counter(
    "upstream_requests",
    "Requests to the upstream, by lane, operation and outcome.",
    "lane",
    "operation",
    "outcome",
)
UPSTREAM_SECONDS = _histogram(
    "upstream_seconds",
    "From a request to the upstream to its answer's head.",
    "operation",
    buckets=_FIRST_TOKEN,
)
FAILOVERS = _counter(
    "failovers", "Further attempts of a turn on another account, by reason.", "reason"
)
CORRECTIONS = _counter(
    "corrections", "Answers the model was asked to write again, by what was wrong.", "kind"
)
LOGINS = _counter("logins", "Logins of accounts at the upstream, by outcome.", "outcome")
TOKENS = _counter(
    "tokens", "Tokens of turns, by model and direction (input or output).", "model", "direction"
)
RATE_LIMITED = _counter("rate_limited", "Requests refused by a limit, by its scope.", "scope")
IMAGE_CACHE = _counter("image_cache", "Looks into the image cache, by result.", "result")
REDIS_SECONDS = _histogram(
    "redis_seconds", "Time of one step in Redis, by operation.", "operation", buckets=_REDIS
)
REDIS_ERRORS = _counter("redis_errors", "Steps in Redis that failed.")
CLIENT_DISCONNECTS = _counter(
    "client_disconnects", "Callers that left before their answer was complete."
)
BATCH_LINES = _counter("batch_lines", "Lines of batch imports done, by outcome.", "outcome")

# Pool-wide state: (name, help, labels); no process keeps these, `render` is told them.
_STATE_FAMILIES: Final = (
    ("accounts", "Accounts of the pool, by state.", ("state",)),
    ("leases_in_flight", "Streams the accounts of the pool carry now.", ()),
    ("jobs", "Jobs, by queue and state.", ("queue", "state")),
    ("videos", "Video jobs, by state.", ("state",)),
)


class PoolState(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis says at scrape time."""

    accounts: Mapping[str, int] = {}
    leases_in_flight: int = 0
    jobs: Mapping[tuple[str, str], int] = {}
    videos: Mapping[str, int] = {}
    counts: Mapping[str, float] = {}
    """Everything job processes ever counted, added to what gateway processes count."""

    def samples(self, family: str) -> Iterator[tuple[tuple[str, ...], float]]:
        match family:
            case "accounts":
                yield from (((state,), number) for state, number in self.accounts.items())
            case "leases_in_flight":
                yield (), self.leases_in_flight
            case "jobs":
                yield from self.jobs.items()
            case "videos":
                yield from (((state,), number) for state, number in self.videos.items())


def render(state: PoolState | None, *, directory: str | None = None) -> bytes:
    """The page of `/metrics`: all processes summed, every family shown before its first sample.

    Args:
        state: None when Redis is away: the families of pool state are then shown without samples.
        directory: `PROMETHEUS_MULTIPROC_DIR`; None = this process alone counts, in its memory.
    """
    page = CollectorRegistry(auto_describe=False)
    page.register(_Page(state, directory))
    return generate_latest(page)


def summed(family: Family[Gauge], *, directory: str | None = None) -> float:
    """A gauge's value over all gateway processes of this host and all its label sets.

    Args:
        directory: as for `render`.
    """
    counted = _in_memory() if directory is None else _in_files(Path(directory))
    name = next(iter(family.metric.collect())).name
    return sum(counted.get(name, {}).values())


def observe_redis(operation: str, seconds: float, ok: bool) -> None:
    """One call to Redis."""
    REDIS_SECONDS.of(operation).observe(seconds)
    if not ok:
        REDIS_ERRORS.of().inc()


def observe_upstream(operation: str, outcome: str, seconds: float) -> None:
    """One call to the web upstream."""
    UPSTREAM_REQUESTS.of("web", operation, outcome).inc()
    UPSTREAM_SECONDS.of(operation).observe(seconds)


def take_counts() -> Counts:
    """What this process counted since the last call, to be added up elsewhere (job processes)."""
    taken: Counts = {}
    with _TAKING:
        for family in _REGISTRY.collect():
            if family.type not in ("counter", "histogram"):
                continue
            for sample in family.samples:
                key = _count_key(sample.name, sample.labels)
                grown = sample.value - _TAKEN.get(key, 0.0)
                if grown and not sample.name.endswith("_created"):
                    taken[key] = grown
                    _TAKEN[key] = sample.value
    return taken


def counts_of(sample: str, label: str, numbers: Mapping[str, float]) -> Counts:
    """Numbers that somebody else counted, exactly, as counts of one family: by a label's values."""
    return {_count_key(sample, {label: value}): number for value, number in numbers.items()}


_TAKEN: Counts = {}
_TAKING = threading.Lock()  # jobs that last take from a thread of their own


def _count_key(sample: str, labels: Mapping[str, str]) -> str:
    return json.dumps([sample.removeprefix(_PREFIX), labels], sort_keys=True)


class _Page(Collector):
    """One scrape: declared families, filled from the processes, from Redis, or not at all."""

    def __init__(self, state: PoolState | None, directory: str | None) -> None:
        self._state = state
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        counted = _in_memory() if self._directory is None else _in_files(Path(self._directory))
        extra = self._state.counts if self._state is not None else {}
        handed_on: dict[str, dict[_Key, float]] = {}
        for key, value in extra.items():
            sample, labels = json.loads(key)
            family = _family_of(_PREFIX + sample)
            handed_on.setdefault(family, {})[(_PREFIX + sample, tuple(sorted(labels.items())))] = (
                value
            )
        for declared in _DECLARED:
            samples = dict(counted.get(declared.name, {}))
            for at, value in handed_on.get(declared.name, {}).items():
                samples[at] = samples.get(at, 0.0) + value
            metric = Metric(declared.name, declared.documentation, declared.type)
            for name, labels in sorted(samples, key=_order):
                metric.add_sample(name, dict(labels), samples[(name, labels)])
            yield metric
        for name, help_text, labels in _STATE_FAMILIES:
            metric = Metric(_PREFIX + name, help_text, "gauge")
            for values, number in self._state.samples(name) if self._state is not None else ():
                metric.add_sample(_PREFIX + name, dict(zip(labels, values, strict=True)), number)
            yield metric


# (sample name, sorted labels)
_Key = tuple[str, tuple[tuple[str, str], ...]]


class _Declared(msgspec.Struct, frozen=True):
    name: str
    documentation: str
    type: Literal["counter", "gauge", "histogram"]


_DECLARED: Final = tuple(
    msgspec.convert(family.__dict__, _Declared) for family in CollectorRegistry.collect(_REGISTRY)
)


def _family_of(sample: str) -> str:
    for suffix in ("_total", "_bucket", "_sum", "_count"):
        if sample.endswith(suffix):
            return sample.removesuffix(suffix)
    return sample


def _order(key: _Key) -> tuple[tuple[tuple[str, str], ...], str, float]:
    """Children together, buckets by their bound."""
    name, labels = key
    bound = next((float(value) for label, value in labels if label == "le"), 0.0)
    return tuple(pair for pair in labels if pair[0] != "le"), name, bound


def _in_memory() -> dict[str, dict[_Key, float]]:
    return _by_family(_REGISTRY.collect())


def _in_files(directory: Path) -> dict[str, dict[_Key, float]]:
    """Sum the files of all gateway processes; what a dead one counted stays counted.

    Race: a process killed between creating its file and giving it a size leaves an empty one,
    which the library's reader does not survive; such a file is left out. Live gauges of a dead
    process are removed here, by the first scrape after its death: its open streams died with it.
    """
    readable = []
    for path in directory.glob("*.db"):
        try:
            if path.stat().st_size < 8:
                continue
            if path.name.startswith("gauge_live") and not _is_alive(_pid_of(path)):
                path.unlink(missing_ok=True)
                continue
        except FileNotFoundError:
            continue
        readable.append(str(path))
    return _by_family(MultiProcessCollector.merge(readable))  # type: ignore[no-untyped-call]


def _pid_of(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _by_family(families: Iterable[Metric]) -> dict[str, dict[_Key, float]]:
    return {
        family.name: {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for sample in family.samples
            if not sample.name.endswith("_created")
        }
        for family in families
    }
