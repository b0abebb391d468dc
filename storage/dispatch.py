"""A dispatcher's work on many lanes in one transaction: outcomes recorded, lanes held, the next messages claimed.

One transaction for many lanes is one wait for the disk for many messages; each message's order of rows is the same as
with the outbox's own methods: claimed and committed before anything is sent, and again when its outcome is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from config.errors import StorageUnavailable
from storage import deliveries
from storage.database import Connection, Row
from storage.deliveries import Known, name_of, reference_name
from storage.outbox import Claim
from storage.sql import queries
from storage.text import storable

_SQL = queries("dispatch")


@dataclass(frozen=True)
class Lane:
    """A platform device as its lane needs it: who it is, and how its account is reached (sealed)."""

    device_id: int
    name: str
    base_url: str | None
    credentials: bytes | None
    proxy: bytes | None


@dataclass(frozen=True)
class Ended:
    """What came of one attempt.

    Attributes:
        message_id, attempt_id, device_id: whose it was.
        reference: the attempt's name at the provider.
        state: sent, failed, queued (it was certainly not sent) or in_doubt.
        code, reason: why.
        external_id: the provider's id of the message, if it gave one.
    """

    message_id: int
    attempt_id: int
    device_id: int
    reference: str
    state: str
    code: str
    reason: str
    external_id: str | None = None


@dataclass(frozen=True)
class Hold:
    """A lane must wait: for how many seconds, and why."""

    device_id: int
    seconds: float
    reason: str


@dataclass(frozen=True)
class Head:
    """What was found at the head of a lane that asked for a claim.

    Attributes:
        lane: the lane as its device's row is now.
        claim: the message that may be sent once; None: there is none, or it was cancelled.
        limited: the lane has limits of its own, so its rules must be asked first.
        again: there may be more: the head was cancelled since its recipient has opted out.
    """

    lane: Lane
    claim: Claim | None
    limited: bool
    again: bool


@dataclass(frozen=True)
class Doubtful:
    """A message in doubt, with what its provider can be asked by: its last attempt's secret, or an id it was given."""

    message_id: int
    device_id: int
    attempt_id: int
    recipient: str
    secret: bytes
    external_id: str | None


def lanes(connection: Connection, device_ids: Sequence[int]) -> list[Lane]:
    """Return the lanes of these devices, without those that were removed."""
    rows = connection.execute(_SQL["lanes"], {"device_ids": list(device_ids)})
    return [_lane(row["id"], row) for row in rows]


def recipients(connection: Connection, device_ids: Sequence[int]) -> dict[int, str]:
    """Return whom the next message of each of these lanes goes to."""
    rows = connection.execute(_SQL["recipients"], {"device_ids": list(device_ids)})
    return {row["device_id"]: row["recipient"] for row in rows}


def doubtful(connection: Connection, device_ids: Sequence[int]) -> list[Doubtful]:
    """Return recent messages in doubt of these devices, some of them where there are many."""
    return [
        Doubtful(
            row["message_id"],
            row["device_id"],
            row["attempt_id"],
            row["recipient"],
            bytes(row["secret"]),
            row["external_id"],
        )
        for row in connection.execute(_SQL["doubtful"], {"device_ids": list(device_ids)})
    ]


def exchange(
    connection: Connection,
    owner: str,
    *,
    ended: Sequence[Ended] = (),
    holds: Sequence[Hold] = (),
    secrets: Mapping[int, bytes] | None = None,
    again: bool = False,
) -> list[Head]:
    """Record what came of attempts, let lanes wait, and claim the heads of others; return a row for each of these.

    The statements travel together, so that a turn of the lanes waits for PostgreSQL once.

    Args:
        connection: an open transaction.
        owner: this process instance, as it stands in the attempts.
        ended: outcomes; one that is recorded already changes nothing.
        holds: lanes that must wait; of several waits of one lane the last counts.
        secrets: the lanes to claim from, by device, each with the secret of its next attempt.
        again: the answer to the same exchange was lost: what it claimed is given again.
    """
    wanted = dict(secrets or {})
    heads = claimed_before(connection, wanted) if again else []
    for head in heads:
        del wanted[head.lane.device_id]
    with connection.pipeline():
        if ended:
            known = [Known(each.message_id, each.device_id, _names(each)) for each in ended]
            deliveries.lock(connection, (name for each in known for name in each.names))
            record(connection, ended)
            # A report may have overtaken the reply.
            deliveries.apply(connection, known)
        if holds:
            _hold(connection, holds)
        if wanted:
            heads += claim(connection, owner, wanted)
    return heads


def claimed_before(connection: Connection, secrets: Mapping[int, bytes]) -> list[Head]:
    """Return what was claimed with these secrets and is still open: the answer to the claim was lost."""
    if not secrets:
        return []
    return [_head(row) for row in connection.execute(_SQL["claimed_with"], {"secrets": list(secrets.values())})]


def claim(connection: Connection, owner: str, secrets: Mapping[int, bytes]) -> list[Head]:
    """Claim the heads of these lanes, each with its secret; return one for each.

    Raises:
        StorageUnavailable: as ever, or one of these claims was just being committed; ask again.
    """
    arguments = {"device_ids": list(secrets), "secrets": list(secrets.values()), "owner": owner}
    try:
        return [_head(row) for row in connection.execute(_SQL["claim"], arguments)]
    except psycopg.errors.UniqueViolation:
        raise StorageUnavailable("The same claim was being made.", "It is made again.") from None


def record(connection: Connection, ended: Sequence[Ended]) -> psycopg.Cursor[Row]:
    """Record outcomes, each once; return a cursor on the messages that they moved."""
    return connection.execute(
        _SQL["record"],
        {
            "message_ids": [each.message_id for each in ended],
            "attempt_ids": [each.attempt_id for each in ended],
            "states": [each.state for each in ended],
            "codes": [each.code for each in ended],
            "reasons": [storable(each.reason) for each in ended],
            "external_ids": [None if each.external_id is None else storable(each.external_id) for each in ended],
        },
    )


def _hold(connection: Connection, holds: Sequence[Hold]) -> None:
    last = {each.device_id: each for each in holds}
    values = {
        "device_ids": list(last),
        "seconds": [each.seconds for each in last.values()],
        "reasons": [storable(each.reason) for each in last.values()],
    }
    connection.execute(_SQL["hold"], values)


def _names(ended: Ended) -> tuple[str, ...]:
    own = reference_name(ended.reference)
    return (own,) if ended.external_id is None else (own, name_of(ended.external_id))


def _lane(device_id: int, row: Row) -> Lane:
    sealed = {name: None if row[name] is None else bytes(row[name]) for name in ("credentials", "proxy")}
    return Lane(device_id, row["name"], row["base_url"], **sealed)


def _head(row: Row) -> Head:
    lane = _lane(row["device_id"], row)
    if row["attempt_id"] is None:
        return Head(lane, None, row["limited"], again=row["id"] is not None)
    return Head(
        lane,
        Claim(
            message_id=row["id"],
            attempt_id=row["attempt_id"],
            attempt=row["attempts"],
            device_id=row["device_id"],
            recipient=row["recipient"],
            kind=row["kind"],
            body=row["body"],
            media_url=row["media_url"],
            media_name=row["media_name"],
            secret=bytes(row["secret"]),
            on_whatsapp=row["on_whatsapp"],
        ),
        limited=False,
        again=False,
    )
