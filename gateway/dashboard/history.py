"""What happened: the supervisors' restarts, the log as it is written, and the charts."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from config.log_tail import LogTail
from config.logging import human_details
from gateway.dashboard import charts
from gateway.dashboard.desk import Desk
from gateway.dashboard.streams import HEADERS, as_event, still_there
from storage import restarts, traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fastapi import APIRouter

    from storage.database import Row

_RESTARTS = 40
#: The fleet page shows what fell lately, each once, out of so many restarts.
RECENT_RESTARTS = 200
_FEW = 6
_LOG_LINES = 200
_LOG_SECONDS = 0.5


@dataclass(frozen=True)
class Period:
    """A period that charts show: so many spans of so many seconds."""

    title: str
    spans: int
    seconds: int


PERIODS = {
    "hour": Period("Hour", 60, 60),
    "day": Period("Day", 96, 900),
    "week": Period("Week", 84, 7200),
    "month": Period("Month", 90, 28_800),
}


def add_routes(routes: APIRouter, desk: Desk) -> None:
    """Add the addresses of the log and the charts."""
    context = desk.context

    # --- the log -----------------------------------------------------------------------------------------

    @routes.get("/log")
    async def log_page(request: Request) -> Response:
        visitor = await desk.visitor(request)
        rows = await context.read(lambda connection: restarts.latest(connection, limit=_RESTARTS))
        live = desk.part(request, "history/restarts.html", visitor, restarts=rows[::-1], few=False)
        return await desk.page(request, "history/log.html", visitor, live=live)

    @routes.get("/log/restarts")
    async def log_restarts(request: Request) -> Response:
        visitor = await desk.visitor(request)
        few = "few" in request.query_params
        limit = RECENT_RESTARTS if few else _RESTARTS
        rows = await context.read(lambda connection: restarts.latest(connection, limit=limit))
        shown = each_once(rows) if few else rows[::-1]
        return desk.fragment(request, "history/restarts.html", visitor, restarts=shown, few=few)

    @routes.get("/log/stream")
    async def log_stream(request: Request) -> Response:
        await desk.visitor(request)
        tail = LogTail(context.home.log_file)

        async def events() -> AsyncIterator[bytes]:
            latest = await anyio.to_thread.run_sync(tail.latest, _LOG_LINES)
            yield as_event("begin", json.dumps([_line(record) for record in latest]))
            async for _ in still_there(desk, request, _LOG_SECONDS):
                records = await anyio.to_thread.run_sync(tail.more)
                yield as_event("lines", json.dumps([_line(record) for record in records])) if records else b":\n\n"

        return StreamingResponse(events(), media_type="text/event-stream", headers=HEADERS)

    # --- charts ------------------------------------------------------------------------------------------

    async def drawn(request: Request) -> dict[str, Any]:
        chosen = request.query_params.get("period", "hour")
        name = chosen if chosen in PERIODS else "hour"
        period = PERIODS[name]
        first = (int(time.time()) // period.seconds - period.spans + 1) * period.seconds
        rows = await context.read(lambda connection: traffic.spans(connection, first, period.seconds))
        found = {span.begins: span for span in rows}
        moments = [first + number * period.seconds for number in range(period.spans)]
        spans = [found.get(moment) or traffic.nothing_at(moment) for moment in moments]
        return {
            "periods": PERIODS,
            "period": name,
            "traffic": charts.traffic_chart(spans, period.seconds),
            "delivery": charts.delivery_chart(spans, period.seconds),
            "healing": charts.healing_chart(spans, period.seconds),
            "sums": charts.sums_of(spans),
        }

    @routes.get("/charts")
    async def charts_page(request: Request) -> Response:
        visitor = await desk.visitor(request)
        values = await drawn(request)
        live = desk.part(request, "history/charts_live.html", visitor, **values)
        return await desk.page(request, "history/charts.html", visitor, live=live, **values)

    @routes.get("/charts/live")
    async def charts_live(request: Request) -> Response:
        visitor = await desk.visitor(request)
        return desk.fragment(request, "history/charts_live.html", visitor, **await drawn(request))


def each_once(rows: Sequence[Row]) -> list[Row]:
    """Return the latest restart of each that fell, newest first: one that is tried again and again hides no other."""
    newest: dict[tuple[str, str], Row] = {}
    for row in reversed(rows):
        newest.setdefault((row["what"], row["name"]), row)
    return list(newest.values())[:_FEW]


def _line(record: dict[str, Any]) -> dict[str, str]:
    """Return a record of the log as the page shows it."""
    return {
        "at": str(record.get("timestamp", "")),
        "level": str(record.get("level", "")),
        "actor": str(record.get("actor", "")),
        "text": str(record.get("event", "")),
        "details": human_details(record),
    }
