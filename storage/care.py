"""Care for the numbers as rows: what a lane sent lately, who has opted out, who is on WhatsApp.

What follows from it is decided elsewhere (``actors/care.py``) and handed in as a :class:`Pacing`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from storage.spellings import all_spellings
from storage.sql import queries

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from storage.database import Connection, Row

_SQL = queries("care")


@dataclass(frozen=True)
class Limits:
    """A device's own limits. None: the installation's setting holds; 0: no such limit."""

    gap_seconds: float | None = None
    jitter_seconds: float | None = None
    per_hour: int | None = None
    per_day: int | None = None


@dataclass(frozen=True)
class Lane:
    """A lane that has something to send: its first message's priority, its limits, and when its device began."""

    now: datetime
    priority: int
    limits: Limits
    young_since: datetime


@dataclass(frozen=True)
class Sends:
    """What a device sent lately, in the last hour and the last 24 hours, counted within a window that matters.

    Attributes:
        last_at: when its last send ended.
        last_attempt: the id of that attempt.
    """

    last_at: datetime | None = None
    last_attempt: int | None = None
    in_hour: int = 0
    hour_oldest: datetime | None = None
    in_day: int = 0
    day_oldest: datetime | None = None


@dataclass(frozen=True)
class Wait:
    """A lane must wait, by the rule ``code``. Messages of priority ``below`` and above may go all the same."""

    until: datetime
    code: str
    reason: str
    below: int | None = None


class Pacing(Protocol):
    """The rules of this installation, as a lane's claim asks them."""

    @property
    def everywhere(self) -> bool:
        """Whether they limit devices that have no limits of their own."""

    def window_seconds(self, lane: Lane) -> float:
        """Return how far back the lane's sends must be counted; 0: not at all."""

    def wait(self, lane: Lane, sends: Sends) -> Wait | None:
        """Return why, and until when, the lane must wait; None: it may send now."""


@dataclass(frozen=True)
class OptedOut:
    """What an opt-out changed: numbers that are new on the list, and queued messages that were cancelled."""

    added: int
    cancelled: int


def lane_with_work(connection: Connection, device_id: int) -> Lane | None:
    """Return a lane whose head may go as far as its holds are concerned, or None."""
    row = connection.execute(_SQL["lane"], {"device_id": device_id}).fetchone()
    if row is None:
        return None
    limits = Limits(row["gap_seconds"], row["jitter_seconds"], row["per_hour"], row["per_day"])
    return Lane(row["now"], row["priority"], limits, row["young_since"])


def sends_of(connection: Connection, device_id: int, window_seconds: float) -> Sends:
    """Return what a device sent within the last ``window_seconds``."""
    arguments = {"device_id": device_id, "window_seconds": window_seconds}
    row = connection.execute(_SQL["sends"], arguments).fetchone()
    return Sends(**row) if row is not None else Sends()


def hold(connection: Connection, device_id: int, wait: Wait) -> None:
    """Let a lane wait because a rule says so."""
    connection.execute(_SQL["hold"], {"device_id": device_id, **asdict(wait)})


def release_holds(connection: Connection) -> None:
    """End every wait that a rule caused; the next claim asks the rules again."""
    connection.execute(_SQL["release_holds"])


def set_limits(connection: Connection, device_id: int, limits: Limits) -> None:
    """Set a device's own limits and end a wait that the old ones caused."""
    connection.execute(_SQL["set_limits"], {"device_id": device_id, **asdict(limits)})


def opt_out(
    connection: Connection, numbers: Sequence[str], *, source: str, device_id: int | None = None, word: str = ""
) -> OptedOut:
    """Put numbers (digits) on the opt-out list, however else they are written, and cancel what is queued for them.

    Args:
        connection: an open transaction.
        numbers: E.164 digits without the plus.
        source: ``operator``, ``import`` or ``keyword``.
        device_id: the device that was told so, for a keyword.
        word: what it was told.
    """
    arguments = {
        "numbers": all_spellings(numbers),
        "given": list(numbers),
        "source": source,
        "device_id": device_id,
        "word": word,
    }
    row = connection.execute(_SQL["opt_out"], arguments).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always gives a row
    return OptedOut(row["added"], row["cancelled"])


def opt_in(connection: Connection, numbers: Sequence[str]) -> int:
    """Take numbers off the opt-out list, however else they are written; return how many of these were on it."""
    removed = connection.execute(_SQL["opt_in"], {"numbers": all_spellings(numbers)}).fetchall()
    return len(set(numbers) & {row["number"] for row in removed})


def opted_out(connection: Connection, numbers: Collection[str]) -> frozenset[str]:
    """Return which of these numbers have opted out."""
    rows = connection.execute(_SQL["opted_out"], {"numbers": list(numbers)})
    return frozenset(row["number"] for row in rows)


def list_opt_outs(connection: Connection, limit: int) -> list[Row]:
    """Return the opt-out list, newest first."""
    return connection.execute(_SQL["list_opt_outs"], {"limit": limit}).fetchall()


def overview(connection: Connection) -> Row:
    """Return how many numbers have opted out, and how many devices have limits of their own."""
    row = connection.execute(_SQL["overview"]).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always gives a row
    return row


def note_check(connection: Connection, number: str, on_whatsapp: bool) -> None:
    """Note what WhatsApp said about a number."""
    connection.execute(_SQL["note_check"], {"number": number, "on_whatsapp": on_whatsapp})


def check_of(connection: Connection, number: str) -> Row | None:
    """Return what WhatsApp said about a number (``on_whatsapp``, ``checked_at``), or None when it was never asked."""
    return connection.execute(_SQL["check_of"], {"number": number}).fetchone()
