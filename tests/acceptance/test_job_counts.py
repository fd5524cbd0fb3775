"""What job processes count is on the page of a gateway that never ran a job."""

import contextlib
import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.processes import Watched, clean_environment, free_port, status_of
from tests.fakes.redis_server import RedisServer, own_redis
from tests.fakes.stack import eventually

__all__ = ["own_redis"]


def samples(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        page = answer.read().decode()
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_counts_of_job_processes_reach_the_metrics_page(own_redis: RedisServer) -> None:
    port = free_port()
    environ = clean_environment(
        SERVICE_PORT=str(port),
        WORKERS="1",
        REDIS_URL=own_redis.url,
        API_KEY="sk-x",
        SECRET_KEY="s" * 40,
        DRAIN_DELAY_SECONDS="0",
        QWEN_CHAT_PROXY_URL=f"http://127.0.0.1:{free_port()}",
    )
    counted = "qwen_gateway_redis_seconds_count[('operation', 'due_begin')]"
    with contextlib.ExitStack() as held:
        held.enter_context(Watched.start([sys.executable, "-m", "gateway"], environ))
        eventually(
            lambda: status_of(f"http://127.0.0.1:{port}/readyz"),
            within_seconds=20,
            until=lambda status: status == 200,
        )
        assert counted not in samples(port)  # a gateway begins no step
        held.enter_context(Watched.start([sys.executable, "-m", "workers"], environ))
        # The sweep runs at start; what it counted comes with the next scrape.
        eventually(lambda: samples(port).get(counted, 0), within_seconds=15)
