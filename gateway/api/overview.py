"""`/api/overview`: the numbers of the first page."""

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.answers import json_answer
from gateway.resources import Resources, resources_of
from shared import metrics
from shared.store.accounts import State
from shared.store.usage import Sums


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """How the product stands.

    Attributes:
        open_streams: towards callers, over all processes of this host.
        in_flight: streams the accounts carry now, over all hosts.
        usable: whether any account is enabled and alive.
        models: None while the upstream's list was never read.
        today: what was asked and used on this UTC day, over all keys.
        keys: created ones; `configured_keys` = those of `API_KEY`.
    """

    instance: Literal["ready", "draining"]
    processes: int
    open_streams: int
    in_flight: int
    accounts: dict[State, int]
    usable: bool
    models: int | None
    variants: int
    today: Sums
    keys: int
    configured_keys: int


async def show_overview(request: Request) -> Response:
    """`GET /api/overview` → `Overview`."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    return json_answer(await gather(resources))


async def gather(resources: Resources) -> Overview:
    """The numbers as they are now, in O(log n) of the accounts."""
    store = resources.store
    pool = await store.pool_state()
    by_model = await store.usage.of_day("model", await store.usage.today())
    catalogue = resources.catalogues.known()
    open_streams = metrics.summed(metrics.STREAMS_OPEN, directory=resources.metrics_directory)
    return Overview(
        instance="draining" if resources.drain.began else "ready",
        processes=resources.settings.gateway_processes,
        open_streams=int(open_streams),
        in_flight=pool.leases_in_flight,
        accounts=pool.accounts,
        usable=pool.any_usable,
        models=len(catalogue.listing(simple=True)) if catalogue is not None else None,
        variants=len(catalogue.listing()) if catalogue is not None else 0,
        today=sum(by_model.values(), Sums()),
        keys=len(await store.api_keys.created()),
        configured_keys=len(resources.settings.api_keys),
    )
