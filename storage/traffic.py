"""What happened in each minute, counted once as it becomes history: the charts read minutes, never messages.

Counting goes on from where it stopped, so many rows at a time; where that was stands in the transaction that adds the
counts. Killed at any moment, it counts nothing twice and leaves nothing out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.sql import queries

if TYPE_CHECKING:
    from storage.database import Connection, Database

#: The upper ends of the buckets of times to deliver, in seconds; the last bucket has none.
DELIVERY_BOUNDS = (1, 2, 5, 10, 30, 60, 300, 1800)

#: Rows that are counted in one transaction, at most.
_ROWS = 20_000
#: Rows younger than this may have neighbours that are not committed yet (no statement takes longer), in seconds.
_AGE_SECONDS = 30.0

_SQL = queries("traffic")


@dataclass(frozen=True)
class Span:
    """What happened in one span of time that began at ``begins`` (seconds since the epoch)."""

    begins: int
    sent: int
    delivered: int
    failed: int
    in_doubt: int
    reconnects: int
    restarts: int
    delivery: tuple[int, ...]


def count(database: Database, *, rows: int = _ROWS, age_seconds: float = _AGE_SECONDS) -> bool:
    """Count the next rows into their minutes; return whether there are more that may be counted at once.

    Raises:
        StorageUnavailable: PostgreSQL is away; nothing was counted.
    """
    with database.transaction() as connection:
        done = connection.execute(_SQL["claim"]).fetchone()
        if done is None:
            return False  # another process counts
        limits = {**done, "rows": rows, "age_seconds": age_seconds}
        upto = connection.execute(_SQL["upto"], limits).fetchone()
        assert upto is not None  # noqa: S101 - an aggregate always gives a row
        counted = {"transition": upto["transition"], "restart": upto["restart"]}
        if counted == done:
            return False
        connection.execute(_SQL["count_transitions"], {"after": done["transition"], "upto": counted["transition"]})
        connection.execute(_SQL["count_restarts"], {"after": done["restart"], "upto": counted["restart"]})
        connection.execute(_SQL["counted"], counted)
        connection.execute(_SQL["forget"])
        return bool(upto["seen"] >= rows)


def spans(connection: Connection, since: int, span: int) -> list[Span]:
    """Return what happened since a moment (seconds since the epoch) in spans of ``span`` seconds, but empty ones."""
    rows = connection.execute(_SQL["spans"], {"since": since, "span": span}).fetchall()
    return [
        Span(
            begins=int(row["begins"]),
            sent=int(row["sent"]),
            delivered=int(row["delivered"]),
            failed=int(row["failed"]),
            in_doubt=int(row["in_doubt"]),
            reconnects=int(row["reconnects"]),
            restarts=int(row["restarts"]),
            delivery=tuple(int(each) for each in row["delivery"]),
        )
        for row in rows
    ]


def nothing_at(begins: int) -> Span:
    """Return a span in which nothing happened."""
    return Span(begins, 0, 0, 0, 0, 0, 0, (0,) * (len(DELIVERY_BOUNDS) + 1))
