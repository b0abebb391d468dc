"""Circuit breakers as rows: only for people to see; the breakers themselves live in their platform's actor."""

from __future__ import annotations

from storage.database import Connection, Row
from storage.sql import queries

_SQL = queries("breakers")


def show(connection: Connection, platform: str, account: str, state: str, reason: str, failures: int) -> None:
    """Record a breaker's state; ``account`` is the device's name, or empty for the whole provider."""
    if state == "closed":
        connection.execute(_SQL["clear"], {"platform": platform, "account": account})
        return
    values = {"platform": platform, "account": account, "state": state, "reason": reason, "failures": failures}
    connection.execute(_SQL["show"], values)


def clear_platform(connection: Connection, platform: str) -> None:
    """Forget a platform's breakers: its actor begins anew."""
    connection.execute(_SQL["clear_platform"], {"platform": platform})


def all_breakers(connection: Connection) -> list[Row]:
    """Return the breakers that are not closed."""
    return connection.execute(_SQL["all"]).fetchall()
