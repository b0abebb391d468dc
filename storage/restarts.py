"""The story of every restart and refresh: what fell, why, what was tried, how long it took."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import psycopg

from config.errors import StorageUnavailable
from config.logging import logger
from storage.database import Connection, Database, Row
from storage.sql import queries
from storage.text import storable_value

_SQL = queries("restarts")

#: Restarts kept in memory while PostgreSQL is away; older ones are then only in the log.
_KEPT = 500
#: How long a supervisor leaves PostgreSQL alone after it did not answer, in seconds.
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Restart:
    """One restart of an actor, a process or a device's session.

    Attributes:
        what: device, shard, router, platform, fleet, system or postgres.
        name: which one.
        cause_code, cause: why, as a stable code and in words.
        attempt: the how-manieth in a row.
        tried: what was done.
        outcome: ``ok``, or what went wrong.
        seconds: from noticing to the outcome.
        request: the operator's command that asked for it, if one did.
        at: when; a row may be written much later.
    """

    what: str
    name: str
    cause_code: str
    cause: str
    tried: str
    outcome: str
    seconds: float
    attempt: int = 1
    device_id: int | None = None
    request: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


def record(connection: Connection, restart: Restart) -> None:
    """Write one restart."""
    connection.execute(_SQL["record"], storable_value(asdict(restart)))


class RestartJournal:
    """Writes restarts as log lines at once and as rows as soon as PostgreSQL takes them.

    Supervisors use it: it never raises and never waits long for a server that is away.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[Restart] = deque(maxlen=_KEPT)
        self._not_before = 0.0

    def record(self, restart: Restart) -> None:
        """Log ``restart`` and queue its row."""
        write = logger().info if restart.outcome == "ok" else logger().warning
        write(
            f"♻️ Restarted {restart.what} {restart.name}",
            cause=restart.cause,
            attempt=restart.attempt,
            tried=restart.tried,
            outcome=restart.outcome,
            seconds=round(restart.seconds, 3),
        )
        self._waiting.append(restart)
        self.flush()

    def flush(self) -> None:
        """Write the rows that wait, unless PostgreSQL failed a moment ago."""
        if not self._waiting or time.monotonic() < self._not_before:
            return
        try:
            with self._database.transaction() as connection:
                for restart in self._waiting:
                    record(connection, restart)
            self._waiting.clear()
        except (StorageUnavailable, psycopg.Error):  # the tables may not be there yet
            self._not_before = time.monotonic() + _PATIENCE_SECONDS


def latest(connection: Connection, *, device_id: int | None = None, after: int = 0, limit: int = 50) -> list[Row]:
    """Return the newest restarts, oldest of them first."""
    return connection.execute(_SQL["latest"], {"device_id": device_id, "after": after, "limit": limit}).fetchall()


def by_request(connection: Connection, request: str) -> Row | None:
    """Return what came of an operator's request, if it is known yet."""
    return connection.execute(_SQL["by_request"], {"request": request}).fetchone()
