"""One installation driven as its user does: by ``run.py`` in processes of their own, and by the Fleet client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psutil

from actors.fleet import Fleet
from config.daemon import read_daemon_file
from config.home import Home
from config.settings import Settings, load_settings
from simulator.client import SimulatorClient
from simulator.platforms.server import DEFAULT_ACCOUNTS
from storage.database import Row, SingleConnection, database_url, whatsmeow_url
from supervisors.processes import daemon_processes, process_is_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PROJECT = Path(__file__).parents[2]
#: How long a command may take; `start` on two busy cores is the longest.
_COMMAND_SECONDS = 150.0

_Found = TypeVar("_Found")


def eventually(look: Callable[[], _Found | None], seconds: float, what: str) -> _Found:
    """Poll until ``look()`` is true and return it; ``what`` tells what was waited for in vain."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.05)
    return found


def command_line(home: Path | None, *arguments: str) -> list[str]:
    """Return the command that a user types."""
    chosen = ["--home", str(home)] if home is not None else []
    return [sys.executable, str(PROJECT / "run.py"), *chosen, *arguments]


def clean_environment(**more: str) -> dict[str, str]:
    """Return an environment without any of Salamander's settings but ``more``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SALAMANDER_")}
    # Tables and error lines must not be wrapped or coloured for the terminal the tests may run in.
    return {**kept, "COLUMNS": "200", "NO_COLOR": "1", **more}


def run_command(
    home: Path | None,
    *arguments: str,
    text_in: str = "",
    environment: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; ``prefix`` runs it through another program (such as setpriv)."""
    return subprocess.run(
        [*prefix, *command_line(home, *arguments)],
        input=text_in,
        capture_output=True,
        text=True,
        timeout=_COMMAND_SECONDS,
        env=dict(environment) if environment is not None else clean_environment(),
        check=False,
    )


@dataclass(frozen=True)
class Refusal:
    """How a command refused: its exit status and its error as ``--json`` tells it."""

    status: int
    code: str
    sentence: str
    next_step: str


def refusal_of(finished: subprocess.CompletedProcess[str]) -> Refusal:
    """Return a ``--json`` refusal, having checked its form: one JSON line on standard error, status not 0."""
    assert finished.returncode != 0, finished.stdout
    assert "Traceback" not in finished.stderr
    lines = finished.stderr.splitlines()
    assert len(lines) == 1, finished.stderr
    told = json.loads(lines[0])
    return Refusal(finished.returncode, told["code"], told["error"], told["next_step"])


def error_line_of(finished: subprocess.CompletedProcess[str]) -> str:
    """Return a refusal meant for people, having checked its form: one line on standard error, status not 0."""
    assert finished.returncode != 0, finished.stdout
    lines = finished.stderr.splitlines()
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


class Daemon:
    """A home, the commands on it, and the daemon that runs there between ``start`` and ``stop``."""

    def __init__(self, home: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.home = Home(home)
        self.simulator = SimulatorClient(self.home.simulator)
        if settings:
            home.mkdir(mode=0o700, parents=True)
            lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
            self.home.configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._ports: set[tuple[str, int]] = set()
        self._processes: set[psutil.Process] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.stop()
        finally:
            left = self.kill_everything()
        if kind is None:
            assert not left, f"the daemon left processes behind: {left}"
            self.assert_nothing_is_left()

    # --- the daemon's life -------------------------------------------------------------------------------

    def start(self) -> None:
        self.ok("start", "--simulator")

    def stop(self) -> None:
        self.listening()
        self.ok("stop")

    @property
    def pid(self) -> int:
        """The watchdog's."""
        daemon = read_daemon_file(self.home)
        assert daemon is not None
        return daemon.pid

    def is_ready(self) -> bool:
        daemon = read_daemon_file(self.home)
        return daemon is not None and daemon.ready and process_is_alive(daemon.pid, daemon.process_started)

    def await_ready(self, seconds: float = 30.0) -> None:
        eventually(self.is_ready, seconds, "the fleet to be up")

    def listening(self) -> set[tuple[str, int]]:
        """Return the addresses that the daemon's processes listen on; remember them and the processes."""
        found = set()
        with contextlib.suppress(psutil.Error):
            watchdog = psutil.Process(self.pid)
            self._processes.update([watchdog, *watchdog.children(recursive=True)])
        for process in [each for each in self._processes if each.is_running()]:
            with contextlib.suppress(psutil.Error):
                for each in process.net_connections("inet"):
                    if each.status == psutil.CONN_LISTEN:
                        found.add((each.laddr.ip, each.laddr.port))
        self._ports |= found
        return found

    def assert_nothing_is_left(self) -> None:
        """Check that no process of the daemon lives and none of its ports answers."""
        assert not self._left()
        for address in self._ports:
            with socket.socket() as probe:
                probe.settimeout(1.0)
                answers = probe.connect_ex(address) == 0
            # Another daemon of a test that runs beside this one may have been given the port since.
            assert not (answers and self._is_ours(address)), f"something still listens on {address}"
        assert not self.home.daemon_file.exists()

    def _is_ours(self, address: tuple[str, int]) -> bool:
        """Return whether a process of this home listens there."""
        for each in psutil.net_connections("inet"):
            if each.status == psutil.CONN_LISTEN and each.laddr == address and each.pid is not None:
                with contextlib.suppress(psutil.Error):
                    process = psutil.Process(each.pid)
                    told = [*process.cmdline(), *process.environ().values()]
                    if not any(str(self.home.path) in word for word in told):
                        return False
                return True
        return True  # nobody can be seen there, so nobody can be ruled out

    def kill_everything(self) -> list[str]:
        """Kill what is left of the daemon and return its names."""
        left = []
        for process in self._left():
            with contextlib.suppress(psutil.Error):
                left.append(f"{process.name()} ({process.pid})")
                process.kill()
                process.wait(10)
        return left

    def _left(self) -> list[psutil.Process]:
        """Return the daemon's processes that still live: the marked ones, and PostgreSQL's, which carry no mark."""
        living = set(daemon_processes(self.home))
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    living.add(process)
        return list(living)

    # --- its processes -----------------------------------------------------------------------------------

    def process(self, name: str) -> psutil.Process:
        """Return a process by name; ``watchdog`` and ``postmaster`` are the daemon itself and PostgreSQL's head."""
        watchdog = psutil.Process(self.pid)
        if name == "watchdog":
            return watchdog
        wanted = "postgres" if name == "postmaster" else name[:15]  # the kernel keeps no more

        def look() -> psutil.Process | None:
            for process in watchdog.children(recursive=name != "postmaster"):
                with contextlib.suppress(psutil.Error):
                    if process.name() == wanted and process.status() != psutil.STATUS_ZOMBIE:
                        return process
            return None

        return eventually(look, 15, f"a process named {name}")

    def kill(self, name: str) -> int:
        """SIGKILL a process and return its pid once it is gone."""
        process = self.process(name)
        pid, began = process.pid, process.create_time()
        process.send_signal(signal.SIGKILL)

        def gone() -> bool:
            with contextlib.suppress(psutil.Error):
                again = psutil.Process(pid)
                return again.create_time() != began or again.status() == psutil.STATUS_ZOMBIE
            return True

        eventually(gone, 10, f"{name} to be gone")
        return pid

    # --- commands ----------------------------------------------------------------------------------------

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return run_command(self.home.path, *arguments, **options)

    def ok(self, *arguments: str, **options: Any) -> str:
        """Run a command that must succeed and return what it printed."""
        finished = self.run(*arguments, **options)
        assert finished.returncode == 0, f"{arguments}: {finished.stdout}{finished.stderr}"
        return finished.stdout

    def json(self, *arguments: str, **options: Any) -> Any:
        """Run a reading command with ``--json`` and return its one value."""
        return json.loads(self.ok(*arguments, "--json", **options))

    def json_lines(self, *arguments: str) -> list[Any]:
        """Run a command that prints one JSON value a line."""
        return [json.loads(line) for line in self.ok(*arguments, "--json").splitlines()]

    def refused(self, *arguments: str, **options: Any) -> Refusal:
        """Run a command with ``--json`` that must be refused."""
        return refusal_of(self.run(*arguments, "--json", **options))

    @contextlib.contextmanager
    def background(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command that goes on, its output in pipes; it is killed at the end of the block."""
        process = subprocess.Popen(
            command_line(self.home.path, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(),
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    # --- the fleet ---------------------------------------------------------------------------------------

    def fleet(self, timeout: float = 60.0) -> Fleet:
        return Fleet(self.home.path, timeout=timeout)

    def add_paired(self, name: str, phone: str) -> str:
        """Add a WhatsApp device, let the simulated phone link it, and return its JID once it is online."""
        with self.fleet() as fleet:
            fleet.add_device(name)
            return self.pair(fleet, name, phone)

    def pair(self, fleet: Fleet, name: str, phone: str) -> str:
        """Let a simulated phone scan the device's QR; return the JID once it is online."""
        self.simulator.add_phone(phone)
        fleet.tell_device(name, "pair")
        qr = eventually(lambda: fleet.device(name).pairing_qr, 60, f"{name} to show its QR")
        jid = self.simulator.scan(phone, qr)
        self.await_state(fleet, name, "online", 60)
        return jid

    def add_platform(self, name: str, platform: str) -> None:
        """Add a device of a loopback platform."""
        with self.fleet() as fleet:
            fleet.add_device(
                name,
                platform=platform,
                base_url=self.simulator.info()["platforms"][platform],
                credentials=DEFAULT_ACCOUNTS[platform],
            )

    def await_state(self, fleet: Fleet, name: str, state: str, seconds: float = 30.0) -> Any:
        """Wait until a device is in ``state`` and return it."""

        def look() -> Any:
            device = fleet.device(name)
            return device if device.state == state else None

        try:
            return eventually(look, seconds, f"{name} to be {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {fleet.device(name)}") from None

    def await_message(self, fleet: Fleet, message_id: int, states: str, seconds: float = 30.0) -> Any:
        """Wait until a message is in one of ``states`` (words) and return its row."""
        wanted = states.split()

        def look() -> Any:
            row = fleet.states([message_id])[message_id]
            return row if row["state"] in wanted else None

        try:
            return eventually(look, seconds, f"message {message_id} to be {states}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {fleet.message(message_id)}") from None

    def texts(self, number: str) -> list[str]:
        """Return the texts that a simulated phone decrypted, in order."""
        return [row["text"] for row in self.simulator.inbox(number)]

    def log_lines(self, containing: str) -> list[str]:
        """Return the events of the daemon's log that contain a text."""
        found = []
        for line in self.home.log_file.read_text(encoding="utf-8").splitlines():
            event = str(json.loads(line)["event"])
            if containing in event:
                found.append(event)
        return found

    def whatsmeow_sql(self, statement: str, *values: object) -> None:
        """Change whatsmeow's own tables behind everybody's back."""
        self._sql(whatsmeow_url, statement, values)

    def sql(self, statement: str, *values: object) -> None:
        """Change Salamander's tables behind everybody's back."""
        self._sql(database_url, statement, values)

    def rows(self, statement: str, *values: object) -> list[Row]:
        """Return what a query on Salamander's tables finds."""
        return self._sql(database_url, statement, values)

    def _sql(self, url_of: Callable[[Home, Settings], str], statement: str, values: tuple[object, ...]) -> list[Row]:
        database = SingleConnection(url_of(self.home, load_settings(self.home)))
        try:
            with database.transaction() as connection:
                done = connection.execute(statement.encode(), values)
                return done.fetchall() if done.description is not None else []
        finally:
            database.close()
