"""The nemesis: carries out a plan's strikes against a trial, with signals, PostgreSQL's means and the simulator's.

It only breaks. What only an operator can mend (a logged-out device, a conflict, a killed watchdog) is mended by
``operator.py`` or, for the watchdog, by the next ``start``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import psycopg

from benchmarks.support.plan import Strike
from benchmarks.support.trial import PLATFORM_DEVICES, Trial, TrialFailed, until
from config.errors import SalamanderError
from storage.database import SALAMANDER_DATABASE, WHATSMEOW_DATABASE
from storage.embedded import embedded_url
from supervisors.processes import wait_until_gone

#: How long a struck simulator may take to come back.
_SIMULATOR_SECONDS = 60.0
#: How long a process to strike may take to come back from an earlier strike.
_PROCESS_SECONDS = 60.0
#: Strikes on what no device needs in order to be online.
BESIDE = frozenset({
    "router-kill", "router-stop", "router-crash", "platform-kill", "platform-stop", "platform-crash", "platform-slow",
    "platform-reset-before", "platform-reset-after", "platform-garbage", "platform-502", "watchdog-stop",
    "gateway-kill", "gateway-stop", "gateway-crash",
})  # fmt: skip
#: Strikes on one shard, and on one device: they disturb the healing of no other.
ON_SHARD = frozenset({"shard-kill", "shard-stop", "shard-crash"})
ON_DEVICE = frozenset({"half-open", "lost-ack", "slow", "reset", "stream-503", "replaced", "banned", "logged-out"})
#: Strikes that take PostgreSQL away for a time and kill nobody: no process may be restarted meanwhile.
DATABASE_AWAY = frozenset({"postgres-kill", "postgres-refuse", "postgres-freeze", "postgres-minute"})
#: The processes that are killed, crash or stop, by what they are called in a plan and by their names.
_PROCESSES = {
    "shard": "shard",
    "router": "router",
    "platform": "platform",
    "gateway": "gateway",
    "fleet": "fleet",
    "admin": "sal-admin",
}
_ENDINGS = {"kill": signal.SIGKILL, "crash": signal.SIGSEGV}
#: The long outage of PostgreSQL, as a multiple of the others' longest: with theirs of 6 s, a minute.
_LONG_OUTAGE = 10.0
#: What the stand-ins call the platform faults.
_PLATFORM_FAULTS = {
    "platform-slow": "slow-after-recording",
    "platform-reset-before": "reset-before-recording",
    "platform-reset-after": "reset-after-recording",
    "platform-garbage": "garbage-200",
    "platform-502": "html-502",
}
#: How long the half-open fault must last so that only a refresh can have healed the device: longer than the
#: library's keep-alive (26 s) and our probe (8 s) together.
_HALF_OPEN_SECONDS = 36.0


@dataclass
class Struck:
    """A strike that was carried out: when it began and when its cause ended (seconds since the epoch)."""

    strike: Strike
    target: str
    began: float
    ended: float

    def as_line(self) -> str:
        """Return it for people."""
        return f"{self.strike.kind} {self.target}".strip()


class Nemesis:
    """Carries out strikes, one at a time."""

    def __init__(self, trial: Trial, on_strike: Callable[[Struck], None]) -> None:
        self._trial = trial
        self._on_strike = on_strike
        #: The longest outage of PostgreSQL, in seconds; a run that has the time raises it.
        self.longest_outage = 6.0
        self.struck: list[Struck] = []
        #: Strikes that found nothing to hit, and why.
        self.missed: list[str] = []

    def strike(self, strike: Strike) -> None:
        """Carry one strike out. What it stopped goes on when it returns; the simulator's faults end by themselves."""
        act = self._act_of(strike.kind)
        try:
            act(strike)
        except (TrialFailed, SalamanderError, psutil.Error, psycopg.Error, OSError) as error:
            self.missed.append(f"{strike.kind}: {error}")
            if self.struck and self.struck[-1].strike is strike:
                self.struck[-1].ended = time.time()

    def end_everything(self) -> None:
        """Let go of whatever is stopped or faulty."""
        for process in [*self._trial.processes(), *self._trial.postgres()]:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        until(lambda: self._allow_connections(allowed=True), 60, "PostgreSQL to take the order to allow")
        self._simulate(lambda: self._trial.simulator.fault("clear"))
        for platform in PLATFORM_DEVICES.values():
            self._simulate(partial(self._trial.simulator.platform_fault, platform, "clear"))

    def _act_of(self, kind: str) -> Callable[[Strike], None]:
        what, _, how = kind.partition("-")
        if what in _PROCESSES and how in _ENDINGS:
            return lambda strike: self._signal(strike, _PROCESSES[what], _ENDINGS[how])
        if what in _PROCESSES and how == "stop":
            return lambda strike: self._pause(strike, self._find(strike, _PROCESSES[what]))
        named: dict[str, Callable[[Strike], None]] = {
            "watchdog-kill": lambda strike: self._end_watchdog(strike, signal.SIGKILL),
            "watchdog-crash": lambda strike: self._end_watchdog(strike, signal.SIGSEGV),
            "watchdog-stop": lambda strike: self._pause(strike, self._find(strike, "salamander")),
            "simulator-kill": lambda strike: self._end_simulator(strike, signal.SIGKILL),
            "simulator-crash": lambda strike: self._end_simulator(strike, signal.SIGSEGV),
            "simulator-stop": lambda strike: self._pause(strike, psutil.Process(self._simulator_pid())),
            "postgres-kill": self._kill_postgres,
            "postgres-refuse": lambda strike: self._refuse_postgres(strike, self._outage(strike)),
            "postgres-minute": lambda strike: self._refuse_postgres(strike, _LONG_OUTAGE * self.longest_outage),
            "postgres-freeze": self._freeze_postgres,
            "half-open": lambda strike: self._fault_device(strike, "half-open", _HALF_OPEN_SECONDS),
            "lost-ack": lambda strike: self._fault_device(strike, "lost-ack", 2 + 4 * strike.length),
            "slow": lambda strike: self._fault_device(strike, "slow", 3 + 5 * strike.length),
            "reset": lambda strike: self._fault_device(strike, "reset", None),
            "stream-503": lambda strike: self._fault_device(strike, "stream-503", None),
            "replaced": lambda strike: self._fault_device(strike, "replaced", None),
            "banned": self._ban_device,
            "logged-out": lambda strike: self._fault_device(strike, "device-removed", None),
            "failure-503": lambda strike: self._fault_and_reset(strike, "failure-503"),
            "http-503": lambda strike: self._fault_and_reset(strike, "http-503"),
            "refuse": lambda strike: self._fault_and_reset(strike, "refuse"),
            "blackhole": lambda strike: self._fault_and_reset(strike, "blackhole"),
            "tls-failure": lambda strike: self._fault_and_reset(strike, "tls-failure"),
            **dict.fromkeys(_PLATFORM_FAULTS, self._fault_platform),
        }
        return named[kind]

    def _note(self, strike: Strike, target: str, seconds: float = 0.0) -> Struck:
        """Write a strike down as it happens; observers see it before its consequences."""
        now = time.time()
        struck = Struck(strike, target, now, now + seconds)
        self.struck.append(struck)
        self._on_strike(struck)
        return struck

    # --- processes ---------------------------------------------------------------------------------------

    def _find(self, strike: Strike, name: str) -> psutil.Process:
        """Return the process to hit; one that an earlier strike felled is waited for."""
        # A device that was inside the library at several kills gets a shard of its own.
        names = ("shard", "quarantine") if name == "shard" else (name,)
        found: list[psutil.Process] = until(
            lambda: self._trial.processes(*names), _PROCESS_SECONDS, f"a process named {name}"
        )
        return found[int(strike.target * len(found))]

    def _signal(self, strike: Strike, name: str, number: signal.Signals) -> None:
        process = self._find(strike, name)
        self._note(strike, process.name())
        process.send_signal(number)

    def _pause(self, strike: Strike, process: psutil.Process) -> None:
        """Stop a process for 1 to 8 s: shorter than the supervisors' patience, or longer."""
        struck = self._note(strike, process.name(), 8.0)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.0 + 7.0 * strike.length)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)
        struck.ended = time.time()

    def _end_watchdog(self, strike: Strike, number: signal.Signals) -> None:
        process = self._find(strike, "salamander")
        struck = self._note(strike, "watchdog", 60.0)
        process.send_signal(number)
        # Dead is enough: who adopted it may take seconds to reap it.
        wait_until_gone(process.pid, None, 10)
        self._trial.start()
        struck.ended = time.time()

    def _simulator_pid(self) -> int:
        return int(self._trial.simulator.info()["pid"])

    def _end_simulator(self, strike: Strike, number: signal.Signals) -> None:
        pid = self._simulator_pid()
        struck = self._note(strike, "simulator", 60.0)
        os.kill(pid, number)
        until(lambda: self._simulator_pid() != pid, _SIMULATOR_SECONDS, "the simulator's return")
        struck.ended = time.time()

    # --- PostgreSQL --------------------------------------------------------------------------------------

    def _kill_postgres(self, strike: Strike) -> None:
        processes = self._trial.postgres()
        if not processes:
            raise TrialFailed("PostgreSQL is not running")
        struck = self._note(strike, "postmaster", 30.0)
        processes[0].kill()
        until(lambda: self._trial.unfinished() is not None, 60, "PostgreSQL's return")
        struck.ended = time.time()

    def _outage(self, strike: Strike) -> float:
        return self.longest_outage * (0.5 + 0.5 * strike.length)

    def _refuse_postgres(self, strike: Strike, seconds: float) -> None:
        """Let PostgreSQL refuse every connection, and end those there are."""
        struck = self._note(strike, "postgres", seconds)
        until(lambda: self._allow_connections(allowed=False), 30, "PostgreSQL to take the order to refuse")
        try:
            time.sleep(seconds)
        finally:
            until(lambda: self._allow_connections(allowed=True), 30, "PostgreSQL to take the order to allow")
        struck.ended = time.time()

    def _freeze_postgres(self, strike: Strike) -> None:
        """Let PostgreSQL neither answer nor refuse for some seconds."""
        processes = self._trial.postgres()
        struck = self._note(strike, "postgres", self.longest_outage)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        time.sleep(self._outage(strike))
        for process in reversed(processes):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        struck.ended = time.time()

    def _allow_connections(self, *, allowed: bool) -> bool:
        """Give PostgreSQL an order; return whether it took it (it may just be starting)."""
        url = embedded_url(self._trial.home.postgres, "postgres")
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
                for name in (SALAMANDER_DATABASE, WHATSMEOW_DATABASE):
                    connection.execute(f"alter database {name} allow_connections {str(allowed).lower()}")
                    if not allowed:
                        connection.execute(
                            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name]
                        )
        except psycopg.OperationalError:
            return False
        return True

    # --- WhatsApp and the platforms ----------------------------------------------------------------------

    def _simulate(self, order: Callable[[], Any]) -> None:
        """Give the simulator an order; it may just be coming back."""

        def given() -> bool:
            order()
            return True

        until(given, _SIMULATOR_SECONDS, "the simulator's answer")

    def _device(self, strike: Strike) -> tuple[str, str]:
        """Return the name and companion of a device that is online."""

        def online() -> list[tuple[str, str]]:
            rows = self._trial.devices()
            return [(row.name, row.jid) for row in rows if row.jid is not None and row.state == "online"]

        found = until(online, _PROCESS_SECONDS, "a device that is online")
        name, jid = found[int(strike.target * len(found))]
        return name, jid

    def _fault_device(self, strike: Strike, kind: str, seconds: float | None) -> None:
        name, jid = self._device(strike)
        self._note(strike, name, seconds or 0.0)
        self._simulate(lambda: self._trial.simulator.fault(kind, jid=jid, seconds=seconds))

    def _ban_device(self, strike: Strike) -> None:
        """Have a device told at its next login that it is banned for an hour; the operator says go on."""
        name, jid = self._device(strike)
        self._note(strike, name, 1.0)
        self._simulate(lambda: self._trial.simulator.fault("failure-402", jid=jid, seconds=1.0))
        self._simulate(lambda: self._trial.simulator.fault("reset", jid=jid))

    def _fault_and_reset(self, strike: Strike, kind: str) -> None:
        """Make connecting fail for a while, and break some or all connections, so that it matters."""
        seconds = 2.0 + 5.0 * strike.length
        jid = None
        if strike.target < 0.7:
            _, jid = self._device(Strike(strike.kind, strike.target / 0.7, strike.length))
        self._note(strike, "everybody" if jid is None else jid, seconds)
        self._simulate(lambda: self._trial.simulator.fault(kind, seconds=seconds))
        self._simulate(lambda: self._trial.simulator.fault("reset", jid=jid))

    def _fault_platform(self, strike: Strike) -> None:
        platforms = sorted(PLATFORM_DEVICES.values())
        platform = platforms[int(strike.target * len(platforms))]
        seconds = 1.0 + 3.0 * strike.length
        self._note(strike, platform, seconds)
        fault = _PLATFORM_FAULTS[strike.kind]
        self._simulate(lambda: self._trial.simulator.platform_fault(platform, fault, seconds))
