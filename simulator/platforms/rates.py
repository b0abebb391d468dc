"""How fast a stand-in lets an account send: as documented, with a little more for what the network bunches."""

from __future__ import annotations

from collections import defaultdict, deque

#: The share of a documented rate that goes by above it: what left evenly does not arrive evenly.
_SLACK = 1.25


class Rates:
    """The rates of one stand-in's accounts.

    Args:
        per_second: sends of one account in any second; None: any number.
        seconds_per_recipient: how often one account may write to the same recipient; None: at any pace.
        recipient_burst: how many sends to one recipient may go ahead of that pace.
    """

    def __init__(
        self, per_second: float | None = None, seconds_per_recipient: float | None = None, recipient_burst: int = 1
    ) -> None:
        self._per_second = per_second
        self._recipient_seconds = seconds_per_recipient or 0.0
        self._allowance = self._recipient_seconds * recipient_burst * _SLACK
        self._lately: dict[str, deque[float]] = defaultdict(deque)
        self._empty_at: dict[tuple[str, str], float] = {}

    def is_too_fast(self, account: str, now: float) -> bool:
        """Count a send of ``account``; return whether it is above the rate."""
        if self._per_second is None:
            return False
        lately = self._lately[account]
        while lately and lately[0] <= now - 1.0:
            lately.popleft()
        if len(lately) >= self._per_second * _SLACK:
            return True
        lately.append(now)
        return False

    def is_too_often(self, account: str, recipient: str, now: float) -> bool:
        """Count a send of ``account`` to ``recipient``; return whether it is above the pace."""
        if not self._recipient_seconds:
            return False
        empty_at = max(self._empty_at.get((account, recipient), 0.0), now) + self._recipient_seconds
        if empty_at - now > self._allowance:
            return True
        self._empty_at[account, recipient] = empty_at
        return False

    def forget(self) -> None:
        """Hold nothing against anybody any more."""
        self._lately.clear()
        self._empty_at.clear()
