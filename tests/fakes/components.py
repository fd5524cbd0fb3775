"""Parts of the system some tests need: looked for, skipped with the way to get them, or demanded.

    pytestmark = requires_component("haproxy")          the program's name

With `REQUIRE_COMPONENTS=1` (CI) a missing one is a failure instead of a skip.
"""

import os
import shutil

import pytest

# program → how to get it (Debian; .ci/run installs all of these)
COMPONENTS: dict[str, str] = {
    "chromium": "apt-get install chromium",
    "curl": "apt-get install curl",
    "haproxy": "apt-get install haproxy",
    "make": "apt-get install make",
    "microsocks": "apt-get install microsocks",
    "nginx": "apt-get install nginx-light",
    "prometheus": "apt-get install prometheus",
    "promtool": "apt-get install prometheus",
    "redis-cli": "apt-get install redis-tools",
    "redis-server": "apt-get install redis-server",
    "tinyproxy": "apt-get install tinyproxy",
}

# Debian puts servers where a plain user's PATH doesn't lead.
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin"


def find_component(name: str) -> str | None:
    """The program's path, or None."""
    return shutil.which(name, path=_PATH)


def requires_component(name: str) -> pytest.MarkDecorator:
    """Mark a test that needs a component; the root conftest skips it or fails it."""
    if name not in COMPONENTS:
        raise LookupError(f"{name}: add it to tests/fakes/components.py with its install command")
    return pytest.mark.component(name)


def check_component(name: str) -> None:
    """Skip or fail the running test when the component is missing."""
    if find_component(name) is not None:
        return
    reason = f"{name} is missing: {COMPONENTS[name]}"
    if os.environ.get("REQUIRE_COMPONENTS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
