"""What the report says of a run of webhooks. Pure."""

from __future__ import annotations

from typing import Any

HEADINGS = ("events", "Salamander", "plain callback")

_ROWS = {
    "received": "came at least once",
    "lost": "never came",
    "distinct_ids": "distinct ids",
    "duplicates": "came again, known by their id",
    "unrecognised_duplicates": "came again under another id",
    "out_of_order": "after a later event of their device",
    "delay_p50_seconds": "seconds to the first arrival, p50",
    "delay_p99_seconds": "the same, p99",
    "delay_longest_seconds": "the same, longest",
}


def words(report: dict[str, Any]) -> str:
    """Return what happened in a run."""
    outages, due, kills = sorted(report["outages"]), report["told"]["due"], report["gateway_kills"]
    fates = ", ".join(f"{fate}: {number:,}" for fate, number in report["requests"].items())
    return (
        f"{report['minutes']:g} minutes, {report['whatsapp']} WhatsApp devices and two of platforms,"
        f" {report['sent']:,} messages: {due:,} events. The receiver was down {len(outages)} times,"
        f" for {outages[0]:.0f} to {outages[-1]:.0f} s, and its requests fared so: {fates} (slow: longer than the"
        f" time-out; lost: taken, and the connection broken). The gateway was SIGKILLed {kills} times."
        f" Dead letters: {report['dead_letters']}; the most attempts at one event: {report['most_attempts']}. Beside"
        " it, a callback that posts each event with `requests` and tries three times more got the same events, failures"
        " and kills."
    )


def rows(report: dict[str, Any]) -> list[list[str]]:
    """Return the table of what came."""
    told, plain = report["told"], report["plain"]
    return [[row, _figure(told[name]), _figure(plain[name])] for name, row in _ROWS.items()]


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
