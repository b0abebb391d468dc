"""API keys as rows: only their hashes, never themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.sql import queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.database import Connection, Row

_SQL = queries("keys")


@dataclass(frozen=True)
class ApiKey:
    """A key that may be used.

    Attributes:
        public_id: the part of it that may be shown.
        scope: ``read``, ``send`` or ``admin``; each may do what the one before may.
        digest: SHA-256 of the whole key.
        devices: the names of the devices it is bound to, by their ids; None: it is bound to none.
        per_minute: requests in any minute (0: any number); None: as the settings say.
    """

    public_id: str
    scope: str
    digest: bytes
    devices: dict[int, str] | None
    per_minute: int | None


def add(
    connection: Connection,
    *,
    public_id: str,
    name: str,
    scope: str,
    digest: bytes,
    device_ids: Sequence[int] | None,
    per_minute: int | None,
) -> None:
    """Add a key."""
    arguments = {
        "public_id": public_id,
        "name": name,
        "scope": scope,
        "digest": digest,
        "device_ids": None if device_ids is None else list(device_ids),
        "per_minute": per_minute,
    }
    connection.execute(_SQL["add"], arguments)


def all_keys(connection: Connection) -> list[Row]:
    """Return every key ever made, without its hash, the oldest first."""
    return connection.execute(_SQL["all"]).fetchall()


def usable(connection: Connection) -> dict[str, ApiKey]:
    """Return the keys that may be used, by their public ids."""
    found = {}
    for row in connection.execute(_SQL["usable"]):
        bound = dict(zip(row["device_ids"], row["device_names"], strict=True)) if row["bound"] else None
        found[row["public_id"]] = ApiKey(row["public_id"], row["scope"], bytes(row["digest"]), bound, row["per_minute"])
    return found


def revoke(connection: Connection, public_id: str) -> bool:
    """End a key; say whether it could be used until now."""
    return connection.execute(_SQL["revoke"], {"public_id": public_id}).rowcount > 0
