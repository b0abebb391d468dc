"""Events for those who listen: the newest ones in memory, read once for all of them.

As long as somebody listens, new events are looked for ten times a second. A listener that is further behind than what
is in memory reads for itself; so nobody slows anybody down, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from config.errors import StorageUnavailable
from storage import events
from storage.events import Place, Wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.context import Context
    from storage.database import Row

#: How often new events are looked for while somebody listens, in seconds.
_LOOK_SECONDS = 0.1
#: After so long without a listener, events are not looked for any more, in seconds.
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 1.0
#: Events kept in memory, and read at once.
_KEPT = 500
_AT_ONCE = 200
_EVERYTHING = Wanted()


class EventFeed:
    """The events of one fleet, as they come. For one event loop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._rows: deque[Row] = deque(maxlen=_KEPT)
        #: Everything after ``_start`` and up to ``_end`` is in memory.
        self._start: Place | None = None
        self._end = Place()
        self._news = asyncio.Event()
        self._listeners = 0
        self._reader: asyncio.Task[None] | None = None

    async def listen(
        self, place: Place | None, wanted: Wanted, heartbeat_seconds: float
    ) -> AsyncIterator[tuple[Place, list[Row]]]:
        """Yield what comes after ``place`` (None: from now on), with the place where to go on; also when nothing came.

        Raises:
            StorageUnavailable: at the beginning only.
        """
        if place is None:
            newest = await self._context.read(lambda connection: events.stream(connection, None, _EVERYTHING, 1))
            place = Place.of(newest[-1]) if newest else Place()
            yield place, []
        self._listeners += 1
        if self._reader is None:
            self._reader = asyncio.create_task(self._look())
        spoke = time.monotonic()
        try:
            while True:
                news = self._news
                place, rows = await self._after(place, wanted)
                if rows or time.monotonic() - spoke >= heartbeat_seconds:
                    spoke = time.monotonic()
                    yield place, rows
                if not rows:
                    await _happens(news, max(0.0, spoke + heartbeat_seconds - time.monotonic()))
        finally:
            self._listeners -= 1

    async def _after(self, place: Place, wanted: Wanted) -> tuple[Place, list[Row]]:
        """Return what comes next after a place, and the place behind it."""
        if self._start is not None and self._start <= place:
            if place >= self._end:
                return place, []
            rows = [row for row in self._rows if Place.of(row) > place and wanted.takes(row)]
            return self._end, rows
        end = self._end  # what is read now goes at least as far
        try:
            rows = await self._context.read(lambda connection: events.stream(connection, place, wanted, _AT_ONCE))
        except StorageUnavailable:
            return place, []  # it is asked again when there is news, or at the next heartbeat
        return (Place.of(rows[-1]) if rows else max(place, end)), rows

    async def _look(self) -> None:
        """Read what is new, until nobody has listened for a while."""
        lonely = time.monotonic()
        try:
            while time.monotonic() - lonely < _PATIENCE_SECONDS:
                if self._listeners:
                    lonely = time.monotonic()
                try:
                    await self._read()
                except StorageUnavailable:
                    await asyncio.sleep(_PAUSE_SECONDS)
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self._reader = None
            self._start = None
            self._rows.clear()

    async def _read(self) -> None:
        if self._start is None:
            newest = await self._context.read(lambda connection: events.stream(connection, None, _EVERYTHING, 1))
            self._start = self._end = Place.of(newest[-1]) if newest else Place()
            self._tell()
            return
        place = self._end
        rows = await self._context.read(lambda connection: events.stream(connection, place, _EVERYTHING, _AT_ONCE))
        if not rows:
            return
        overflow = len(self._rows) + len(rows) - _KEPT
        if overflow > 0:
            self._start = Place.of(self._rows[overflow - 1])
        self._rows.extend(rows)
        self._end = Place.of(rows[-1])
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


async def _happens(news: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        pass
