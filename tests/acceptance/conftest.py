"""A running product for every acceptance test; modules with other settings make their own stack.

Whatever stack a test uses is cleared before it: nothing scripted, no account rests.
"""

from collections.abc import Iterator

import pytest

from tests.fakes.stack import Stack


@pytest.fixture(scope="session")
def default_stack() -> Iterator[Stack]:
    """The product with its default settings, over three accounts."""
    with Stack() as stack:
        yield stack


@pytest.fixture
def stack(default_stack: Stack) -> Stack:
    """The default stack, cleared."""
    default_stack.clear()
    return default_stack
