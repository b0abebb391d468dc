"""Events: messages received, receipts, state changes. Written before anything else learns of them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from storage.sql import queries
from storage.text import storable, storable_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from storage.database import Connection, Row

_SQL = queries("events")

#: A stranger chooses the id of the message he sends; one longer than an index entry could never be recorded.
_KEY_LIMIT = 255
#: A place as readers keep it; both numbers fit into 63 bits.
_PLACE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


@dataclass(frozen=True)
class Event:
    """Something that happened to a device; ``external_id`` makes a repeated one the same row."""

    kind: str
    external_id: str
    body: dict[str, Any]


def record(connection: Connection, device_id: int, events: Sequence[Event]) -> list[str]:
    """Write events, leaving alone those that are known already; return the external ids of the new ones."""
    return [row["external_id"] for row in record_of(connection, [device_id] * len(events), events)]


def record_of(connection: Connection, device_ids: Sequence[int], events: Sequence[Event]) -> psycopg.Cursor[Row]:
    """Write events of many devices likewise; return a cursor on the external ids of the new ones."""
    return connection.execute(
        _SQL["record"],
        {
            "device_ids": list(device_ids),
            "kinds": [event.kind for event in events],
            "external_ids": [_key(event.external_id) for event in events],
            "bodies": [json.dumps(storable_value(event.body)) for event in events],
        },
    )


@dataclass(frozen=True, order=True)
class Place:
    """Where a reader of events is: after which one, in the order in which none can be missed."""

    moment: int = 0
    id: int = 0

    def __str__(self) -> str:
        return f"{self.moment}-{self.id}"

    @classmethod
    def read(cls, text: str) -> Place | None:
        """Return the place that ``text`` names, or None when it names none."""
        found = _PLACE.fullmatch(text)
        return cls(int(found.group(1)), int(found.group(2))) if found else None

    @classmethod
    def of(cls, row: Row) -> Place:
        """Return the place after an event."""
        return cls(row["moment"], row["id"])


@dataclass(frozen=True)
class Wanted:
    """Which events a reader wants. None: of any device, of any kind."""

    device_ids: tuple[int, ...] | None = None
    device: str | None = None
    kind: str | None = None

    def takes(self, row: Row) -> bool:
        """Return whether this is one of them."""
        return (
            (self.device_ids is None or row["device_id"] in self.device_ids)
            and self.device in {None, row["device"]}
            and self.kind in {None, row["kind"]}
        )


def stream(connection: Connection, place: Place | None, wanted: Wanted, limit: int) -> list[Row]:
    """Return events, oldest first: those after ``place``; without one, the newest."""
    values: dict[str, Any] = {**asdict(wanted), "limit": limit}
    values["device_ids"] = None if wanted.device_ids is None else list(wanted.device_ids)
    if place is None:
        return connection.execute(_SQL["stream_end"], values).fetchall()
    values |= {"moment": place.moment, "id": place.id}
    return connection.execute(_SQL["stream"], values).fetchall()


def keep_clock(connection: Connection) -> bool:
    """Let the order of events go on where it was, also in a restored server; say whether it had to be told to."""
    return connection.execute(_SQL["keep_clock"]).fetchone() is not None


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
