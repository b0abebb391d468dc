"""Watches how devices heal: from the kill of a shard to each of its devices online again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks.support.nemesis import BESIDE, ON_DEVICE, ON_SHARD, Struck
from benchmarks.support.trial import Trial
from config.errors import SalamanderError
from storage.devices import Device

_LOOK_SECONDS = 0.25
#: So many strikes before a kill may still be in the way of what it felled.
_EARLIER = 5


@dataclass
class Healing:
    """One device on its way back. ``seconds`` stays None when it never came, or fell again before."""

    device: str
    began: float
    seconds: float | None = None
    #: Whether nothing but strikes on other processes of its kind happened meanwhile.
    undisturbed: bool = True
    #: The strikes that got in its way, before it began or meanwhile.
    strikes: list[Struck] = field(default_factory=list)

    @property
    def from_last_strike(self) -> float | None:
        """The seconds it took once nothing got in its way any more: from the end of the last such strike."""
        if self.seconds is None:
            return None
        healed = self.began + self.seconds
        return healed - max([self.began, *(min(each.ended, healed) for each in self.strikes if each.began < healed)])


class Observer(threading.Thread):
    """Looks at the device rows and the log until :meth:`leave`."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(name="observer", daemon=True)
        self._trial = trial
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._log_offset = 0
        self._host_of: dict[str, str] = {}
        self._online: set[str] = set()
        self._pending: dict[str, Healing] = {}
        self._disturbed_until: dict[str, float] = {}
        self._struck: dict[str, list[Struck]] = {}
        #: After the kill of a shard, and after a half-open socket.
        self.shard_healings: list[Healing] = []
        self.half_open_healings: list[Healing] = []

    def leave(self) -> None:
        """End and wait for the end."""
        self._leaving.set()
        self.join(30)

    def waits_for_half_open(self) -> bool:
        """Return whether a half-open socket has not been found and healed yet."""
        with self._lock:
            return any(self._pending.get(each.device) is each for each in self.half_open_healings)

    def on_strike(self, struck: Struck) -> None:
        """Take note of a strike as it happens."""
        kind = struck.strike.kind
        with self._lock:
            self._read_log()
            calm = {device for device in self._online if struck.began >= self._disturbed_until.get(device, 0.0)}
            self._disturb(struck)
            if kind == "half-open":
                self._expect(struck.target, struck, self.half_open_healings, calm)
            if kind == "shard-kill":
                for device, shard in self._host_of.items():
                    # One that was away before heals from something else, and one that waits for a person not at all.
                    if shard == struck.target and (device in self._online or device in self._pending):
                        self._expect(device, struck, self.shard_healings, calm)

    def _disturb(self, struck: Struck) -> None:
        """Mark the healings that this strike gets in the way of."""
        kind = struck.strike.kind
        if kind in BESIDE:
            return
        everybody = kind not in ON_SHARD | ON_DEVICE
        for device in {*self._host_of, *self._pending}:
            if everybody or struck.target in {device, self._host_of.get(device)}:
                self._disturbed_until[device] = max(self._disturbed_until.get(device, 0.0), struck.ended)
                self._struck.setdefault(device, []).append(struck)
                if device in self._pending:
                    self._pending[device].undisturbed = False
                    self._pending[device].strikes.append(struck)

    def _expect(self, device: str, struck: Struck, healings: list[Healing], calm: set[str]) -> None:
        # The end of a strike is known when it is over: one that began before may still be in the way.
        before = [each for each in self._struck.get(device, [])[-_EARLIER:] if each is not struck]
        self._pending[device] = Healing(device, struck.began, undisturbed=device in calm, strikes=before)
        healings.append(self._pending[device])

    def run(self) -> None:
        """Look."""
        while not self._leaving.wait(_LOOK_SECONDS):
            try:
                rows = self._trial.devices()
            except SalamanderError:
                continue
            with self._lock:
                self._read_log()
                self._take(rows)

    def _take(self, rows: Iterable[Device]) -> None:
        rows = list(rows)
        self._online = {row.name for row in rows if row.state == "online"}
        for row in rows:
            healing = self._pending.get(row.name)
            if healing is None or row.last_online_at is None:
                continue
            # Online since: what was never taken for offline is not there yet, be its socket as dead as it may.
            if row.name in self._online and row.last_online_at.timestamp() > healing.began:
                healing.seconds = row.last_online_at.timestamp() - healing.began
                del self._pending[row.name]

    def _read_log(self) -> None:
        """Learn from new log lines which shard hosts which device."""
        try:
            with self._trial.home.log_file.open("rb") as log:
                log.seek(self._log_offset)
                lines = log.readlines()
        except OSError:
            return
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self._log_offset += len(line)
            record = _record(line)
            actor, device = str(record.get("actor", "")), record.get("device")
            if actor.startswith(("shard-", "quarantine-")) and isinstance(device, str):
                self._host_of[device] = actor


def falls_during(log_file: Path, times: Iterable[tuple[float, float]]) -> list[str]:
    """Return the log's lines about anything but PostgreSQL that fell during these times (seconds since the epoch)."""
    windows = list(times)
    found = []
    for line in log_file.read_bytes().splitlines():
        record = _record(line)
        event = str(record.get("event", ""))
        if not event.startswith("⚠️") or "PostgreSQL" in event:
            continue
        moment = datetime.fromisoformat(str(record["timestamp"])).timestamp()
        if any(began + 0.5 < moment < ended for began, ended in windows):
            found.append(line.decode(errors="replace"))
    return found


def attempts_while_logged_out(log_file: Path) -> list[str]:
    """Return the log's lines about attempts to connect a device that was known to be logged out and not paired anew."""
    logged_out: set[object] = set()
    found = []
    for line in log_file.read_bytes().splitlines():
        record = _record(line)
        event, device = str(record.get("event", "")), record.get("device")
        if event.startswith("Device is "):
            (logged_out.add if event == "Device is logged_out" else logged_out.discard)(device)
        elif event.startswith("🔄") and device in logged_out:
            found.append(line.decode(errors="replace"))
    return found


def _record(line: bytes) -> dict[str, object]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
