"""Events: messages received, receipts, state changes. Written before anything else learns of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.sql import queries
from storage.text import storable, storable_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.database import Connection, Row

_SQL = queries("events")

#: A stranger chooses the id of the message he sends; one longer than an index entry could never be recorded.
_KEY_LIMIT = 255


@dataclass(frozen=True)
class Event:
    """Something that happened to a device; ``external_id`` makes a repeated one the same row."""

    kind: str
    external_id: str
    body: dict[str, Any]


def record(connection: Connection, device_id: int, events: Sequence[Event]) -> list[str]:
    """Write events, leaving alone those that are known already; return the external ids of the new ones."""
    rows = connection.execute(
        _SQL["record"],
        {
            "device_id": device_id,
            "kinds": [event.kind for event in events],
            "external_ids": [_key(event.external_id) for event in events],
            "bodies": [json.dumps(storable_value(event.body)) for event in events],
        },
    )
    return [row["external_id"] for row in rows]


def _key(external_id: str) -> str:
    """Return an id as it is stored: a very long one as its beginning and its hash."""
    key = storable(external_id)
    if len(key) <= _KEY_LIMIT:
        return key
    return key[: _KEY_LIMIT - 64] + hashlib.sha256(key.encode()).hexdigest()


def after(connection: Connection, last: int, *, device: str | None = None, limit: int = 500) -> list[Row]:
    """Return the events after id ``last``, oldest first."""
    return connection.execute(_SQL["after"], {"after": last, "device": device, "limit": limit}).fetchall()


def latest(connection: Connection, *, device: str | None = None, limit: int = 50) -> list[Row]:
    """Return the newest events, oldest of them first."""
    return connection.execute(_SQL["latest"], {"device": device, "limit": limit}).fetchall()
