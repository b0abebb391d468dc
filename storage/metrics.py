"""What the metrics are read from: sums that grow with what is new, and counts of what is unfinished.

Counters are exact and never go back, whatever is restarted: sums of what is over for certain are kept in a table, and
what came since is added when they are read, both in one snapshot.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage import devices, endpoint_deliveries
from storage.sql import queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.database import Connection, Row

_SQL = queries("metrics")

#: Upper bounds of the buckets of times from acceptance to an outcome, in seconds.
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0, 86_400.0)
#: Rows summed at once, and rows that a reading adds itself, at most.
_STEP = 20_000
_NEW_LIMIT = 50_000
#: How long a candidate rests before it is summed, in seconds: an id may be drawn a moment before its transaction shows.
SETTLE_SECONDS = 5.0

#: A counter: what is counted, of which platform (or kind of process), and the outcome, cause or bucket.
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Reading:
    """What PostgreSQL knows, at one moment."""

    totals: dict[Key, float]
    devices: Sequence[Row]
    outbox: Sequence[Row]
    breakers: Sequence[Row]
    connections: Sequence[Row]
    connection_limit: int
    deliveries: dict[int, Row]


def read(connection: Connection, databases: Sequence[str]) -> Reading:
    """Return what the metrics tell, at the beginning of a transaction; ``databases``: count these connections, too.

    Raises:
        StorageUnavailable: PostgreSQL is away.
    """
    connection.execute(_SQL["one_snapshot"])
    limit = connection.execute(_SQL["connection_limit"]).fetchone()
    return Reading(
        totals=_totals(connection),
        devices=devices.counts(connection),
        outbox=connection.execute(_SQL["outbox"]).fetchall(),
        breakers=connection.execute(_SQL["breakers"]).fetchall(),
        connections=connection.execute(_SQL["connections"], {"databases": list(databases)}).fetchall(),
        connection_limit=0 if limit is None else int(limit["connections"]),
        deliveries=endpoint_deliveries.counts(connection),
    )


def _totals(connection: Connection) -> dict[Key, float]:
    totals: Counter[Key] = Counter()
    for row in connection.execute(_SQL["totals"]):
        totals[row["metric"], row["platform"], row["label"]] += row["value"]
    for cursor in connection.execute(_SQL["cursors"]).fetchall():
        totals.update(_between(connection, cursor["source"], cursor["counted"], cursor["counted"] + _NEW_LIMIT))
    return dict(totals)


def _between(connection: Connection, source: str, first: int, last: int) -> dict[Key, float]:
    """Return what the rows of a table with ids above ``first``, up to ``last``, come to."""
    values = {"first": first, "last": last, "bounds": list(BOUNDS)}
    rows = connection.execute(_SQL[f"of_{source}s"], values)
    return {(row["metric"], row["platform"], row["label"]): row["value"] for row in rows}


def sum_up(connection: Connection, *, settle_seconds: float = SETTLE_SECONDS) -> bool:
    """Sum some of what is new in each table; return whether there is more to sum now. One transaction, the caller's."""
    more = [_sum_up(connection, source, settle_seconds) for source in ("transition", "restart")]
    return any(more)


def _sum_up(connection: Connection, source: str, settle_seconds: float) -> bool:
    values = {"source": source, "settle": settle_seconds}
    cursor = connection.execute(_SQL["take_cursor"], values).fetchone()
    if cursor is None:
        return False
    counted, candidate = cursor["counted"], cursor["candidate"]
    if counted < candidate:
        if not cursor["settled"]:
            return False
        upto = min(candidate, counted + _STEP)
        found = _between(connection, source, counted, upto)
        if found:
            connection.execute(
                _SQL["add"],
                {
                    "metrics": [metric for metric, _, _ in found],
                    "platforms": [platform for _, platform, _ in found],
                    "labels": [label for _, _, label in found],
                    "values": list(found.values()),
                },
            )
        connection.execute(_SQL["counted"], {"source": source, "counted": upto})
        if upto < candidate:
            return True
    connection.execute(_SQL[f"choose_{source}"])
    return False
