"""The judge of a run of webhooks: the events that were due, against what a receiver got. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.support.bench import percentile


@dataclass(frozen=True)
class Due:
    """An event that was to be told: its place in its lane (a device's events), and when it was committed (epoch)."""

    place: int
    webhook_id: str
    lane: int
    at: float


@dataclass(frozen=True)
class Taken:
    """An event that a receiver took: its id, a digest of what it said, and when (epoch)."""

    webhook_id: str
    digest: bytes
    at: float


def judge(due: Sequence[Due], taken: Sequence[Taken]) -> dict[str, Any]:
    """Compare them.

    Args:
        due: every event, once.
        taken: what arrived, in the order of arrival.

    Returns:
        ``due``, ``received`` (at least once), ``lost``, ``distinct_ids``, ``duplicates`` (arrivals beyond the first of
        an id), ``unrecognised_duplicates`` (events that came under several ids), ``unexpected``, ``out_of_order``
        (first arrivals after that of a later event of the same lane), and the seconds from commit to first arrival.
    """
    firsts: dict[str, Taken] = {}
    for each in taken:
        firsts.setdefault(each.webhook_id, each)
    known = {each.webhook_id: each for each in due}
    received = [known[webhook_id] for webhook_id in firsts if webhook_id in known]
    latest: dict[int, int] = defaultdict(int)
    out_of_order = 0
    for event in received:
        out_of_order += event.place < latest[event.lane]
        latest[event.lane] = max(latest[event.lane], event.place)
    ids_of_digest = Counter(digest for _, digest in {(each.webhook_id, each.digest) for each in taken})
    delays = [firsts[event.webhook_id].at - event.at for event in received]
    return {
        "due": len(due),
        "received": len(received),
        "lost": len(due) - len(received),
        "distinct_ids": len(firsts),
        "duplicates": len(taken) - len(firsts),
        "unrecognised_duplicates": sum(times - 1 for times in ids_of_digest.values()),
        "unexpected": len(firsts) - len(received),
        "out_of_order": out_of_order,
        "delay_p50_seconds": round(percentile(delays, 0.5), 3),
        "delay_p99_seconds": round(percentile(delays, 0.99), 3),
        "delay_longest_seconds": round(max(delays, default=0.0), 3),
    }
