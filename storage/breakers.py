"""Circuit breakers as rows: only for people to see; the breakers themselves live in their platform's actor."""

from __future__ import annotations

from storage.database import Connection, Row
from storage.sql import queries

_SQL = queries("breakers")


def show(connection: Connection, platform: str, account: str, state: str, reason: str, failures: int) -> None:
    """Record a breaker's state.

    ``account`` is the device's name; for a provider's breaker its base URL, or empty for the platform's own address.
    """
    if state == "closed":
        connection.execute(_SQL["clear"], {"platform": platform, "account": account})
        return
    values = {"platform": platform, "account": account, "state": state, "reason": reason, "failures": failures}
    connection.execute(_SQL["show"], values)


def clear_platform(connection: Connection, platform: str) -> None:
    """Forget a platform's breakers: its actor begins anew."""
    connection.execute(_SQL["clear_platform"], {"platform": platform})


def report(connection: Connection, platform: str, account: str, reason: str) -> None:
    """Record that an account's breaker has to open, as its provider reported; its actor heeds it."""
    connection.execute(_SQL["report"], {"platform": platform, "account": account, "reason": reason})


def reported(connection: Connection, platform: str) -> dict[str, str]:
    """Return the accounts of a platform whose breaker has to open since a report said so, with why."""
    return {row["account"]: row["reason"] for row in connection.execute(_SQL["reported"], {"platform": platform})}


def all_breakers(connection: Connection) -> list[Row]:
    """Return the breakers that are not closed."""
    return connection.execute(_SQL["all"]).fetchall()
