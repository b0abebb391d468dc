"""The platforms page: which there are, their devices, and which of their breakers are open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request, Response

from actors.platforms import contracts
from gateway.dashboard.desk import Desk
from storage import breakers, dashboard

if TYPE_CHECKING:
    from fastapi import APIRouter

    from storage.database import Connection

_HELD = 50


def add_routes(routes: APIRouter, desk: Desk) -> None:
    """Add the addresses of platforms."""

    def look(connection: Connection) -> dict[str, Any]:
        return {
            "used": dashboard.platform_devices(connection),
            "breakers": breakers.all_breakers(connection),
            "held": dashboard.held_lanes(connection, _HELD),
        }

    @routes.get("/platforms")
    async def platforms_page(request: Request) -> Response:
        visitor = await desk.visitor(request)
        values = await desk.context.read(look)
        live = desk.part(request, "platforms/live.html", visitor, contracts=contracts(), **values)
        return await desk.page(request, "platforms/page.html", visitor, live=live)

    @routes.get("/platforms/live")
    async def platforms_live(request: Request) -> Response:
        visitor = await desk.visitor(request)
        values = await desk.context.read(look)
        return desk.fragment(request, "platforms/live.html", visitor, contracts=contracts(), **values)
