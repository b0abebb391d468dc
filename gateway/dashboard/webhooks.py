"""The webhooks page: who is told what happens, the last deliveries with their answers, and what to do about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request, Response

from actors.messages import ChangeEndpoint, ReplayDeliveries, TryEndpoint
from config.errors import NotFound
from gateway.dashboard.desk import Desk, go_to
from storage import endpoint_deliveries, endpoints
from storage.pages import NEWEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import APIRouter

    from actors.messages import EndpointRequest
    from storage.database import Connection

_DELIVERIES = 50


def add_routes(routes: APIRouter, desk: Desk) -> None:
    """Add the addresses of webhooks."""

    def look(connection: Connection) -> dict[str, Any]:
        return {
            "endpoints": endpoints.all_endpoints(connection),
            "counts": endpoint_deliveries.counts(connection),
        }

    @routes.get("/webhooks")
    async def webhooks_page(request: Request) -> Response:
        visitor = await desk.visitor(request)
        live = desk.part(request, "webhooks/list.html", visitor, **await desk.context.read(look))
        return await desk.page(request, "webhooks/page.html", visitor, live=live)

    @routes.get("/webhooks/live")
    async def webhooks_live(request: Request) -> Response:
        visitor = await desk.visitor(request)
        return desk.fragment(request, "webhooks/list.html", visitor, **await desk.context.read(look))

    async def values_of(endpoint_id: str, *, dead: bool) -> dict[str, Any]:
        number = _number(endpoint_id)

        def look_at_one(connection: Connection) -> dict[str, Any]:
            return {
                "endpoint": endpoints.by_id(connection, number),
                "count": endpoint_deliveries.counts(connection).get(number),
                "deliveries": endpoint_deliveries.latest(connection, number, dead=dead, limit=_DELIVERIES),
                "dead": dead,
            }

        return await desk.context.read(look_at_one)

    @routes.get("/webhooks/{endpoint_id}")
    async def endpoint_page(request: Request, endpoint_id: str) -> Response:
        visitor = await desk.visitor(request)
        values = await values_of(endpoint_id, dead=request.query_params.get("dead") == "1")
        live = desk.part(request, "webhooks/deliveries.html", visitor, **values)
        return await desk.page(request, "webhooks/endpoint.html", visitor, live=live, **values)

    @routes.get("/webhooks/{endpoint_id}/live")
    async def endpoint_live(request: Request, endpoint_id: str) -> Response:
        visitor = await desk.visitor(request)
        values = await values_of(endpoint_id, dead=request.query_params.get("dead") == "1")
        return desk.fragment(request, "webhooks/deliveries.html", visitor, **values)

    async def carry_out(request: Request, endpoint_id: str, make: Callable[[int], EndpointRequest]) -> Response:
        await desk.operators_form(request)
        number = _number(endpoint_id)
        await desk.context.router.request(make(number))
        return go_to(f"/webhooks/{number}")

    @routes.post("/webhooks/{endpoint_id}/test")
    async def try_endpoint(request: Request, endpoint_id: str) -> Response:
        return await carry_out(request, endpoint_id, TryEndpoint)

    @routes.post("/webhooks/{endpoint_id}/replay")
    async def replay(request: Request, endpoint_id: str) -> Response:
        return await carry_out(request, endpoint_id, ReplayDeliveries)

    @routes.post("/webhooks/{endpoint_id}/enable")
    async def enable(request: Request, endpoint_id: str) -> Response:
        return await carry_out(request, endpoint_id, lambda number: ChangeEndpoint(number, enabled=True))

    @routes.post("/webhooks/{endpoint_id}/disable")
    async def disable(request: Request, endpoint_id: str) -> Response:
        return await carry_out(request, endpoint_id, lambda number: ChangeEndpoint(number, enabled=False))


def _number(endpoint_id: str) -> int:
    """Return an endpoint's id.

    Raises:
        NotFound: it is none.
    """
    if endpoint_id.isascii() and endpoint_id.isdigit() and len(endpoint_id) < 19 and int(endpoint_id) <= NEWEST:
        return int(endpoint_id)
    raise NotFound("There is no such webhook endpoint.", "See the list of webhooks.", code="unknown_endpoint")
