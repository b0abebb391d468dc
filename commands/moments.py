"""Moments as they are typed: ISO 8601, always with a time zone."""

from __future__ import annotations

from datetime import datetime

from config.errors import Refused


def read_moment(option: str, text: str | None) -> datetime | None:
    """Return the moment that an option gives, or None when it was not given.

    Raises:
        Refused: it is no ISO time, or lacks its time zone.
    """
    if text is None:
        return None
    help_ = "Write it as 2030-01-31T09:00+07:00."
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Refused(f"{option} {text!r} is not a time.", help_, code="bad_time") from None
    if moment.tzinfo is None:
        raise Refused(f"{option} {text!r} has no time zone.", help_, code="bad_time")
    return moment
