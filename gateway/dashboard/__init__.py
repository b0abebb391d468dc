"""The dashboard: what people see and do in a browser. Its addresses are those without /v1.

Pages are made on the server. Whatever changes on a page is asked for again and sent only when it differs (htmx), or
comes as events (the map and the log). It holds no state: sessions, codes and counts are rows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio.to_thread
import psycopg
from fastapi import APIRouter

from config.errors import StorageUnavailable
from config.logging import logger
from gateway.dashboard import devices, fleet, history, messages, platforms, sign_in, static, webhooks
from gateway.dashboard.desk import Desk
from gateway.dashboard.errors import page_route
from storage import traffic

if TYPE_CHECKING:
    from gateway.context import Context

#: How often the counts behind the charts are brought up to date, in seconds.
_COUNT_SECONDS = 15.0
#: The pause between portions while there is much to count, so that others get their turn, in seconds.
_PAUSE_SECONDS = 0.05


def router(context: Context) -> APIRouter:
    """Return the dashboard's addresses."""
    desk = Desk(context)
    routes = APIRouter(route_class=page_route(desk), include_in_schema=False)
    for part in (sign_in, fleet, devices, messages, platforms, webhooks, history, static):
        part.add_routes(routes, desk)
    return routes


async def count_traffic(context: Context) -> None:
    """Keep the counts behind the charts up to date, for as long as the gateway serves."""
    while True:
        try:
            more = await anyio.to_thread.run_sync(traffic.count, context.database)
        except (StorageUnavailable, psycopg.Error) as error:
            more = False
            logger().debug("The charts' counts wait for PostgreSQL", error=type(error).__name__)
        await asyncio.sleep(_PAUSE_SECONDS if more else _COUNT_SECONDS)
