"""Endpoints: where others want to be told what happens, and what each of them is to be told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from config.errors import NotFound, Refused
from storage.sql import queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.database import Connection, Row

_SQL = queries("endpoints")

#: Endpoints of one installation, at most: each has threads of its own, so that none waits for another.
ENDPOINT_LIMIT = 32


@dataclass(frozen=True)
class Endpoint:
    """One row of the endpoint table. The secret is sealed (see ``storage/credentials.py``)."""

    id: int
    url: str
    description: str
    events: tuple[str, ...]
    device: str | None
    secret: bytes
    enabled: bool
    disabled_reason: str
    created_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """Return it as it may be shown: without the secret."""
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "secret"}
        return {**shown, "events": list(self.events)}


def _endpoint(row: Row) -> Endpoint:
    values = {name: row[name] for name in Endpoint.__dataclass_fields__}
    return Endpoint(**{**values, "secret": bytes(values["secret"]), "events": tuple(values["events"])})


def add(
    connection: Connection, *, url: str, description: str, events: Sequence[str], device_id: int | None, secret: bytes
) -> int:
    """Add an endpoint and return its id.

    Raises:
        Refused: there are as many as there may be.
    """
    row = connection.execute(_SQL["count"]).fetchone()
    if row is not None and row["endpoints"] >= ENDPOINT_LIMIT:
        reason = f"There are {ENDPOINT_LIMIT} endpoints, as many as there may be."
        raise Refused(reason, "Remove one: run.py webhook remove ID", code="too_many_endpoints")
    values = {"url": url, "description": description, "events": list(events), "device_id": device_id, "secret": secret}
    added = connection.execute(_SQL["add"], values).fetchone()
    assert added is not None  # noqa: S101 - `returning` always gives the row
    return int(added["id"])


def all_endpoints(connection: Connection) -> list[Endpoint]:
    """Return every endpoint, in the order they were added."""
    return [_endpoint(row) for row in connection.execute(_SQL["all"])]


def by_id(connection: Connection, endpoint_id: int) -> Endpoint:
    """Return one endpoint.

    Raises:
        NotFound: there is none with that id.
    """
    row = connection.execute(_SQL["by_id"], {"id": endpoint_id}).fetchone()
    if row is None:
        raise _unknown(endpoint_id)
    return _endpoint(row)


def change(
    connection: Connection,
    endpoint_id: int,
    *,
    url: str | None = None,
    description: str | None = None,
    events: Sequence[str] | None = None,
    enabled: bool | None = None,
    reason: str = "",
) -> None:
    """Change an endpoint; None leaves a part as it is. ``reason`` says why it is switched off.

    Raises:
        NotFound: there is none with that id.
    """
    values = {
        "id": endpoint_id,
        "url": url,
        "description": description,
        "events": None if events is None else list(events),
        "enabled": enabled,
        "reason": reason,
    }
    if connection.execute(_SQL["change"], values).fetchone() is None:
        raise _unknown(endpoint_id)


def remove(connection: Connection, endpoint_id: int) -> None:
    """Remove an endpoint; what it was still to be told is told to nobody.

    Raises:
        NotFound: there is none with that id.
    """
    if connection.execute(_SQL["remove"], {"id": endpoint_id}).fetchone() is None:
        raise _unknown(endpoint_id)


def _unknown(endpoint_id: int) -> NotFound:
    return NotFound(f"There is no webhook endpoint {endpoint_id}.", "See run.py webhook list.", code="unknown_endpoint")
