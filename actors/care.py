"""Care for the numbers: may a lane send now, or must it wait, until when and why. Pure decisions.

Everything here is off by default. Nothing here looks at a text but to see whether it is a word that opts out, and
nothing alters one.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import floor
from typing import TypeVar

from config.quiet_hours import QuietHours
from config.settings import Settings
from storage.care import Lane, Limits, Sends, Wait

Number = TypeVar("Number", int, float)

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
#: A gap runs from the end of a send; one that began this much earlier (in seconds) may have ended just now.
_LONGEST_SEND_SECONDS = 300.0


@dataclass(frozen=True)
class Rules:
    """The rules for one lane, or for every lane without limits of its own. Zero: no such limit.

    Attributes:
        gap_seconds: the least time between the end of one send and the beginning of the next.
        jitter_seconds: up to so much is added to each gap.
        per_hour: sends in any 60 minutes.
        per_day: sends in any 24 hours.
        warm_up_days: for how many days a device is young.
        warm_up_messages: a young device may send so many messages in 24 hours on its first day, twice as many on
            its second, and so on.
        quiet_hours: when only urgent messages go.
        urgent_priority: the priority from which on a message is urgent.
    """

    gap_seconds: float = 0.0
    jitter_seconds: float = 0.0
    per_hour: int = 0
    per_day: int = 0
    warm_up_days: int = 0
    warm_up_messages: int = 0
    quiet_hours: QuietHours | None = None
    urgent_priority: int = 10

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Return the rules that an installation's settings make."""
        return cls(
            gap_seconds=settings.send_gap_seconds,
            jitter_seconds=settings.send_jitter_seconds,
            per_hour=settings.sends_per_hour,
            per_day=settings.sends_per_day,
            warm_up_days=settings.warm_up_days,
            warm_up_messages=settings.warm_up_messages,
            quiet_hours=settings.quiet,
            urgent_priority=settings.urgent_priority,
        )

    @property
    def everywhere(self) -> bool:
        """Whether they limit anything."""
        limited = self.gap_seconds or self.jitter_seconds or self.per_hour or self.per_day or self.warm_up_days
        return bool(limited) or self.quiet_hours is not None

    def with_limits(self, limits: Limits) -> Rules:
        """Return these rules with a device's own limits in their place."""
        return Rules(
            gap_seconds=_own(limits.gap_seconds, self.gap_seconds),
            jitter_seconds=_own(limits.jitter_seconds, self.jitter_seconds),
            per_hour=_own(limits.per_hour, self.per_hour),
            per_day=_own(limits.per_day, self.per_day),
            warm_up_days=self.warm_up_days,
            warm_up_messages=self.warm_up_messages,
            quiet_hours=self.quiet_hours,
            urgent_priority=self.urgent_priority,
        )

    def window_seconds(self, lane: Lane) -> float:
        """Return how far back the lane's sends must be counted; 0: not at all."""
        rules = self.with_limits(lane.limits)
        gap = rules.gap_seconds + rules.jitter_seconds
        return max(
            gap + _LONGEST_SEND_SECONDS if gap else 0.0,
            _HOUR.total_seconds() if rules.per_hour else 0.0,
            _DAY.total_seconds() if rules.daily_cap(lane.now, lane.young_since)[0] else 0.0,
        )

    def wait(self, lane: Lane, sends: Sends) -> Wait | None:
        """Return why, and until when, the lane must wait; None: it may send now."""
        return decide(lane.now, lane.priority, lane.young_since, sends, self.with_limits(lane.limits))

    def daily_cap(self, now: datetime, young_since: datetime) -> tuple[int, str]:
        """Return how many messages may go in 24 hours (0: any number), and why it is that many."""
        day = max(0, floor((now - young_since) / _DAY)) + 1
        young = day <= self.warm_up_days
        allowance = day * self.warm_up_messages
        if young and (not self.per_day or allowance < self.per_day):
            return allowance, f"On day {day} of its {self.warm_up_days} days of warm-up it sends"
        return self.per_day, "It sends"


def _own(own: Number | None, general: Number) -> Number:
    return general if own is None else own


def decide(now: datetime, priority: int, young_since: datetime, sends: Sends, rules: Rules) -> Wait | None:
    """Return why, and until when, a lane whose first message has ``priority`` must wait; None: it may send now.

    Of several reasons, the one that lasts longest is told.
    """
    quiet = _quiet(now, priority, rules)
    if quiet is not None:
        return quiet
    waits = [wait for wait in _paces(now, young_since, sends, rules) if wait.until > now]
    return max(waits, key=lambda wait: wait.until, default=None)


def _quiet(now: datetime, priority: int, rules: Rules) -> Wait | None:
    if rules.quiet_hours is None or priority >= rules.urgent_priority:
        return None
    until = rules.quiet_hours.end_of_quiet(now)
    if until is None:
        return None
    reason = f"Quiet hours {rules.quiet_hours}; messages of priority {rules.urgent_priority} and above are sent."
    return Wait(until, "quiet_hours", reason, below=rules.urgent_priority)


def _paces(now: datetime, young_since: datetime, sends: Sends, rules: Rules) -> Iterator[Wait]:
    if sends.last_at is not None and (rules.gap_seconds or rules.jitter_seconds):
        # Drawn from the last send, so that asking again (after a restart, too) gives the same answer.
        share = random.Random(sends.last_attempt).random()  # noqa: S311 - it decides about a pause
        gap = rules.gap_seconds + rules.jitter_seconds * share
        yield Wait(sends.last_at + timedelta(seconds=gap), "gap", f"A gap of {gap:.1f} s between two sends.")
    if rules.per_hour and sends.in_hour >= rules.per_hour and sends.hour_oldest is not None:
        reason = f"It sends {rules.per_hour} messages an hour, and has."
        yield Wait(sends.hour_oldest + _HOUR, "hourly_cap", reason)
    per_day, words = rules.daily_cap(now, young_since)
    if per_day and sends.in_day >= per_day and sends.day_oldest is not None:
        code = "daily_cap" if per_day == rules.per_day else "warm_up"
        yield Wait(sends.day_oldest + _DAY, code, f"{words} {per_day} messages in 24 hours, and has.")


def opts_out(text: str, words: Collection[str]) -> bool:
    """Return whether a whole text, spaces around it aside, is one of the words that opt out (in any case)."""
    return text.strip().casefold() in {word.strip().casefold() for word in words}
