"""The fleet page: how many devices are in which state, the map of all of them, and a list with filters."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from config.errors import StorageUnavailable
from gateway.dashboard.desk import Desk
from gateway.dashboard.history import RECENT_RESTARTS, each_once
from gateway.dashboard.rendering import segment
from gateway.dashboard.states import DEVICE_STATES, look_of
from gateway.dashboard.streams import HEADERS, as_event, still_there
from storage import breakers, dashboard, restarts
from storage.dashboard import DeviceFilter
from supervisors.attention import ALERTING_CODES
from supervisors.policy import advice_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from fastapi import APIRouter
    from starlette.datastructures import QueryParams

    from gateway.context import Context
    from storage.database import Connection, Row

#: How often the fleet is looked at while somebody watches, in seconds: once for all who do.
_LOOK_SECONDS = 1.0
#: Up to so many devices the map shows their names.
_TILES = 60
_PAGE = 50
#: What the list is asked by.
_ASKED = frozenset({"q", "platform", "state", "after"})
_ATTENTION = 5


class FleetWatch:
    """The states of all devices, read at most once a second whoever asks. Nothing is lost with it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._turn: asyncio.Lock | None = None
        self._read_at = 0.0
        self._states: Mapping[int, str] = {}

    async def states(self) -> Mapping[int, str]:
        """Return each device's state by its id.

        Raises:
            StorageUnavailable: PostgreSQL is away.
        """
        self._turn = self._turn or asyncio.Lock()
        async with self._turn:
            if time.monotonic() - self._read_at >= _LOOK_SECONDS / 2:
                rows = await self._context.read(dashboard.fleet)
                self._states = {row["id"]: row["state"] for row in rows}
                self._read_at = time.monotonic()
            return self._states


def changes(before: Mapping[int, str], now: Mapping[int, str]) -> dict[str, Any] | None:
    """Return what a browser that shows ``before`` must be told; None: nothing.

    ``changed`` lists id and state by turns; ``others`` says that devices came or went, so that the map is to be asked
    for again.
    """
    changed: list[Any] = []
    for device_id, state in now.items():
        if before.get(device_id, state) != state:
            changed += (device_id, state)
    others = before.keys() != now.keys()
    return {"changed": changed, "others": others} if changed or others else None


def counted(states: Sequence[str]) -> list[tuple[str, int]]:
    """Return how many devices are in each state, in the order of the legend; states without any are left out."""
    sums: dict[str, int] = {}
    for state in states:
        sums[state] = sums.get(state, 0) + 1
    known = [(state, sums.pop(state)) for state in DEVICE_STATES if state in sums]
    return known + sorted(sums.items())


def in_groups(states: Sequence[str]) -> dict[str, int]:
    """Return how many devices are well, moving, resting, or need somebody."""
    sums = dict.fromkeys(("well", "moving", "needs-you", "resting"), 0)
    for state, number in counted(states):
        sums[look_of(state).group] += number
    return sums


def add_routes(routes: APIRouter, desk: Desk) -> None:
    """Add the fleet page's addresses."""
    context = desk.context
    watch = FleetWatch(context)

    @routes.get("/")
    async def fleet_page(request: Request) -> Response:
        visitor = await desk.visitor(request)
        wanted = _filter(request.query_params)

        def look(connection: Connection) -> dict[str, Any]:
            return {
                "fleet": dashboard.fleet(connection),
                "devices": dashboard.device_page(connection, wanted, limit=_PAGE + 1),
                "restarts": restarts.latest(connection, limit=RECENT_RESTARTS),
                **_overview(connection),
            }

        found = await context.read(look)
        shown = _map_values(found["fleet"])
        page = _page_values(found["devices"], request.query_params)
        parts: dict[str, Any] = {
            "listed": desk.part(request, "fleet/list.html", visitor, **page),
            "overview": desk.part(request, "fleet/overview.html", visitor, **_overview_values(found)),
            "restarts": desk.part(
                request, "history/restarts.html", visitor, restarts=each_once(found["restarts"]), few=True
            ),
        }
        return await desk.page(request, "fleet/page.html", visitor, doubts=found["doubts"], **parts, **shown, **page)

    @routes.get("/fleet/overview")
    async def fleet_overview(request: Request) -> Response:
        visitor = await desk.visitor(request)
        return desk.fragment(request, "fleet/overview.html", visitor, **_overview_values(await context.read(_overview)))

    @routes.get("/fleet/map")
    async def fleet_map(request: Request) -> Response:
        visitor = await desk.visitor(request)
        shown = _map_values(await context.read(dashboard.fleet))
        return await desk.page(request, "fleet/map.html", visitor, doubts=0, **shown)

    @routes.get("/devices")
    async def device_list(request: Request) -> Response:
        visitor = await desk.visitor(request)
        wanted, after = _filter(request.query_params), request.query_params.get("after", "")
        rows = await context.read(
            lambda connection: dashboard.device_page(connection, wanted, after=after, limit=_PAGE + 1)
        )
        page = _page_values(rows, request.query_params)
        if "hx-request" in request.headers:
            return desk.fragment(request, "fleet/list.html", visitor, **page)
        listed = desk.part(request, "fleet/list.html", visitor, **page)
        return await desk.page(request, "fleet/list_page.html", visitor, listed=listed)

    @routes.get("/fleet/stream")
    async def fleet_stream(request: Request) -> Response:
        await desk.visitor(request)
        first = await watch.states()

        async def events() -> AsyncIterator[bytes]:
            # A browser may have been away: it is told everything once, and then what changes.
            shown = first
            everything = [part for pair in shown.items() for part in pair]
            yield as_event("fleet", json.dumps({"all": everything}))
            async for _ in still_there(desk, request, _LOOK_SECONDS):
                try:
                    now = await watch.states()
                except StorageUnavailable:
                    yield as_event("away", "{}")
                    continue
                told = changes(shown, now)
                shown = now
                yield as_event("fleet", json.dumps(told)) if told is not None else as_event("", "")

        return StreamingResponse(events(), media_type="text/event-stream", headers=HEADERS)


def _filter(query: QueryParams) -> DeviceFilter:
    states = tuple(state for state in query.getlist("state") if state in DEVICE_STATES)
    return DeviceFilter(states or None, query.get("platform") or None, query.get("q", "").strip()[:100])


def _map_values(rows: Sequence[Row]) -> dict[str, Any]:
    states = [row["state"] for row in rows]
    looks = {
        state: (f"s-{state}", f"g-{look.group}", look.title)
        for state, look in ((each, look_of(each)) for each in set(states))
    }
    return {
        # For thousands: whatever is the same for all of a state is made once.
        "cells": [
            (row["id"], row["name"], segment(row["name"]), row["platform"], *looks[row["state"]]) for row in rows
        ],
        "tiles": len(rows) <= _TILES,
        "counts": counted(states),
        "in_groups": in_groups(states),
        "platforms": sorted({row["platform"] for row in rows}),
    }


def _page_values(rows: list[Row], query: QueryParams) -> dict[str, Any]:
    more = len(rows) > _PAGE
    return {
        "rows": rows[:_PAGE],
        "query": query.get("q", ""),
        "chosen": query.getlist("state"),
        "platform": query.get("platform", ""),
        "after": rows[_PAGE - 1]["name"] if more else None,
        "begun": bool(query.get("after")),
        "asked": urlencode([(name, value) for name, value in query.multi_items() if name in _ASKED and value]),
    }


def _overview(connection: Connection) -> dict[str, Any]:
    return {
        "attention": dashboard.attention(connection, sorted(ALERTING_CODES), _ATTENTION + 1),
        "doubts": dashboard.doubt_count(connection),
        "breakers": breakers.all_breakers(connection),
        "held": dashboard.held_lanes(connection, 5),
    }


def _overview_values(found: dict[str, Any]) -> dict[str, Any]:
    devices = found["attention"]
    return {
        "attention": [(device, advice_for(device)) for device in devices[:_ATTENTION]],
        "more_attention": len(devices) > _ATTENTION,
        "doubts": found["doubts"],
        "breakers": found["breakers"],
        "held": found["held"],
    }
