"""Live, ready, metrics over several processes, CORS; and that no secret is told."""

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.conftest import ADJUSTED
from tests.fakes.chat import ask, asking, assert_error, call, directive, get, text_of
from tests.fakes.stack import Stack, eventually

# contract.md section 6.
FAMILIES = {
    "qwen_gateway_requests": {"route", "model", "status"},
    "qwen_gateway_request_seconds": set(),
    "qwen_gateway_first_token_seconds": {"model"},
    "qwen_gateway_overhead_seconds": set(),
    "qwen_gateway_streams_open": set(),
    "qwen_gateway_upstream_requests": {"lane", "operation", "outcome"},
    "qwen_gateway_upstream_seconds": {"operation"},
    "qwen_gateway_failovers": {"reason"},
    "qwen_gateway_accounts": {"state"},
    "qwen_gateway_leases_in_flight": set(),
    "qwen_gateway_logins": {"outcome"},
    "qwen_gateway_tokens": {"model", "direction"},
    "qwen_gateway_rate_limited": {"scope"},
    "qwen_gateway_image_cache": {"result"},
    "qwen_gateway_redis_seconds": {"operation"},
    "qwen_gateway_redis_errors": set(),
    "qwen_gateway_client_disconnects": set(),
    "qwen_gateway_jobs": {"queue", "state"},
    "qwen_gateway_videos": {"state"},
    "qwen_gateway_batch_lines": {"outcome"},
    "qwen_gateway_corrections": {"kind"},  # ours; the contract is silent about it
}  # fmt: skip
HISTOGRAMS = {name for name in FAMILIES if name.endswith("_seconds")}


class Page:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {one.name: one for one in text_string_to_metric_families(text)}
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        return sum(
            value
            for (sample, pairs), value in self.samples.items()
            if sample == f"qwen_gateway_{name}" and set(labels.items()) <= set(pairs)
        )


def scrape(stack: Stack) -> Page:
    token = stack.environment.get("METRICS_TOKEN")
    headers = {"authorization": f"Bearer {token}" if token else ""}
    answer = get(stack, "/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return Page(answer.text)


# -- live and ready


def test_live_says_that_the_process_answers(stack: Stack) -> None:
    answer = get(stack, "/healthz", headers={"authorization": ""})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_says_whether_any_account_is_usable(stack: Stack) -> None:
    answer = get(stack, "/readyz", headers={"authorization": ""})
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ready", "accounts_usable": True},
    )


def test_without_accounts_it_is_ready_all_the_same() -> None:
    with Stack(accounts=0, environment={"WORKERS": "1"}) as stack:
        answer = get(stack, "/readyz")
        assert (answer.status_code, answer.json()) == (
            200,
            {"status": "ready", "accounts_usable": False},
        )
        page = scrape(stack)
        assert set(FAMILIES) <= set(page.families), "every family before its first sample"
        assert page("accounts") == 0


# -- metrics


def test_every_family_of_the_contract_is_shown_with_its_labels(stack: Stack) -> None:
    assert text_of(ask(stack))
    page = scrape(stack)
    ours = {name for name in page.families if name.startswith("qwen_gateway_")}
    assert ours == set(FAMILIES)
    for name, labels in FAMILIES.items():
        family = page.families[name]
        assert family.documentation
        assert (family.type == "histogram") == (name in HISTOGRAMS), name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, name


def test_counts_are_summed_over_both_processes(stack: Stack) -> None:
    before = scrape(stack)
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda n: ask(stack, stream=bool(n % 2)), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    ask(stack, model="nobody has this")
    seen = [eventually(lambda: delta_is_21(before, scrape(stack))) for _ in range(6)]
    assert all(seen), "whichever process is asked"
    after = scrape(stack)
    labels = {"route": "/v1/chat/completions", "model": "qwen3-max-2026-01-23", "status": "200"}
    assert grown(before, after, "requests_total", **labels) == 20
    assert grown(before, after, "requests_total", model="other", status="404") == 1
    assert grown(before, after, "first_token_seconds_count") == 20
    assert grown(before, after, "overhead_seconds_count") >= 20
    completion = {"lane": "web", "operation": "completion"}
    assert grown(before, after, "upstream_requests_total", **completion) == 20
    assert grown(before, after, "upstream_seconds_count", operation="completion") == 20
    for direction in ("input", "output"):
        assert grown(before, after, "tokens_total", direction=direction) > 0
    assert after("redis_seconds_count") > before("redis_seconds_count")
    assert after("streams_open") == 0


def grown(before: Page, after: Page, name: str, **labels: str) -> float:
    return after(name, **labels) - before(name, **labels)


def delta_is_21(before: Page, after: Page) -> bool:
    return grown(before, after, "requests_total", route="/v1/chat/completions") == 21


def test_open_streams_leases_and_accounts_are_told_as_they_are(stack: Stack) -> None:
    with asking(stack, directive(frames=8, stall_after=3)) as answer:
        lines = answer.iter_lines()  # held: a generator that is dropped closes the connection
        next(lines)
        page = scrape(stack)
        assert (page("streams_open"), page("leases_in_flight")) == (1, 1)
        assert page("accounts") == len(stack.emails)
    left = eventually(
        lambda: scrape(stack),
        until=lambda page: page("streams_open") == page("leases_in_flight") == 0,
    )
    assert grown(page, left, "client_disconnects_total") == 1


def test_failovers_logins_and_refusals_are_counted_by_their_reason(stack: Stack) -> None:
    before = scrape(stack)
    stack.sim.next(operation="completions", fail="RateLimited")
    assert text_of(ask(stack))
    stack.sim.next(operation="completions", fail="internal_error")
    assert text_of(ask(stack))
    stack.sim.next(operation="completions", fail="Unauthorized")
    assert text_of(ask(stack))
    admin = {"authorization": f"Bearer {stack.admin_key}"}
    limits = {"name": "one", "rate_limit_per_minute": 1}
    made = call(stack, "POST", "/api/keys", headers=admin, json=limits).json()
    for _ in range(3):
        ask(stack, headers={"authorization": f"Bearer {made['key']}"})
    call(stack, "DELETE", f"/api/keys/{made['id']}", headers=admin)
    after = scrape(stack)
    assert grown(before, after, "failovers_total", reason="quota") == 1
    assert grown(before, after, "failovers_total") == 2
    assert grown(before, after, "logins_total", outcome="succeeded") >= 1
    assert grown(before, after, "rate_limited_total") == 2
    assert after("accounts", state="cooling") >= 1


def test_labels_are_bounded_whatever_callers_invent(stack: Stack) -> None:
    for number in range(5):
        get(stack, f"/v1/nothing/{number}")
        get(stack, f"/v1/models/model-{number}")
        ask(stack, model=f"model-{number}")
        call(stack, f"METHOD{number}", "/v1/models")
    ask(stack, headers={"authorization": "Bearer sk-a-key-in-a-label"})
    page = scrape(stack)
    told = {value for _, pairs in page.samples for name, value in pairs if name != "le"}
    routes = {dict(pairs).get("route") for _, pairs in page.samples} - {None}
    models = {dict(pairs).get("model") for _, pairs in page.samples} - {None}
    known = {one["upstream_id"] for one in get(stack, "/v1/models").json()["data"]}
    assert models <= known | {"other"}
    assert {"other", "/v1/chat/completions", "/v1/models"} <= routes
    assert not [value for value in told if re.search(r"\d$|@|sk-|model-|METHOD", value)
                and value not in known and not value.isdigit()]  # fmt: skip


def test_metrics_want_their_own_token_when_there_is_one(adjusted: Stack) -> None:
    token = ADJUSTED["METRICS_TOKEN"]
    for wrong in ("", "Bearer wrong", f"Bearer {adjusted.admin_key}", f"Basic {token}"):
        answer = get(adjusted, "/metrics", headers={"authorization": wrong})
        assert_error(answer, 401, "invalid_request_error", "invalid_api_key")
    assert scrape(adjusted).families


# -- CORS


ORIGIN = ADJUSTED["CORS_ORIGINS"]


def test_a_page_of_an_allowed_origin_may_ask_and_read(adjusted: Stack) -> None:
    preflight = call(
        adjusted,
        "OPTIONS",
        "/v1/chat/completions",
        headers={
            "authorization": "",
            "origin": ORIGIN,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,idempotency-key",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    for stream in (False, True):
        answer = ask(adjusted, headers={"origin": ORIGIN}, stream=stream)
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = answer.headers["access-control-expose-headers"]
        assert "x-request-id" in exposed
        assert "x-gateway-model" in exposed
    refused = ask(adjusted, headers={"origin": ORIGIN}, model="nobody")
    assert refused.headers["access-control-allow-origin"] == ORIGIN


def test_any_other_origin_gets_no_leave(adjusted: Stack, stack: Stack) -> None:
    answer = ask(adjusted, headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    answer = ask(stack, headers={"origin": ORIGIN})
    assert "access-control-allow-origin" not in answer.headers


# -- secrets


def test_no_secret_is_in_a_log_line_an_answer_or_a_metric(stack: Stack) -> None:
    """contract.md 7.10, for what this route handles: keys, passwords, tokens, e-mail addresses."""
    stack.sim.revoke()
    answers = [
        ask(stack, "my very private prompt"),
        ask(stack, "my very private prompt", stream=True),
        ask(stack, headers={"authorization": "Bearer sk-a-mistyped-key"}),
        ask(stack, model="nobody"),
    ]
    stack.sim.next(operation="signin", fail="InvalidPassword")
    stack.sim.revoke()
    answers.append(ask(stack))
    stack.sim.account("demo1@example.com", password="demo-password-1")
    admin = {"authorization": f"Bearer {stack.admin_key}"}
    answers += [
        call(stack, "GET", "/api/accounts", headers=admin),
        call(stack, "GET", "/api/keys", headers=admin),
    ]
    told = [answer.text + str(answer.headers) for answer in answers]
    told += [scrape(stack).text, stack.logs()]
    secrets = [*stack.environment["API_KEY"].split(","), stack.environment["SECRET_KEY"]]
    secrets += ["demo-password-", "sk-a-mistyped-key", "eyJ"]
    for text in told:
        assert not [secret for secret in secrets if secret in text]
    assert "my very private prompt" not in stack.logs()
    assert not re.search(r"demo\d@example\.com", stack.logs())


def test_keys_in_the_query_are_no_keys(stack: Stack) -> None:
    answer = httpx.get(f"{stack.url}/v1/models?api_key={stack.key}&key={stack.key}")
    assert_error(answer, 401, "invalid_request_error", "invalid_api_key")
    assert stack.key not in stack.logs()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_what_probes_ask_is_logged_only_when_it_fails(stack: Stack, path: str) -> None:
    before = stack.logs().count(f"route={path} ")
    assert get(stack, path).status_code == 200
    assert stack.logs().count(f"route={path} ") == before
