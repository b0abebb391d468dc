"""Requests that were carried out: one whose answer was lost may be asked again, and is done once."""

from __future__ import annotations

from storage.database import Connection
from storage.sql import queries

_SQL = queries("handled")


def find(connection: Connection, request: str) -> str | None:
    """Return the answer to a request that was carried out before, or None."""
    row = connection.execute(_SQL["find"], {"request": request}).fetchone()
    return None if row is None else str(row["answer"])


def note(connection: Connection, request: str, answer: str) -> None:
    """Remember the answer, in the transaction that carries the request out."""
    connection.execute(_SQL["note"], {"request": request, "answer": answer})


def forget(connection: Connection) -> None:
    """Forget requests that nobody can still be asking."""
    connection.execute(_SQL["forget"])
