"""A fleet on trial: a daemon with the simulator on a home of its own, driven as a user would drive it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from actors.fleet import Fleet
from benchmarks.support.checker import UNFINISHED, Arrival, Step
from config.errors import SalamanderError
from config.home import DAEMON_VARIABLE, Home
from config.settings import Settings, load_settings
from simulator.client import SimulatorClient
from simulator.platforms.server import DEFAULT_ACCOUNTS
from storage import devices
from storage.database import SingleConnection, database_url
from storage.devices import Device

PROJECT = Path(__file__).resolve().parents[2]
#: Platform devices by name, with the platform each sends through.
PLATFORM_DEVICES = {"wablas-1": "wablas", "whacenter-1": "whacenter"}
#: Those whose provider documents no way to ask what became of a message.
UNASKABLE = frozenset({"whacenter-1"})
#: How long a command may take, and how often something awaited is looked at, in seconds.
_COMMAND_SECONDS = 150.0
_LOOK_SECONDS = 0.1
#: How often a device is told to pair before that counts as a failure.
_PAIRINGS = 3


class TrialFailed(Exception):
    """The fleet did not do what the trial needs to go on."""


def until(look: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return the first truthy value of ``look``; expected errors meanwhile are what a trial is about."""
    deadline = time.monotonic() + seconds
    trouble = ""
    while time.monotonic() < deadline:
        try:
            if value := look():
                return value
        except SalamanderError as error:
            trouble = f" ({error.sentence})"
        time.sleep(_LOOK_SECONDS)
    raise TrialFailed(f"{what}: not within {seconds:.0f} s{trouble}")


class Trial:
    """One home, its daemon and its devices.

    Attributes:
        home: where it lives.
        numbers: the phone number behind each WhatsApp device.
    """

    def __init__(self, home: Home, settings: dict[str, Any]) -> None:
        self.home = home
        self.simulator = SimulatorClient(home.simulator)
        self.numbers: dict[str, str] = {}
        home.create()
        home.configuration.write_text(
            "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()), encoding="utf-8"
        )
        self._database: SingleConnection | None = None
        self._database_lock = threading.Lock()

    @property
    def settings(self) -> Settings:
        """The settings of this home."""
        return load_settings(self.home)

    # --- the daemon --------------------------------------------------------------------------------------

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``run.py`` with these arguments on this home."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SALAMANDER_")}
        return subprocess.run(
            [sys.executable, str(PROJECT / "run.py"), "--home", str(self.home.path), *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=_COMMAND_SECONDS,
            check=False,
        )

    def start(self) -> None:
        """Start the daemon with the simulator."""
        started = self.command("start", "--simulator")
        if started.returncode != 0:
            raise TrialFailed(f"start: {started.stdout}{started.stderr}".strip())

    def stop(self) -> None:
        """Stop the daemon and leave nothing of it, whatever state it is in."""
        if self._database is not None:
            self._database.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.command("stop")
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def processes(self, *names: str) -> list[psutil.Process]:
        """Return this daemon's living processes (of these names), by name and then pid."""
        found: list[tuple[str, int, psutil.Process]] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                name = process.name()
                if names and not any(name == wanted or name.startswith(f"{wanted}-") for wanted in names):
                    continue
                marked = process.environ().get(DAEMON_VARIABLE) == str(self.home.path)
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append((name, process.pid, process))
        return [process for _, _, process in sorted(found, key=lambda each: each[:2])]

    def postgres(self) -> list[psutil.Process]:
        """Return PostgreSQL's processes, its head first (their environment may be cleaned, so: by their place)."""
        try:
            head = psutil.Process(int((self.home.postgres / "pgdata" / "postmaster.pid").read_text().split()[0]))
            return [head, *head.children(recursive=True)] if head.name().startswith("postgres") else []
        except (OSError, ValueError, IndexError, psutil.Error):
            return []

    # --- devices -----------------------------------------------------------------------------------------

    def add_devices(self, fleet: Fleet, count: int) -> None:
        """Pair ``count`` WhatsApp devices, each with a phone of its own, and add the platform devices."""
        for number in range(1, count + 1):
            name = f"shop-{number}"
            self.numbers[name] = f"601200{number:06d}"
            self.simulator.add_phone(self.numbers[name])
            fleet.add_device(name)
            self.pair(fleet, name)
        urls = self.simulator.info()["platforms"]
        for name, platform in PLATFORM_DEVICES.items():
            fleet.add_device(name, platform=platform, base_url=urls[platform], credentials=DEFAULT_ACCOUNTS[platform])

    def pair(self, fleet: Fleet, name: str) -> None:
        """Link a device to its phone, as an operator does: again when the first try came at a bad moment."""
        for attempt in range(_PAIRINGS):
            try:
                fleet.tell_device(name, "pair")
                qr = until(lambda: fleet.device(name).pairing_qr, 20, f"the QR of {name}")
                self.simulator.scan(self.numbers[name], qr)
                until(lambda: fleet.device(name).state == "online", 30, f"{name} online after pairing")
            except (SalamanderError, TrialFailed):
                if attempt + 1 == _PAIRINGS:
                    raise
            else:
                return

    def devices(self) -> list[Device]:
        """Return every device's row, whatever of the daemon is down but PostgreSQL."""
        with self._transaction() as connection:
            return devices.all_devices(connection)

    # --- what came of it ---------------------------------------------------------------------------------

    def stories(self) -> dict[int, list[Step]]:
        """Return each message's states, in order."""
        told: dict[int, list[Step]] = {}
        with self._transaction() as connection:
            for row in connection.execute("select message_id, state, reason_code, reason from transition order by id"):
                told.setdefault(row["message_id"], []).append(Step(row["state"], row["reason_code"], row["reason"]))
        return told

    def resumed_after(self, moments: Sequence[float]) -> list[float]:
        """Return how many seconds after each moment (since the epoch) WhatsApp and a platform had both taken a message.

        Moments after which no more was sent are left out.
        """
        seconds = []
        with self._transaction() as connection:
            for moment in moments:
                row = connection.execute(
                    "select max(first) as last, count(first) as kinds from ("
                    " select min(t.at) as first from transition t join outbox o on o.id = t.message_id"
                    " join device d on d.id = o.device_id"
                    " where t.state = 'sent' and t.at > to_timestamp(%s) group by d.platform is null) as kinds",
                    [moment],
                ).fetchone()
                if row is not None and row["kinds"] == 2:
                    seconds.append(row["last"].timestamp() - moment)
        return seconds

    def unfinished(self) -> dict[str, int]:
        """Return how many messages are queued, being sent, or in doubt where evidence may still come."""
        with self._transaction() as connection:
            rows = connection.execute(
                "select o.state, count(*) as messages from outbox o join device d on d.id = o.device_id"
                " where o.state = any(%s) or (o.state = 'in_doubt' and not d.name = any(%s)) group by 1",
                [sorted(UNFINISHED), sorted(UNASKABLE)],
            )
            return {row["state"]: row["messages"] for row in rows}

    def story_of(self, message_id: int) -> str:
        """Return all that is known of one message, for people."""
        with self._transaction() as connection:
            rows = [
                *connection.execute("select * from outbox where id = %s", [message_id]),
                *connection.execute("select * from attempt where message_id = %s order by id", [message_id]),
                *connection.execute("select * from transition where message_id = %s order by id", [message_id]),
            ]
        shown = [", ".join(f"{key}={value!s:.200}" for key, value in row.items() if value is not None) for row in rows]
        return "\n".join(f"  {line}" for line in shown)

    def arrivals(self) -> list[Arrival]:
        """Return what phones decrypted and platforms recorded. Copies for a sender's own phone are no arrivals."""
        name_of = {number: name for name, number in self.numbers.items()}
        found = [
            Arrival(name_of.get(row["sender"], row["sender"]), number, row["text"])
            for number, inbox in self.simulator.all_inboxes().items()
            for row in inbox
        ]
        for name, platform in PLATFORM_DEVICES.items():
            found += [Arrival(name, row["to"], row["text"]) for row in self.simulator.platform_log(platform)]
        return found

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        with self._database_lock:
            if self._database is None:
                self._database = SingleConnection(database_url(self.home, load_settings(self.home)))
            with self._database.transaction() as connection:
                yield connection


def shown_log(home: Home, words: Sequence[str], limit: int = 40) -> list[str]:
    """Return the last log lines that hold all of ``words``."""
    lines = home.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if all(word in line for word in words)][-limit:]
