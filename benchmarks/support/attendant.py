"""The operator of a trial: does what only a person can do, by a person's means, a moment after it is needed."""

from __future__ import annotations

import contextlib
import threading
import time

from actors.fleet import Fleet
from benchmarks.support.trial import Trial, TrialFailed
from config.errors import SalamanderError
from storage.devices import Device

#: How often the devices are looked at, and how long a state is left alone before it is acted upon, in seconds.
_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 1.0
#: States that wait for a phone, and states that wait for a time unless the operator says go on.
_NEEDS_PHONE = frozenset({"logged_out", "needs_pairing"})
_NEEDS_WORD = frozenset({"conflict", "banned", "outdated"})
#: How long an order may take to show before it is given again, in seconds.
_AGAIN_SECONDS = 15.0


class Attendant(threading.Thread):
    """Pairs logged-out devices again and ends holds, until :meth:`leave`."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(name="attendant", daemon=True)
        self._trial = trial
        self._leaving = threading.Event()
        self._told: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self.paired = 0
        self.refreshed = 0
        #: What did not work at once (it is tried again).
        self.troubles: list[str] = []

    def leave(self) -> None:
        """End and wait for the end."""
        self._leaving.set()
        self.join(120)

    def run(self) -> None:
        """Look, and act."""
        while not self._leaving.wait(_LOOK_SECONDS):
            try:
                waiting = [row for row in self._trial.devices() if self._is_due(row)]
                if waiting:
                    with contextlib.closing(Fleet(self._trial.home.path, timeout=20)) as fleet:
                        for row in waiting:
                            self._help(fleet, row)
            except (SalamanderError, TrialFailed) as error:
                self.troubles.append(str(error))

    def _is_due(self, row: Device) -> bool:
        if row.state not in _NEEDS_PHONE | _NEEDS_WORD:
            self._seen.pop(row.name, None)
            return False
        now = time.monotonic()
        first = self._seen.setdefault(row.name, now)
        return now - first > _PATIENCE_SECONDS and now - self._told.get(row.name, 0.0) > _AGAIN_SECONDS

    def _help(self, fleet: Fleet, row: Device) -> None:
        if self._leaving.is_set():
            return
        self._told[row.name] = time.monotonic()
        if row.state in _NEEDS_WORD:
            fleet.tell_device(row.name, "refresh")
            self.refreshed += 1
        else:
            self._trial.pair(fleet, row.name)
            self.paired += 1
        self._told.pop(row.name, None)
