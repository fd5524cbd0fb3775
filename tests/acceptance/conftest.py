"""Running products for the acceptance tests; a module with other settings makes its own stack.

Whatever stack a test uses is cleared before it: nothing scripted, no account rests.
"""

from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.fakes.stack import Stack

# Everything that an operator may turn the other way and that fits into one product.
ADJUSTED = {
    "ACCOUNT_CONCURRENCY": "1",
    "ACCOUNT_WAIT_SECONDS": "1",
    "FIRST_TOKEN_TIMEOUT_SECONDS": "1",
    "STREAM_IDLE_TIMEOUT_SECONDS": "1",
    "CHAT_RETRY_COUNT": "0",
    "MAX_BODY_MB": "1",
    "MODELS_CACHE_TTL": "1",
    "SIMPLE_MODEL_MAP": "true",
    "OUTPUT_THINK": "false",
    "SEARCH_INFO_MODE": "text",
    "METRICS_TOKEN": "a-token-for-metrics",
    "CORS_ORIGINS": "https://app.example.org",
    "MODEL_ALIASES": '{"gpt-*":"Qwen3-Max","lost-*":"no-such-model-thinking","claude-*":"absent"}',
}


@pytest.fixture(scope="session")
def default_stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def adjusted_stack() -> Iterator[Stack]:
    with Stack(environment=ADJUSTED, accounts=1) as stack:
        yield stack


@pytest.fixture
def stack(default_stack: Stack) -> Stack:
    """The product with its default settings, over three accounts."""
    default_stack.clear()
    return default_stack


@pytest.fixture
def adjusted(adjusted_stack: Stack) -> Stack:
    """The product with the settings of `ADJUSTED`, over one account with one slot."""
    adjusted_stack.clear()
    return adjusted_stack


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    """The official SDK, as strict as it can be."""
    with openai.OpenAI(
        base_url=f"{stack.url}/v1",
        api_key=stack.key,
        max_retries=0,
        timeout=20,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
def anthropic_client(stack: Stack) -> Iterator[anthropic.Anthropic]:
    """The same of Anthropic."""
    with anthropic.Anthropic(
        base_url=stack.url,
        api_key=stack.key,
        max_retries=0,
        timeout=20,
        _strict_response_validation=True,
    ) as client:
        yield client
