"""Pages of lists: each begins where the last one ended, and shows only what its reader may see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.sql import queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.database import Connection, Row

_SQL = queries("pages")
#: Above every id: where a list of the newest first begins.
NEWEST = 2**63 - 1


def devices(
    connection: Connection,
    *,
    after: int = 0,
    limit: int,
    device_ids: Sequence[int] | None = None,
    state: str | None = None,
    platform: str | None = None,
    part_of_name: str | None = None,
) -> list[Row]:
    """Return devices in the order they were added, without anything secret, those after id ``after``."""
    arguments = {
        "after": after,
        "limit": limit,
        "device_ids": device_ids,
        "state": state,
        "platform": platform,
        "part_of_name": part_of_name,
    }
    return connection.execute(_SQL["devices"], arguments).fetchall()


def messages(
    connection: Connection,
    *,
    before: int = NEWEST,
    limit: int,
    device_ids: Sequence[int] | None = None,
    device: str | None = None,
    state: str | None = None,
    recipient: str | None = None,
) -> list[Row]:
    """Return messages, newest first, those before id ``before``."""
    arguments = {
        "before": before,
        "limit": limit,
        "device_ids": device_ids,
        "device": device,
        "state": state,
        "recipient": recipient,
    }
    some = device_ids is not None or device is not None
    return connection.execute(_SQL["messages_of_devices" if some else "messages"], arguments).fetchall()


def restarts(
    connection: Connection,
    *,
    before: int = NEWEST,
    limit: int,
    device_ids: Sequence[int] | None = None,
    device: str | None = None,
    request: str | None = None,
) -> list[Row]:
    """Return restarts, newest first, those before id ``before``."""
    arguments = {
        "before": before,
        "limit": limit,
        "device_ids": device_ids,
        "device": device,
        "request": request,
    }
    return connection.execute(_SQL["restarts"], arguments).fetchall()


def opt_outs(connection: Connection, *, after: str = "", limit: int) -> list[Row]:
    """Return numbers that opted out, in the order of their digits, those after ``after``."""
    return connection.execute(_SQL["opt_outs"], {"after": after, "limit": limit}).fetchall()


def timeline(connection: Connection, device_id: int, limit: int = 50) -> list[Row]:
    """Return what a device went through, newest first: its restarts and its states."""
    return connection.execute(_SQL["timeline"], {"device_id": device_id, "limit": limit}).fetchall()
