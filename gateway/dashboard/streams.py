"""Server-sent events: for what changes by itself, as long as a browser looks and its session lasts."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from config.errors import SalamanderError, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import Request

    from gateway.dashboard.desk import Desk

#: No proxy may hold events back.
HEADERS = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
#: How often it is looked whether the session still is one, in seconds.
_SESSION_SECONDS = 30.0


def as_event(name: str, data: str) -> bytes:
    """Return one event; without a name, a comment that keeps the connection alive. ``data`` is one line."""
    return f"event: {name}\ndata: {data}\n\n".encode("utf-8", "replace") if name else b":\n\n"


async def still_there(desk: Desk, request: Request, seconds: float) -> AsyncIterator[None]:
    """Yield every so many seconds, until the browser goes away or its session ends."""
    checked = time.monotonic()
    while True:
        await asyncio.sleep(seconds)
        if await request.is_disconnected():
            return
        if time.monotonic() - checked > _SESSION_SECONDS:
            checked = time.monotonic()
            try:
                await desk.visitor(request)
            except StorageUnavailable:
                pass  # nobody can tell
            except SalamanderError:
                return
        yield
