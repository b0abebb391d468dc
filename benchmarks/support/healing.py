"""Strikes on a running fleet, and how long each struck device takes to be online again, by the server's own clock."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from actors.fleet import Fleet
from benchmarks.support.bench import percentile
from benchmarks.support.trial import Trial, TrialFailed, until
from config.errors import SalamanderError
from config.settings import load_settings
from simulator.client import SimulatorClient
from storage.database import SingleConnection, database_url
from storage.outbox import FINAL_STATES

#: How often it is looked who is back, in seconds; each look costs the simulator some milliseconds.
_LOOK_SECONDS = 0.4
#: How long after a strike it is seen who fell, in seconds: the kernel closes a killed process's sockets at once.
_FALL_SECONDS = 0.3
#: A fleet is left alone for this long before the next strike, in seconds.
_CALM_SECONDS = 3.0


@dataclass
class Healed:
    """What came of one kind of strike.

    Attributes:
        seconds: for each device (or each strike) how long it took to be online again.
        lost: how many did not come back in time.
        peak_connects: the most connects within one second meanwhile, as the server counted.
        curve: (seconds since the strike, devices back); of the last strike.
        began: when the last strike came (seconds since the epoch).
    """

    kind: str
    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    peak_connects: int = 0
    curve: list[tuple[float, int]] = field(default_factory=list)
    began: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {
            "devices": len(self.seconds) + self.lost,
            "p50": round(percentile(self.seconds, 0.5), 3),
            "p99": round(percentile(self.seconds, 0.99), 3),
            "longest": round(max(self.seconds, default=0.0), 3),
            "lost": self.lost,
            "peak_connects_per_second": self.peak_connects,
            "curve": [(round(at, 2), back) for at, back in self.curve],
        }


class Healer:
    """Strikes a fleet and measures.

    Args:
        trial: the running fleet.
        jids: the fleet's companions, by the names of their devices.
        longest: seconds until a device counts as lost.
    """

    def __init__(self, trial: Trial, jids: Mapping[str, str], longest: float) -> None:
        self._trial = trial
        self._jids = dict(jids)
        self._longest = longest
        self._database = SingleConnection(database_url(trial.home, load_settings(trial.home)))

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    # --- strikes -----------------------------------------------------------------------------------------

    def reset_one(self, times: int) -> Healed:
        """Reset one device's socket, ``times`` times, each a different one."""
        return self._one_by_one("socket reset", times, lambda jid: self._trial.simulator.fault("reset", jid))

    def half_open(self, count: int) -> Healed:
        """Let ``count`` devices' connections go dead without a word, all at once; new ones work."""
        healed = Healed("half-open socket")
        struck = [self._jids[name] for name in list(self._jids)[-count:]]

        def strike() -> None:
            for jid in struck:
                self._trial.simulator.fault("half-open", jid, seconds=self._longest)

        self._measure(healed, struck, strike)
        self._trial.simulator.fault("clear")
        return healed

    def kill_a_shard(self, times: int) -> Healed:
        """SIGKILL one shard, ``times`` times."""
        healed = Healed("a shard SIGKILLed")
        for number in range(times):
            shards = self._trial.processes("shard")
            self._strike_processes(healed, [shards[number % len(shards)]])
        return healed

    def kill_every_shard(self) -> Healed:
        """SIGKILL all shards at once."""
        healed = Healed("every shard SIGKILLed at once")
        self._strike_processes(healed, self._trial.processes("shard"))
        return healed

    def drop_all(self) -> Healed:
        """Let the server reset all sockets at once."""
        healed = Healed("all sockets dropped by the server")
        self._measure(healed, list(self._jids.values()), lambda: self._trial.simulator.fault("reset"))
        return healed

    def kill_the_admin(self) -> Healed:
        """SIGKILL Thespian's Admin: the whole actor system is started again."""
        healed = Healed("the Admin SIGKILLed")
        [admin] = self._trial.processes("sal-admin")
        self._measure(healed, list(self._jids.values()), admin.kill)
        return healed

    def kill_postgres(self, times: int) -> Healed:
        """SIGKILL PostgreSQL, ``times`` times, and see how long until a message goes through again."""
        healed = Healed("PostgreSQL SIGKILLed: a message through")
        for number in range(times):
            time.sleep(_CALM_SECONDS)
            head = self._trial.postgres()[0]
            began = time.time()
            os.kill(head.pid, signal.SIGKILL)
            try:
                self._send_through(list(self._jids)[number])
                healed.seconds.append(time.time() - began)
            except (SalamanderError, TrialFailed):
                healed.lost += 1
        return healed

    # --- measuring ---------------------------------------------------------------------------------------

    def _one_by_one(self, kind: str, times: int, strike: Callable[[str], object]) -> Healed:
        healed = Healed(kind)
        for name in list(self._jids)[:times]:
            jid = self._jids[name]
            self._measure(healed, [jid], lambda jid=jid: strike(jid), calm=0.5)  # type: ignore[misc]
        return healed

    def _strike_processes(self, healed: Healed, processes: Collection[psutil.Process]) -> None:
        def strike() -> None:
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()

        self._measure(healed, None, strike)

    def _measure(
        self, healed: Healed, struck: list[str] | None, strike: Callable[[], object], calm: float = _CALM_SECONDS
    ) -> None:
        """Strike and wait until each of the struck (None: whoever falls) is online again, to the server and to us."""
        time.sleep(calm)
        before = self._logged_in()
        began = time.time()
        strike()
        if struck is None:
            time.sleep(_FALL_SECONDS)
            live, now = self._trial.simulator.stats()["live"], self._logged_in()
            struck = [jid for jid in self._jids.values() if jid not in live or now[jid] > before[jid]]
        healed.curve = []
        back: dict[str, float] = {}
        while len(back) < len(struck) and time.time() - began < self._longest:
            logged_in, online = self._logged_in(), self._online_since()
            for jid in struck:
                if jid in online and logged_in.get(jid, 0.0) > began:
                    back[jid] = max(logged_in[jid], online[jid]) - began
            healed.curve.append((time.time() - began, len(back)))
            time.sleep(_LOOK_SECONDS)
        healed.seconds += back.values()
        healed.lost += len(struck) - len(back)
        healed.peak_connects = max(healed.peak_connects, peak_connects(self._trial.simulator, began))

    def _logged_in(self) -> dict[str, float]:
        found: dict[str, float] = self._trial.simulator.timeline()["logged_in_at"]
        return found

    def _online_since(self) -> dict[str, float]:
        """Return, for each companion that our tables call online, since when they do."""
        try:
            with self._database.transaction() as connection:
                rows = connection.execute(
                    "select jid, extract(epoch from last_online_at)::float8 as at from device"
                    " where state = 'online' and jid is not null"
                ).fetchall()
        except SalamanderError:
            return {}
        return {row["jid"]: row["at"] for row in rows}

    def _send_through(self, device: str) -> None:
        with Fleet(self._trial.home.path, timeout=self._longest) as fleet:
            message_id = fleet.send(device, "+60198887777", f"after the strike {secrets.token_hex(4)}")
            until(
                lambda: fleet.states([message_id])[message_id]["state"] in FINAL_STATES,
                self._longest,
                "a message through",
            )


def heal_by_itself(
    kind: str, simulator: SimulatorClient, jids: Sequence[str], strike: Callable[[], object], longest: float
) -> Healed:
    """Strike clients that nobody looks after, and return how long each took to be logged in again."""
    time.sleep(_CALM_SECONDS)
    healed = Healed(kind)
    began = time.time()
    strike()
    back: dict[str, float] = {}
    while len(back) < len(jids) and time.time() - began < longest:
        time.sleep(_LOOK_SECONDS)
        logged_in = simulator.timeline()["logged_in_at"]
        back = {jid: logged_in[jid] - began for jid in jids if logged_in.get(jid, 0.0) > began}
        healed.curve.append((time.time() - began, len(back)))
    healed.seconds += back.values()
    healed.lost = len(jids) - len(back)
    healed.peak_connects = peak_connects(simulator, began)
    return healed


def peak_connects(simulator: SimulatorClient, began: float) -> int:
    """Return the most connects within one second since then, as the server counted."""
    connects = simulator.timeline()["connects"]
    return max((number for second, number in connects if second >= int(began)), default=0)


@contextlib.contextmanager
def healer(trial: Trial, jids: Mapping[str, str], longest: float) -> Iterator[Healer]:
    """Lend a :class:`Healer`."""
    found = Healer(trial, jids, longest)
    try:
        yield found
    finally:
        found.close()
