"""The model list: section 3."""

import pytest

from tests.integration.simulator.raw import ask, sign_in
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio


async def test_the_list_comes_plain_and_without_login(sim: Simulator) -> None:
    models = (await ask(sim, "GET", "/api/models")).json()["data"]
    assert "qwen3.6-plus" in [model["id"] for model in models]
    assert (await ask(sim, "GET", "/api/models", headers=await sign_in(sim))).status == 200


async def test_the_list_comes_wrapped(sim: Simulator) -> None:
    answer = (await ask(sim, "GET", "/api/v2/models/")).json()
    assert answer["success"] is True
    assert answer["data"]["data"][0]["id"] == "qwen3.6-plus"


async def test_models_differ_in_what_they_can_do(sim: Simulator) -> None:
    models = {one["id"]: one for one in (await ask(sim, "GET", "/api/models")).json()["data"]}
    meta = {name: model["info"]["meta"] for name, model in models.items()}
    assert "t2v" in meta["qwen3-omni-flash-2025-12-01"]["chat_type"]
    assert "t2i" not in meta["qwen3.6-plus"]["chat_type"]
    assert meta["qwen3.6-plus"]["abilities"]["thinking"]
    assert not meta["qwen3-coder-plus"]["abilities"]["thinking"]
    assert "search" not in meta["qwen3-coder-plus"]["chat_type"]
    assert meta["qwen-bare"] == {}


async def test_the_list_can_be_replaced(sim: Simulator) -> None:
    sim.configure(models=[{"id": "only"}])
    assert (await ask(sim, "GET", "/api/models")).json() == {"data": [{"id": "only"}]}


async def test_the_list_can_need_a_login(sim: Simulator) -> None:
    sim.configure(models_need_login=True)
    assert (await ask(sim, "GET", "/api/models")).status == 401
