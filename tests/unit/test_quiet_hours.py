"""Quiet hours by the clocks of a time zone, over midnight and where clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from config.quiet_hours import QuietHours

NIGHT = QuietHours.parse("22:00-07:00", "Asia/Jakarta")
NOON = QuietHours.parse("12:30-13:15", "Asia/Jakarta")


def jakarta(text: str) -> datetime:
    return datetime.fromisoformat(text + "+07:00")


@pytest.mark.parametrize(
    ("hours", "now", "end"),
    [
        (NIGHT, "2026-03-01T21:59:59", None),
        (NIGHT, "2026-03-01T22:00:00", "2026-03-02T07:00:00"),
        (NIGHT, "2026-03-01T23:59:59", "2026-03-02T07:00:00"),
        (NIGHT, "2026-03-02T00:00:00", "2026-03-02T07:00:00"),
        (NIGHT, "2026-03-02T06:59:59", "2026-03-02T07:00:00"),
        (NIGHT, "2026-03-02T07:00:00", None),
        (NOON, "2026-03-02T12:29:59", None),
        (NOON, "2026-03-02T12:30:00", "2026-03-02T13:15:00"),
        (NOON, "2026-03-02T13:15:00", None),
    ],
)
def test_quiet_hours_begin_and_end_by_the_clock(hours: QuietHours, now: str, end: str | None) -> None:
    assert hours.end_of_quiet(jakarta(now)) == (jakarta(end) if end else None)


def test_the_time_zone_decides_not_the_machine() -> None:
    afternoon_in_london = datetime(2026, 3, 1, 16, 0, tzinfo=UTC)  # 23:00 in Jakarta
    assert NIGHT.end_of_quiet(afternoon_in_london) == jakarta("2026-03-02T07:00")


@given(some.integers(0, 366 * 24 * 60))
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Jakarta"])
@pytest.mark.parametrize("span", ["22:00-07:00", "01:30-02:30", "23:00-02:15", "00:00-06:00"])
def test_quiet_hours_end_later_and_within_a_day_whatever_clocks_do(span: str, zone: str, minutes: int) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    hours = QuietHours.parse(span, zone)
    end = hours.end_of_quiet(now)
    if end is not None:
        assert now < end <= now + timedelta(hours=25)
        assert hours.end_of_quiet(end) is None or end.astimezone(hours.zone).time() != hours.end


@pytest.mark.parametrize("span", ["22-07", "22:00", "24:00-07:00", "22:60-07:00", "22:00–07:00", "07:00-07:00", " "])
def test_what_is_no_span_is_refused(span: str) -> None:
    with pytest.raises(ValueError, match=r"write it|begins when"):
        QuietHours.parse(span, "UTC")


@pytest.mark.parametrize("zone", ["Asia/Nowhere", "", "Asia", "../etc/passwd", "/etc/passwd", "a\0b"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        QuietHours.parse("22:00-07:00", zone)
