"""Traces: where messages belong in them, and what became of those, for the gateway that exports it.

The router writes a row for each traced message, in the transaction that accepts it. All that the spans tell stands in
the message's story already, so nothing else is written on its way.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from storage.sql import queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from config.trace_context import TraceContext
    from storage.database import Connection

_SQL = queries("traces")

#: How long what could not be exported is kept once its message has ended, in seconds.
KEPT_SECONDS = 86_400.0
#: Transitions read at once: ids, whether or not their messages are traced.
_STEPS = 2000
#: How long a candidate rests before it is read, in seconds: an id may be drawn a moment before its transaction shows.
_SETTLE_SECONDS = 1.0
#: Longer than any request takes, in seconds.
_REQUEST_SECONDS = 90.0


@dataclass(frozen=True)
class Step:
    """A transition of a traced message, with what it ended.

    Attributes:
        id: the transition's.
        state, code: what the message came into, and why.
        former, former_at: what it was in until then, and since when; None: this is its acceptance.
        device, platform: of the attempt that ended, else of the message.
        attempt: the number of the attempt that ended, if one did.
    """

    id: int
    message_id: int
    at: datetime
    state: str
    code: str
    trace_id: bytes
    parent_id: bytes | None
    taken_at: datetime
    former: str | None
    former_at: datetime | None
    device: str
    platform: str
    attempt: int | None


@dataclass(frozen=True)
class Request:
    """An HTTP request that brought traced messages. ``recorded_at``: when the first of them was accepted."""

    span_id: bytes
    trace_id: bytes
    parent_id: bytes | None
    name: str
    began_at: datetime
    recorded_at: datetime


@dataclass(frozen=True)
class News:
    """What is to be exported: the transitions with ids above ``first`` up to ``last``, and requests.

    ``more``: there is more that can be read at once.
    """

    first: int
    last: int
    steps: Sequence[Step]
    unanswered: Sequence[Request]
    more: bool


def note(connection: Connection, owner: str, messages: Mapping[int, TraceContext], taken_at: datetime) -> None:
    """Write where messages (by their ids) belong that are accepted in this transaction, by ``owner``'s router."""
    requests = [(each, each.request) for each in messages.values()]
    brought = [(each, request) for each, request in requests if request is not None]
    connection.execute(
        _SQL["note"],
        {
            "owner": owner,
            "taken_at": taken_at,
            "messages": list(messages),
            "traces": [each.trace_id for each in messages.values()],
            "parents": [each.span_id for each in messages.values()],
            "request_spans": [each.span_id for each, _ in brought],
            "request_traces": [each.trace_id for each, _ in brought],
            "callers": [request.caller_id for _, request in brought],
            "names": [request.name for _, request in brought],
            "began": [request.began_at for _, request in brought],
        },
    )


def begin(connection: Connection, owner: str) -> None:
    """Let the export begin with what is accepted from now on, unless it goes on from where it was."""
    connection.execute(_SQL["begin"], {"owner": owner, "kept": KEPT_SECONDS})


def news(
    connection: Connection, owner: str, since: datetime, *, steps: int = _STEPS, settle_seconds: float = _SETTLE_SECONDS
) -> News:
    """Return what is new for ``owner``'s gateway, which began ``since``; the same again until :func:`exported`."""
    arguments = {"owner": owner, "since": since, "seconds": _REQUEST_SECONDS}
    unanswered = [Request(**row) for row in connection.execute(_SQL["unanswered"], arguments)]
    cursor = connection.execute(_SQL["cursor"], {"owner": owner, "settle": settle_seconds}).fetchone()
    if cursor is None:
        begin(connection, owner)
        return News(0, 0, (), unanswered, more=False)
    first, candidate = cursor["exported"], cursor["candidate"]
    if first == candidate:
        connection.execute(_SQL["choose"], {"owner": owner})
    if first == candidate or not cursor["settled"]:
        return News(first, first, (), unanswered, more=False)
    last = min(candidate, first + steps)
    rows = connection.execute(_SQL["steps"], {"owner": owner, "first": first, "last": last})
    found = [
        Step(
            id=row["id"],
            message_id=row["message_id"],
            at=row["at"],
            state=row["state"],
            code=row["reason_code"],
            trace_id=row["trace_id"],
            parent_id=row["parent_id"],
            taken_at=row["taken_at"],
            former=row["former"],
            former_at=row["former_at"],
            device=row["device"],
            platform=row["platform"],
            attempt=row["attempt"],
        )
        for row in rows
    ]
    return News(first, last, found, unanswered, more=last < candidate)


def exported(connection: Connection, owner: str, told: News, requests: Sequence[bytes]) -> None:
    """Note that the transitions of ``told`` and the requests with these spans are exported."""
    if told.last > told.first:
        connection.execute(_SQL["exported"], {"owner": owner, "first": told.first, "last": told.last})
    if requests:
        connection.execute(_SQL["requests_exported"], {"span_ids": list(requests)})


def forget(connection: Connection) -> None:
    """Remove what ended longer ago than it is kept."""
    for name in ("forget_messages", "forget_requests"):
        connection.execute(_SQL[name], {"kept": KEPT_SECONDS})
