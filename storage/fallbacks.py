"""Fallback routes: which devices stand in for one whose route is down, and the move of a message to one of them."""

from __future__ import annotations

from collections.abc import Sequence

from storage.database import Connection, Row
from storage.sql import queries

_SQL = queries("fallbacks")


def of_device(connection: Connection, device_id: int) -> list[str]:
    """Return the names of a device's fallbacks, in order."""
    return [row["name"] for row in connection.execute(_SQL["of_device"], {"device_id": device_id})]


def replace(connection: Connection, device_id: int, fallback_ids: Sequence[int]) -> None:
    """Let these devices stand in for a device, in this order; none: nobody does."""
    connection.execute(_SQL["clear"], {"device_id": device_id})
    for position, fallback_id in enumerate(fallback_ids):
        values = {"device_id": device_id, "position": position, "fallback_id": fallback_id}
        connection.execute(_SQL["add"], values)


def any_exist(connection: Connection) -> bool:
    """Return whether any device has a fallback."""
    row = connection.execute(_SQL["any"]).fetchone()
    return bool(row and row["found"])


def stranded(connection: Connection, *, patience: float, attempts: int) -> list[Row]:
    """Return queued messages whose route is down for longer than ``patience`` seconds, or failed ``attempts`` times."""
    return connection.execute(_SQL["stranded"], {"patience": patience, "attempts": attempts}).fetchall()


def candidates(connection: Connection, message: Row) -> list[Row]:
    """Return the devices that may take a stranded message now, best first."""
    return connection.execute(_SQL["candidates"], message).fetchall()


def move(connection: Connection, message: Row, target: Row) -> bool:
    """Move a stranded message to ``target``; return whether it was still there to be moved."""
    values = {
        "message_id": message["id"],
        "from": message["device_id"],
        "to": target["id"],
        "reason": f"Moved from {message['device']} to {target['name']}: {message['why']}",
    }
    return connection.execute(_SQL["move"], values).fetchone() is not None
