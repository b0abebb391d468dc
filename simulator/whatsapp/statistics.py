"""What happened, counted: the figures tests and benchmarks prove their claims with."""

from __future__ import annotations

import os
import time
from collections import Counter

#: Name of the counter of the most connections opened within one second.
PEAK_CONNECTS = "peak_connects_per_second"
#: Prefix of the counters of the most simultaneous clients of one companion.
_MOST_LIVE = "most_live "
#: The connects of so many seconds are kept one by one.
_TIMELINE_SECONDS = 900


class Statistics:
    """Counters that survive a restart (the store keeps them) and gauges that do not."""

    def __init__(self, kept: dict[str, int]) -> None:
        self._counts = Counter({name: n for name, n in kept.items() if not name.startswith(_MOST_LIVE)})
        self._most_live = {name.removeprefix(_MOST_LIVE): n for name, n in kept.items() if name.startswith(_MOST_LIVE)}
        self._live: Counter[str] = Counter()
        self._changed: set[str] = set()
        self._journal: list[tuple[str, int]] = []
        self._logged_in_at: dict[str, float] = {}
        self._connects_by_second: Counter[int] = Counter()

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        self._counts[name] += number
        self._changed.add(name)
        self._journal.append((name, number))

    def begin(self) -> None:
        """Begin to note what a transaction counts."""
        self._journal.clear()

    def undo(self) -> None:
        """Take back what was counted since ``begin``: the transaction was undone."""
        for name, number in self._journal:
            self._counts[name] -= number
        self._journal.clear()

    def connected(self, at: float) -> None:
        """Count a connection to the WebSocket host whose request came at this moment (seconds since the epoch)."""
        self.count("connects")
        second = int(at)
        self._connects_by_second[second] += 1
        if len(self._connects_by_second) > _TIMELINE_SECONDS:
            del self._connects_by_second[min(self._connects_by_second)]
        if self._connects_by_second[second] > self._counts[PEAK_CONNECTS]:
            self._counts[PEAK_CONNECTS] = self._connects_by_second[second]
            self._changed.add(PEAK_CONNECTS)

    def live(self, jid: str, change: int) -> None:
        """Count a client of the companion ``jid`` in (+1) or out (-1)."""
        self._live[jid] += change
        if change > 0:
            self._logged_in_at[jid] = time.time()
        if self._live[jid] > self._most_live.get(jid, 0):
            self._most_live[jid] = self._live[jid]
            self._changed.add(_MOST_LIVE + jid)
        if not self._live[jid]:
            del self._live[jid]

    def timeline(self) -> dict[str, object]:
        """Return when each companion logged in last (seconds since the epoch), and the connects of each second."""
        connects = [[second, number] for second, number in sorted(self._connects_by_second.items())]
        return {"logged_in_at": dict(self._logged_in_at), "connects": connects}

    def take_changed(self) -> dict[str, int]:
        """Return the counters changed since the last call, for the store."""
        changed = {
            name: self._most_live[name.removeprefix(_MOST_LIVE)] if name.startswith(_MOST_LIVE) else self._counts[name]
            for name in self._changed
        }
        self._changed.clear()
        return changed

    def report(self) -> dict[str, object]:
        """Return all figures; counters that are zero are left out, except the first line's.

        - connects, logins, messages, duplicates (one message sent again), decrypted, undecryptable, receipts;
        - peak_connects_per_second, conflicts (a second client of one companion), redelivered stanzas;
        - logged_out_attempts and unknown_logins: logins of companions that were unlinked, or never linked;
        - failures_CODE: refused logins; protocol_errors: clients cut off for breaking the protocol;
        - dropped, refused_messages, withheld_acks, struck KIND: what faults did;
        - live and most_live: logged-in clients per companion JID, now and at most; online: their sum;
        - most_live_per_jid: the highest of most_live; seconds: CPU time of the simulator since it started.
        """
        always = dict.fromkeys(
            ("connects", "logins", "messages", "duplicates", "decrypted", "undecryptable", "receipts"), 0
        )
        times = os.times()
        return {
            **always,
            **{name: number for name, number in self._counts.items() if number},
            "live": dict(self._live),
            "online": sum(self._live.values()),
            "most_live": dict(self._most_live),
            "most_live_per_jid": max(self._most_live.values(), default=0),
            "seconds": round(times.user + times.system, 2),
        }
