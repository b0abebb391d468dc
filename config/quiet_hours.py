"""Quiet hours: the part of each day in which only urgent messages are sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

_SPAN = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True)
class QuietHours:
    """From ``begin`` to ``end`` by the clocks of ``zone``, over midnight when ``end`` is the earlier one."""

    begin: time
    end: time
    zone: ZoneInfo

    @classmethod
    def parse(cls, span: str, zone: str) -> QuietHours:
        """Read ``22:00-07:00`` and the name of a time zone.

        Raises:
            ValueError: they are not that.
        """
        match = _SPAN.fullmatch(span)
        if match is None:
            raise ValueError("write it as 22:00-07:00")
        begin, end = time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
        if begin == end:
            raise ValueError("it begins when it ends")
        return cls(begin, end, time_zone(zone))

    def end_of_quiet(self, now: datetime) -> datetime | None:
        """Return when the quiet hours that ``now`` falls into end (in UTC), or None when it falls into none."""
        local = now.astimezone(self.zone)
        clock = local.time()
        begun, ended = clock >= self.begin, clock >= self.end
        over_midnight = self.end < self.begin
        quiet = (begun or not ended) if over_midnight else (begun and not ended)
        if not quiet:
            return None
        day = local.date() + timedelta(days=1 if over_midnight and begun else 0)
        end = datetime.combine(day, self.end, self.zone).astimezone(UTC)
        # Where clocks are set back, the end may show twice: the second time is still before us.
        return end if end > now else datetime.combine(day, self.end.replace(fold=1), self.zone).astimezone(UTC)

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M} ({self.zone.key})"


def time_zone(name: str) -> ZoneInfo:
    """Return a time zone by its name, such as Asia/Jakarta.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        # Unknown names, directories and paths that leave the database: each raises something else.
        raise ValueError(f"there is no time zone {name!r}; write it as Asia/Jakarta") from None
