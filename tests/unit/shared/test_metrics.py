import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from shared import metrics

CONTRACT_FAMILIES = {
    # family: its labels (contract section 6)
    "requests": ("route", "model", "status"),
    "request_seconds": (),
    "first_token_seconds": ("model",),
    "overhead_seconds": (),
    "streams_open": (),
    "upstream_requests": ("lane", "operation", "outcome"),
    "upstream_seconds": ("operation",),
    "failovers": ("reason",),
    "accounts": ("state",),
    "leases_in_flight": (),
    "logins": ("outcome",),
    "tokens": ("model", "direction"),
    "rate_limited": ("scope",),
    "image_cache": ("result",),
    "redis_seconds": ("operation",),
    "redis_errors": (),
    "client_disconnects": (),
    "jobs": ("queue", "state"),
    "videos": ("state",),
    "batch_lines": ("outcome",),
}

# What the contract is silent about.
OURS = {"corrections": ("kind",)}
FAMILIES = CONTRACT_FAMILIES | OURS


def families(page: bytes) -> dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]:
    return {
        family.name: {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for sample in family.samples
        }
        for family in text_string_to_metric_families(page.decode())
    }


def test_every_family_of_the_contract_is_shown_before_its_first_sample(tmp_path: Path) -> None:
    shown = families(metrics.render(None, directory=str(tmp_path)))
    assert set(shown) == {f"qwen_gateway_{name}" for name in FAMILIES}


def test_every_family_has_a_sentence_of_help(tmp_path: Path) -> None:
    page = metrics.render(None, directory=str(tmp_path)).decode()
    helps = re.findall(r"^# HELP (\S+) (.+)$", page, re.MULTILINE)
    assert len(helps) == len(FAMILIES)
    assert all(sentence.endswith(".") and "Multiprocess" not in sentence for _, sentence in helps)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_has_the_labels_of_the_contract(name: str) -> None:
    declared = {
        **{
            family.metric._name: family.metric._labelnames
            for family in vars(metrics).values()
            if isinstance(family, metrics.Family)
        },
        **{f"qwen_gateway_{name}": labels for name, _, labels in metrics._STATE_FAMILIES},
    }
    assert tuple(declared[f"qwen_gateway_{name}"]) == FAMILIES[name]


def test_state_of_the_pool_is_what_the_caller_says() -> None:
    state = metrics.PoolState(
        accounts={"ready": 3, "cooling": 0},
        leases_in_flight=2,
        jobs={("jobs", "waiting"): 4},
        videos={"running": 1},
    )
    shown = families(metrics.render(state))
    assert shown["qwen_gateway_accounts"] == {
        ("qwen_gateway_accounts", (("state", "ready"),)): 3,
        ("qwen_gateway_accounts", (("state", "cooling"),)): 0,
    }
    assert list(shown["qwen_gateway_leases_in_flight"].values()) == [2]
    assert shown["qwen_gateway_jobs"] == {
        ("qwen_gateway_jobs", (("queue", "jobs"), ("state", "waiting"))): 4
    }
    assert list(shown["qwen_gateway_videos"].values()) == [1]


def test_counts_of_job_processes_are_taken_once_and_added_to_the_page(tmp_path: Path) -> None:
    metrics.take_counts()
    metrics.LOGINS.of("ok").inc()
    metrics.LOGINS.of("ok").inc()
    metrics.UPSTREAM_SECONDS.of("test_sign_in").observe(0.3)
    counts = metrics.take_counts()
    assert metrics.take_counts() == {}

    state = metrics.PoolState(counts=counts)
    shown = families(metrics.render(state, directory=str(tmp_path)))
    assert shown["qwen_gateway_logins"] == {("qwen_gateway_logins_total", (("outcome", "ok"),)): 2}
    seconds = shown["qwen_gateway_upstream_seconds"]
    operation = ("operation", "test_sign_in")
    assert seconds[("qwen_gateway_upstream_seconds_count", (operation,))] == 1
    assert seconds[("qwen_gateway_upstream_seconds_bucket", (("le", "0.5"), operation))] == 1


def test_a_child_is_resolved_once() -> None:
    assert metrics.FAILOVERS.of("test") is metrics.FAILOVERS.of("test")
    assert metrics.REDIS_ERRORS.of() is metrics.REDIS_ERRORS.of()


def test_a_family_that_is_given_too_many_label_sets_counts_the_rest_as_other() -> None:
    counter = Counter("spelled", "Names.", ["name"], registry=CollectorRegistry())
    family = metrics.Family(counter, max_children=2)
    for name in ("a", "b", "c", "d"):
        family.of(name).inc()
    counted = {
        s.labels["name"]: s.value for s in counter.collect()[0].samples if "_total" in s.name
    }
    assert counted == {"a": 1, "b": 1, metrics.OTHER: 2}
