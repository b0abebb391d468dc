"""Paces: how soon one account may send its next message, by the rates that its platform documents.

Pure: the caller reads the clock, waits, and says when a request leaves. Paces are kept in memory alone; should a
restart forget one, the provider's own throttle takes its place (a certain "not taken").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.platforms.limits import Limits

#: Recipients remembered before those whose pace is over are forgotten.
_SWEEP_AT = 1000


class Pace:
    """The pace of one account.

    Messages are spread evenly over each second. A recipient's pace is a leaky bucket: ``recipient_burst`` messages may
    go at once, and each one after them as the bucket empties by one every ``seconds_per_recipient``.
    """

    def __init__(self, limits: Limits) -> None:
        self._interval = 1.0 / limits.messages_per_second if limits.messages_per_second else 0.0
        self._recipient_interval = limits.seconds_per_recipient or 0.0
        self._allowance = (limits.recipient_burst - 1) * self._recipient_interval
        self._next = 0.0
        #: When the bucket of a recipient is empty again.
        self._empty_at: dict[str, float] = {}
        self._sweep_at = _SWEEP_AT

    @classmethod
    def of(cls, limits: Limits) -> Pace | None:
        """Return a new account's pace, or None when its platform documents no rate."""
        return cls(limits) if limits.messages_per_second or limits.seconds_per_recipient else None

    @property
    def by_recipient(self) -> bool:
        """Whether it matters whom the next message goes to."""
        return self._recipient_interval > 0.0

    def seconds_to_wait(self, now: float, recipient: str = "") -> float:
        """Return how long the next message (to ``recipient``) must wait; 0: it may go now.

        Args:
            now: the monotonic clock, in seconds.
            recipient: whom it goes to; "": not known yet, so only the account's rate counts.
        """
        ready = self._next
        if recipient and self._recipient_interval:
            ready = max(ready, self._empty_at.get(recipient, 0.0) - self._allowance)
        return max(0.0, ready - now)

    def note(self, now: float, recipient: str) -> None:
        """Note that a message to ``recipient`` leaves now."""
        self._next = max(self._next, now) + self._interval
        if not self._recipient_interval:
            return
        self._empty_at[recipient] = max(self._empty_at.get(recipient, 0.0), now) + self._recipient_interval
        if len(self._empty_at) >= self._sweep_at:
            self._empty_at = {whom: moment for whom, moment in self._empty_at.items() if moment > now}
            self._sweep_at = max(_SWEEP_AT, 2 * len(self._empty_at))
