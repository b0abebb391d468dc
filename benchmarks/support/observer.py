"""Watches how devices heal: from the kill of a shard to each of its devices online again."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

from benchmarks.support.nemesis import DATABASE_AWAY, LOCAL, Struck
from benchmarks.support.trial import Trial
from config.errors import SalamanderError

_LOOK_SECONDS = 0.25
#: Kills whose healing is measured.
_MEASURED = frozenset({"shard-kill"})


@dataclass
class Healing:
    """One device on its way back."""

    device: str
    began: float
    seconds: float | None = None
    undisturbed: bool = True


class Observer(threading.Thread):
    """Looks at the device rows and the log until :meth:`leave`."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(name="observer", daemon=True)
        self._trial = trial
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._log_offset = 0
        self._host_of: dict[str, str] = {}
        self._pending: dict[str, Healing] = {}
        self._away: list[Struck] = []
        self.healings: list[Healing] = []
        self.half_open_healings: list[Healing] = []
        self.restarts_while_database_away = 0

    def leave(self) -> None:
        """End and wait for the end."""
        self._leaving.set()
        self.join(30)

    def on_strike(self, struck: Struck) -> None:
        """Take note of a strike as it happens."""
        with self._lock:
            self._read_log()
            kind = struck.strike.kind
            if kind in DATABASE_AWAY:
                self._away.append(struck)
            if kind not in LOCAL:
                for healing in self._pending.values():
                    healing.undisturbed = False
            if kind == "half-open":
                self._pending[struck.target] = Healing(struck.target, struck.began)
                self.half_open_healings.append(self._pending[struck.target])
            if kind in _MEASURED:
                for device, shard in self._host_of.items():
                    if shard == struck.target:
                        self._pending[device] = Healing(device, struck.began)
                        self.healings.append(self._pending[device])

    def run(self) -> None:
        """Look."""
        while not self._leaving.wait(_LOOK_SECONDS):
            with self._lock:
                self._read_log()
                if self._pending:
                    self._look_at_devices()

    def _look_at_devices(self) -> None:
        try:
            rows = self._trial.devices()
        except SalamanderError:
            return
        for row in rows:
            healing = self._pending.get(row.name)
            if healing is None or row.last_online_at is None or row.state != "online":
                continue
            if row.last_online_at.timestamp() > healing.began:
                healing.seconds = row.last_online_at.timestamp() - healing.began
                del self._pending[row.name]

    def _read_log(self) -> None:
        """Learn from new log lines which shard hosts which device, and what is restarted while PostgreSQL is away."""
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
            try:
                record = json.loads(line)
            except ValueError:
                continue
            actor, device, event = record.get("actor", ""), record.get("device"), str(record.get("event", ""))
            if str(actor).startswith("shard-") and device:
                self._host_of[device] = actor
            if event.startswith("⚠️") and any(not struck.ended_before_now() for struck in self._away):
                self.restarts_while_database_away += "PostgreSQL" not in event
