"""What endpoints are still to be told, what they were told, and what they answered.

The rows are written by triggers (migration 0011), in the transaction of what they tell of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from config.errors import NotFound, Refused
from storage.sql import queries
from storage.text import storable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from storage.database import Connection, Row

_SQL = queries("endpoint_deliveries")

#: How long a claim holds, in seconds: longer than a run of deliveries may take.
LEASE_SECONDS = 60.0
#: Dead letters told again by one request, at most.
REPLAY_LIMIT = 100_000
#: For how many days deliveries are kept once they are over.
DAYS_KEPT = {"delivered": 3, "dead": 30}
#: How many are forgotten at once, and how far is counted.
_FORGET_LIMIT = 5_000
_COUNT_LIMIT = 100_000

#: An endpoint and one of its lanes.
Lane = tuple[int, int]


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one endpoint. ``late`` says that a failure now is the last; ``due`` that it may go."""

    id: int
    endpoint_id: int
    lane: int
    event_id: UUID
    type: str
    body: dict[str, Any]
    attempts: int
    due: bool = True
    late: bool = False

    @property
    def webhook_id(self) -> str:
        """What the receiver knows it by, at every attempt."""
        return f"evt_{self.event_id.hex}"


@dataclass(frozen=True)
class Tried:
    """What came of an attempt.

    Attributes:
        delivery: which it was.
        state: ``delivered``, ``pending`` (it is tried again) or ``dead``.
        status: the HTTP status; None: there was no answer.
        answer: the beginning of the answer's body.
        problem: why it failed, in words.
        wait: how long it waits for the next attempt, in seconds.
        gone: the endpoint says that it wants nothing more, ever.
    """

    delivery: Delivery
    state: str
    status: int | None = None
    answer: str = ""
    problem: str = ""
    wait: float = 0.0
    gone: bool = False


def claim(
    connection: Connection, owner: str, lanes: Mapping[int, int], *, busy: Collection[Lane], run: int
) -> dict[Lane, list[Delivery]]:
    """Take what is due.

    Args:
        connection: an open transaction.
        owner: who takes it.
        lanes: of how many lanes of each endpoint.
        busy: lanes that are being worked on here already.
        run: how many deliveries of one lane, at most.

    Returns:
        The deliveries of each lane, in the order they must go.
    """
    rows = connection.execute(
        _SQL["claim"],
        {
            "endpoint_ids": list(lanes),
            "lanes": list(lanes.values()),
            "busy_endpoints": [endpoint_id for endpoint_id, _ in busy],
            "busy_lanes": [lane for _, lane in busy],
            "owner": owner,
            "run": run,
            "seconds": LEASE_SECONDS,
        },
    )
    taken: dict[Lane, list[Delivery]] = {}
    for row in sorted(rows, key=lambda row: int(row["id"])):
        delivery = Delivery(**{name: row[name] for name in Delivery.__dataclass_fields__})
        taken.setdefault((delivery.endpoint_id, delivery.lane), []).append(delivery)
    return taken


def record(connection: Connection, tried: Sequence[Tried]) -> None:
    """Record what came of attempts, and switch off the endpoints that are gone."""
    connection.execute(
        _SQL["record"],
        {
            "ids": [each.delivery.id for each in tried],
            "states": [each.state for each in tried],
            "statuses": [each.status for each in tried],
            "answers": [storable(each.answer) for each in tried],
            "problems": [storable(each.problem) for each in tried],
            "waits": [each.wait for each in tried],
        },
    )
    gone = sorted({each.delivery.endpoint_id for each in tried if each.gone})
    if gone:
        connection.execute(_SQL["disable"], {"ids": gone, "reason": "It answered 410: it wants nothing more."})


def bring_forward(connection: Connection, endpoint_ids: Sequence[int], seconds: float) -> None:
    """Let what these endpoints did not take be tried within ``seconds``, but for what they asked to be told later."""
    connection.execute(_SQL["bring_forward"], {"endpoint_ids": list(endpoint_ids), "seconds": seconds})


def release(connection: Connection, delivery_ids: Sequence[int]) -> None:
    """Give back what was taken and not tried."""
    connection.execute(_SQL["release"], {"ids": list(delivery_ids)})


def release_owner(connection: Connection, owner: str) -> None:
    """Give back what a former process of ``owner`` had taken: it is known to be gone."""
    connection.execute(_SQL["release_owner"], {"owner": owner})


def test(connection: Connection, endpoint_id: int) -> int:
    """Tell an endpoint something that happened to nobody; return the delivery's id."""
    row = connection.execute(_SQL["test"], {"endpoint_id": endpoint_id}).fetchone()
    assert row is not None  # noqa: S101 - `returning` always gives the row
    return int(row["id"])


def replay(connection: Connection, endpoint_id: int, delivery_id: int | None = None) -> int:
    """Tell an endpoint its dead letters once more, or one delivery that is over; return how many.

    Raises:
        Refused: the endpoint has no such delivery, or it is still on its way.
    """
    values = {"endpoint_id": endpoint_id, "id": delivery_id, "limit": REPLAY_LIMIT}
    replayed = len(connection.execute(_SQL["replay"], values).fetchall())
    if delivery_id is not None and not replayed:
        reason = f"Endpoint {endpoint_id} has no delivery {delivery_id} that is over."
        raise Refused(reason, f"See run.py webhook deliveries {endpoint_id}.", code="not_over")
    return replayed


def latest(
    connection: Connection, endpoint_id: int, *, dead: bool = False, before: int | None = None, limit: int = 50
) -> list[Row]:
    """Return the newest deliveries (or dead letters) of an endpoint, newest first; ``before``: older than that id."""
    values = {"endpoint_id": endpoint_id, "before": before, "limit": limit}
    return connection.execute(_SQL["latest_dead" if dead else "latest"], values).fetchall()


def by_id(connection: Connection, delivery_id: int) -> Row:
    """Return one delivery, with what is told.

    Raises:
        NotFound: there is none with that id (any more).
    """
    row = connection.execute(_SQL["by_id"], {"id": delivery_id}).fetchone()
    if row is None:
        raise NotFound(
            f"There is no delivery {delivery_id}.", "See run.py webhook deliveries.", code="unknown_delivery"
        )
    return row


def counts(connection: Connection) -> dict[int, Row]:
    """Return how much each endpoint is still to be told, since when, and how much it never was; to 100,000 each."""
    return {row["endpoint_id"]: row for row in connection.execute(_SQL["counts"], {"limit": _COUNT_LIMIT})}


def forget(connection: Connection) -> bool:
    """Forget some of what is over for long enough, or whose endpoint was removed; return whether there may be more."""
    forgotten = [
        connection.execute(_SQL["forget"], {"state": state, "days": days, "limit": _FORGET_LIMIT}).rowcount
        for state, days in DAYS_KEPT.items()
    ]
    forgotten.append(connection.execute(_SQL["forget_removed"], {"limit": _FORGET_LIMIT}).rowcount)
    return _FORGET_LIMIT in forgotten
