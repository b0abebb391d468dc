"""The comparison of a fault run: plain neonize scripts with a retry loop, under the same kinds of strikes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.support.plan import Strike
from benchmarks.support.trial import until
from config.daemon import exec_environment
from config.errors import SalamanderError
from config.home import DAEMON_VARIABLE, Home
from simulator.addresses import INFO_FILE
from simulator.client import SimulatorClient

_PROJECT = Path(__file__).resolve().parents[2]
#: What each kind of strike is for a script: a signal, or a fault of WhatsApp with its seconds. Those on the router,
#: PostgreSQL, the platforms and the like have no counterpart there.
_SIGNALS = {"shard-kill": signal.SIGKILL, "shard-crash": signal.SIGSEGV}
_FAULTS: dict[str, float | None] = {
    "reset": None,
    "lost-ack": 4.0,
    "slow": 5.0,
    "failure-503": 4.0,
    "http-503": 4.0,
    "refuse": 4.0,
    "tls-failure": 4.0,
}
#: Kinds that a script can be struck by.
KINDS = frozenset({*_SIGNALS, *_FAULTS, "simulator-kill"})
#: The pause between strikes, how soon a shell loop starts a dead script again, and how long the end may take.
_PACE_SECONDS = 0.7
_RESTART_SECONDS = 0.5
_END_SECONDS = 200.0


@dataclass
class Comparison:
    """What became of the scripts' messages."""

    messages: int
    kills: int
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    #: Not tried to the end when time was over; among these, what is missing counts neither way.
    unfinished: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the figures, for machines."""
        return dict(vars(self))


@dataclass
class _Script:
    """One number, its script, and the files between them."""

    number: str
    directory: Path
    process: subprocess.Popen[bytes] | None = None
    died_at: float = 0.0
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many messages the script is through with."""
        try:
            return int((self.directory / "progress").read_text() or 0)
        except (OSError, ValueError):
            return 0

    def ask(self, to: str, text: str) -> None:
        """Append a message to the script's file."""
        self.asked.append((to, text))
        with (self.directory / "queue").open("a", encoding="utf-8") as queue:
            queue.write(json.dumps([to, text]) + "\n")


class NaiveRun:
    """Some numbers' scripts, a simulator of their own, and strikes."""

    def __init__(self, directory: Path, *, numbers: int, seed: int) -> None:
        self._home = Home(directory)
        self._home.simulator.mkdir(parents=True)
        self._simulator = SimulatorClient(self._home.simulator)
        self._simulating: subprocess.Popen[bytes] | None = None
        self._info: dict[str, Any] = {}
        self._chance = random.Random(seed + 2)  # noqa: S311 - a schedule, no secret
        self._scripts = [_Script(f"601300{number:06d}", directory / f"script-{number}") for number in range(numbers)]

    def run(self, strikes: Sequence[Strike], messages: int) -> Comparison:
        """Send ``messages`` while ``strikes`` come, and count what arrived."""
        usable = [strike for strike in strikes if strike.kind in KINDS]
        try:
            self._start_simulator()
            for script in self._scripts:
                script.directory.mkdir()
                (script.directory / "queue").touch()
                self._pair(script)
            struck = self._send_and_strike(usable, messages)
            self._come_to_an_end()
            return self._count(messages, struck)
        finally:
            for script in self._scripts:
                _end(script.process)
            _end(self._simulating)

    # --- processes ---------------------------------------------------------------------------------------

    def _start_simulator(self) -> None:
        port = str(self._info.get("proxy", ":0")).rpartition(":")[2]
        described = self._home.simulator / INFO_FILE
        described.unlink(missing_ok=True)
        self._simulating = subprocess.Popen(
            [sys.executable, "-m", "simulator", str(self._home.simulator), "--proxy-port", port],
            cwd=_PROJECT,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(described.exists, 30, "the simulator")
        self._info = json.loads(described.read_text(encoding="utf-8"))

    def _start(self, script: _Script) -> subprocess.Popen[bytes]:
        environment = exec_environment(
            self._home,
            daemon_variable=DAEMON_VARIABLE,
            proxy=self._info["proxy"],
            ca_file=Path(self._info["ca_file"]),
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.support.naive_client"],
            cwd=_PROJECT,
            env={name: value for name, value in environment.items() if not name.startswith("SALAMANDER_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        orders = {
            "store": str(script.directory / "session.sqlite3"),
            "queue": str(script.directory / "queue"),
            "progress": str(script.directory / "progress"),
            "proxy": self._info["proxy"],
            "noise_root": self._info["noise_root"],
        }
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        process.stdin.flush()
        script.process = process
        return process

    def _pair(self, script: _Script) -> None:
        self._simulator.add_phone(script.number)
        process = self._start(script)
        assert process.stdout is not None
        qr = process.stdout.readline().decode().strip()
        self._simulator.scan(script.number, qr)
        until(lambda: self._simulator.stats()["online"] >= 1 + self._scripts.index(script), 30, "a script online")

    def _restart_the_dead(self) -> None:
        """Do what a shell loop around the script does."""
        now = time.monotonic()
        for script in self._scripts:
            if script.process is not None and script.process.poll() is not None:
                _end(script.process)
                script.process, script.died_at = None, now
            if script.process is None and now - script.died_at > _RESTART_SECONDS:
                self._start(script)

    # --- sending and striking ----------------------------------------------------------------------------

    def _send_and_strike(self, strikes: Sequence[Strike], messages: int) -> int:
        each = messages / (len(strikes) + 1)
        asked = 0
        for number, strike in enumerate([*strikes, None], start=1):
            while asked < min(messages, round(number * each)):
                asked += 1
                script = self._chance.choice(self._scripts)
                script.ask(f"601980000{self._chance.randrange(10, 30)}", f"naive {asked:06d}")
            began = time.monotonic()
            while time.monotonic() - began < _PACE_SECONDS:
                self._restart_the_dead()
                time.sleep(0.05)
            if strike is not None:
                self._strike(strike)
        return len(strikes)

    def _strike(self, strike: Strike) -> None:
        script = self._scripts[int(strike.target * len(self._scripts))]
        if strike.kind in _SIGNALS:
            if script.process is not None:
                script.process.send_signal(_SIGNALS[strike.kind])
        elif strike.kind == "simulator-kill":
            _end(self._simulating)
            self._start_simulator()
        else:
            everybody = strike.kind in {"http-503", "refuse", "tls-failure", "failure-503"}
            with contextlib.suppress(SalamanderError):
                whom = None if everybody else script.number
                self._simulator.fault(strike.kind, jid=whom, seconds=_FAULTS[strike.kind])
                if everybody:
                    self._simulator.fault("reset", jid=script.number)

    def _come_to_an_end(self) -> None:
        self._simulator.fault("clear")
        deadline = time.monotonic() + _END_SECONDS
        while any(script.done < len(script.asked) for script in self._scripts) and time.monotonic() < deadline:
            self._restart_the_dead()
            time.sleep(0.1)
        time.sleep(1.0)

    def _count(self, messages: int, struck: int) -> Comparison:
        found = Counter(
            (number, row["text"]) for number, inbox in self._simulator.all_inboxes().items() for row in inbox
        )
        comparison = Comparison(messages, struck)
        for script in self._scripts:
            for position, message in enumerate(script.asked):
                copies = found[message]
                comparison.delivered += copies > 0
                comparison.duplicated += copies > 1
                comparison.unfinished += copies == 0 and position >= script.done
                comparison.lost += copies == 0 and position < script.done
        return comparison


def _end(process: subprocess.Popen[bytes] | None) -> None:
    """Kill a process, if it still lives, and collect it."""
    if process is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
