"""What the dashboard's pages read. Each question has a bounded cost, however many messages there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.devices import Device, device_of
from storage.sql import queries
from storage.text import is_storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.database import Connection, Row

_SQL = queries("dashboard")

#: Ids that one page of the list looks through, at most, when no index leads to what is asked for: among all messages,
#: and among those of one device or recipient.
_DEPTH = 100_000
_DEPTH_OF_ONE = 1_000_000
#: No bound: an index leads straight to the page's rows.
_ANY_DEPTH = 2**62


@dataclass(frozen=True)
class DeviceFilter:
    """Which devices are wanted; None and "" mean: all."""

    states: tuple[str, ...] | None = None
    platform: str | None = None
    search: str = ""


@dataclass(frozen=True)
class MessageFilter:
    """Which messages are wanted; None means: all."""

    device_id: int | None = None
    state: str | None = None
    recipient: str | None = None

    @property
    def depth(self) -> int:
        """How many ids a page may look through."""
        of_one = self.device_id is not None or self.recipient is not None
        if self.state is None or (self.state in {"failed", "expired", "cancelled"} and not of_one):
            return _ANY_DEPTH
        return _DEPTH_OF_ONE if of_one else _DEPTH


@dataclass(frozen=True)
class MessagePage:
    """Messages, newest first, and where the next page goes on (None: there is none).

    ``cut`` says that it ended because it had looked at enough, not because it was full.
    """

    rows: list[Row]
    before: int | None
    cut: bool = False


def fleet(connection: Connection) -> list[Row]:
    """Return id, name, state and platform of every device."""
    return connection.execute(_SQL["fleet"]).fetchall()


def device_page(connection: Connection, wanted: DeviceFilter, *, after: str = "", limit: int = 50) -> list[Row]:
    """Return a page of devices by name, after ``after``."""
    values = {
        "after": after,
        "states": list(wanted.states) if wanted.states else None,
        "platform": wanted.platform,
        "search": wanted.search.lower(),
        "limit": limit,
    }
    if not all(is_storable(text) for text in (after, wanted.search, wanted.platform or "", *(wanted.states or ()))):
        return []
    return connection.execute(_SQL["device_page"], values).fetchall()


def attention(connection: Connection, codes: Sequence[str], limit: int) -> list[Device]:
    """Return devices without a phone, and those whose state has one of these reasons."""
    rows = connection.execute(_SQL["attention"], {"codes": list(codes), "limit": limit})
    return [device_of(row) for row in rows]


def waiting_on(connection: Connection, device_id: int) -> int:
    """Return how many messages wait on a device, 10 000 meaning that many or more."""
    row = connection.execute(_SQL["waiting_on"], {"device_id": device_id}).fetchone()
    return 0 if row is None else int(row["waiting"])


def recent_messages(connection: Connection, device_id: int) -> list[Row]:
    """Return the messages that a device tried last and those it sends next, newest first."""
    return connection.execute(_SQL["recent_messages"], {"device_id": device_id}).fetchall()


def message_page(
    connection: Connection, wanted: MessageFilter, *, before: int | None = None, limit: int = 50
) -> MessagePage:
    """Return a page of messages below the id ``before``; None: the newest."""
    bounds = connection.execute(_SQL["message_bounds"]).fetchone() or {"newest": 1, "oldest": 0}
    start = bounds["newest"] if before is None else min(before, bounds["newest"])
    values = {
        "device_id": wanted.device_id,
        "state": wanted.state,
        "recipient": wanted.recipient,
        "before": start,
        "depth": wanted.depth,
        "limit": limit,
    }
    rows = connection.execute(_SQL["message_page"], values).fetchall()
    if len(rows) == limit:
        return MessagePage(rows, rows[-1]["id"] if rows[-1]["id"] > bounds["oldest"] else None)
    reached = start - wanted.depth
    return MessagePage(rows, reached, cut=True) if reached > bounds["oldest"] else MessagePage(rows, None)


def doubts(connection: Connection, *, after: int = 0, limit: int = 50) -> list[Row]:
    """Return messages in doubt, oldest first."""
    return connection.execute(_SQL["doubts"], {"after": after, "limit": limit}).fetchall()


def doubt_count(connection: Connection) -> int:
    """Return how many messages are in doubt, 1000 meaning that many or more."""
    row = connection.execute(_SQL["doubt_count"]).fetchone()
    return 0 if row is None else int(row["doubts"])


def platform_devices(connection: Connection) -> dict[str, Row]:
    """Return how many devices each platform has, how many of them are paused and how many wait."""
    return {row["platform"]: row for row in connection.execute(_SQL["platform_devices"])}


def held_lanes(connection: Connection, limit: int) -> list[Row]:
    """Return the lanes that wait now, with the reason."""
    return connection.execute(_SQL["held_lanes"], {"limit": limit}).fetchall()
