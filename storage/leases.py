"""Leases: at most one host connects a device at a time, even when several daemons share one database."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterable

from config.home import Home
from storage.database import Connection, Row
from storage.sql import queries

_SQL = queries("leases")

#: How long a lease lasts without being renewed, in seconds. A holder that cannot renew disconnects before that.
LEASE_SECONDS = 60.0


def holder_name(home: Home) -> str:
    """Return the name this installation holds leases under: the same after every restart, and no other's."""
    path = home.path / "installation.id"
    if not path.exists():
        path.write_text(uuid.uuid4().hex, encoding="ascii")
    return f"{socket.gethostname()}/{path.read_text(encoding='ascii').strip()}"


def hold(connection: Connection, holder: str, device_ids: Iterable[int]) -> set[int]:
    """Renew or take the leases of these devices; return those that are held now."""
    arguments = {"holder": holder, "device_ids": sorted(set(device_ids)), "seconds": LEASE_SECONDS}
    return {row["device_id"] for row in connection.execute(_SQL["hold"], arguments)}


def release(connection: Connection, holder: str) -> None:
    """Let every lease of ours go, so that another host need not wait."""
    connection.execute(_SQL["release"], {"holder": holder})


def holder_of(connection: Connection, device_id: int) -> Row | None:
    """Return who holds a device (holder, token, expires_at), or None."""
    return connection.execute(_SQL["holder_of"], {"device_id": device_id}).fetchone()
