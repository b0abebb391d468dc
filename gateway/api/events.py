"""/v1/events: messages received, receipts, state changes, opt-outs; as pages, and as a stream that can be resumed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from gateway.api.description import PAGE, Limit, OfDevice, problems
from gateway.api.streams import EVENT_STREAM, Accept, streamed, wants_stream
from gateway.callers import Caller, Reader
from gateway.context import Context, Here
from gateway.events import EventFeed
from storage import events
from storage.database import Row
from storage.events import Place, Wanted

#: How often a stream says that it lives, in seconds.
_HEARTBEAT_SECONDS = 15.0
#: After how long a client that lost the stream comes back, in milliseconds.
_COME_BACK_MILLISECONDS = 1_000
_STREAM = "Streamed: `event` is the kind, `data` an event of the list, `id` its place."
_PLACE = "^[0-9]{1,18}-[0-9]{1,18}$"

OfKind = Annotated[
    str | None,
    Query(
        pattern="^[a-z_]{1,64}$", description="Only this kind: message, receipt, state, opt_out.", examples=["message"]
    ),
]


class EventItem(BaseModel):
    """Something that happened to a device."""

    place: str = Field(description="Where it stands: go on after it with `after`, or `Last-Event-ID`.")
    id: int
    at: datetime
    device: str
    kind: str
    body: dict[str, Any]


class EventPage(BaseModel):
    """Events, oldest first."""

    items: list[EventItem]
    next: str = Field(description="Give it as `after` for what comes next, also when that has not happened yet.")


def router(context: Context) -> APIRouter:
    """Return the addresses of events."""
    routes = APIRouter(prefix="/events", tags=["events"])
    feed = EventFeed(context)

    @routes.get("", response_model=EventPage, responses={**problems(), 200: streamed(_STREAM)})
    async def list_events(
        here: Here,
        caller: Reader,
        device: OfDevice = None,
        kind: OfKind = None,
        after: Annotated[str | None, Query(pattern=_PLACE, description="`next` of the page before.")] = None,
        last_event_id: Annotated[str | None, Header(pattern=_PLACE, description="The same, for a stream.")] = None,
        limit: Limit = PAGE,
        accept: Accept = None,
    ) -> Any:
        """List events, oldest first: those after a place, or the newest. Before a place that was read none appears.

        With `Accept: text/event-stream` they are streamed as they come, without a place from now on. A lost stream is
        resumed after `Last-Event-ID`; comments show that it lives.
        """
        wanted = _wanted(caller, device, kind)
        text = last_event_id or after
        place = Place.read(text) if text is not None else None
        if wants_stream(accept):
            return StreamingResponse(_lines(feed, place, wanted), media_type=EVENT_STREAM)
        rows = await here.read(lambda connection: events.stream(connection, place, wanted, limit))
        end = Place.of(rows[-1]) if rows else place or Place()
        return {"items": [_item(row) for row in rows], "next": str(end)}

    return routes


async def _lines(feed: EventFeed, place: Place | None, wanted: Wanted) -> AsyncIterator[str]:
    yield f"retry: {_COME_BACK_MILLISECONDS}\n\n"
    async for reached, rows in feed.listen(place, wanted, _HEARTBEAT_SECONDS):
        if rows:
            yield "".join(_line(row) for row in rows)
        else:
            # A comment shows that the stream lives; the id lets a client resume that has seen no event yet.
            yield f": still here\nid: {reached}\n\n"


def _line(row: Row) -> str:
    data = json.dumps(_item(row), default=str, ensure_ascii=False)
    return f"id: {Place.of(row)}\nevent: {row['kind']}\ndata: {data}\n\n"


def _item(row: Row) -> dict[str, Any]:
    return {
        "place": str(Place.of(row)),
        "id": row["id"],
        "at": row["at"].isoformat(),
        "device": row["device"],
        "kind": row["kind"],
        "body": row["body"],
    }


def _wanted(caller: Caller, device: str | None, kind: str | None) -> Wanted:
    return Wanted(None if caller.device_ids is None else tuple(caller.device_ids), device, kind)
