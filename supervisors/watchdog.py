"""The watchdog: the one process of a daemon that is nobody's actor. It keeps the actor system itself alive.

It owns what must outlive the actors (PostgreSQL, PgBouncer, the simulator), starts the actor system, and starts it
again when its Admin or root supervisor is gone or silent. It is a child subreaper without threads: whatever the daemon
leaves behind becomes its child, and it leaves nothing behind itself. When it is killed, everything dies with it; the
next start cleans up.
"""

from __future__ import annotations

import os
import signal
import time

from config.daemon import DaemonFile, read_daemon_file, write_daemon_file
from config.errors import SalamanderError
from config.home import Home
from config.logging import configure_logging, logger
from config.settings import Settings
from storage.database import SUPERVISOR_PATIENCE, SingleConnection, database_url
from storage.restarts import Restart, RestartJournal
from supervisors.daemon_lock import daemon_lock
from supervisors.policy import LONGEST_PROCESS_WAIT, Backoff, Trouble
from supervisors.processes import (
    become_subreaper,
    name_process,
    own_process_started,
    raise_descriptor_limit,
    reap,
    sweep,
)
from supervisors.shards_file import forget_shards_file
from supervisors.simulator_process import SimulatorProcess
from supervisors.storage_servers import StorageServers
from supervisors.system_head import SystemHead

#: How often the watchdog looks at what it keeps alive, in seconds.
_POLL_SECONDS = 0.2
#: How long the actors get to leave by themselves on `stop`, beyond the time for draining sends, in seconds.
_LEAVE_SECONDS = 5.0
#: Failures of the first start that only the operator can mend: told at once instead of tried again.
_FOR_THE_OPERATOR = frozenset({"configuration_invalid", "home_not_usable", "port_taken"})


class Watchdog:
    """Keeps one daemon alive until it is told to stop."""

    def __init__(self, home: Home, settings: Settings, *, simulator: bool) -> None:
        self._home = home
        self._settings = settings
        self._stop_asked = False
        self._simulator = SimulatorProcess(home, lambda: self._stop_asked) if simulator else None
        self._storage = StorageServers(home, settings)
        self._head = SystemHead(home, settings)
        self._journal: RestartJournal | None = None
        self._trouble = Trouble()
        longest = min(settings.backoff_longest_seconds, LONGEST_PROCESS_WAIT)
        self._backoff = Backoff(settings.backoff_first_seconds, longest)

    def run(self, *, echo: bool) -> None:
        """Run the daemon until SIGTERM or SIGINT.

        Raises:
            DaemonAlreadyRunning: another watchdog holds this home.
            SalamanderError: PostgreSQL or the simulator cannot be started.
        """
        with daemon_lock(self._home):
            configure_logging(self._home.log_file, self._settings.log_level, "watchdog", echo=echo)
            name_process("salamander")
            become_subreaper()
            raise_descriptor_limit()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, self._ask_to_stop)
            # A daemon that stops takes its file along; one that was killed leaves it.
            killed = read_daemon_file(self._home) is not None
            began = time.monotonic()
            left = sweep(self._home, spare=(os.getpid(),))
            if left:
                logger().warning("Killed what an earlier daemon left behind", processes=left)
            try:
                self._write_daemon_file(ready=False)
                self._start_ground()
                if killed:
                    self._record(
                        _started_again("watchdog", "watchdog", "killed", "It ended without being stopped.", began)
                    )
                self._run_system()
            finally:
                self._leave()

    def _ask_to_stop(self, _number: int, _frame: object) -> None:
        self._stop_asked = True

    # --- what the actors stand on ------------------------------------------------------------------------

    def _start_ground(self) -> None:
        """Start the simulator and the storage."""
        if self._simulator is not None:
            self._simulator.start()
        self._storage.start()
        # Its address is known only now: the way to the database leads over PgBouncer, if that runs.
        url = database_url(self._home, self._settings)
        self._journal = RestartJournal(SingleConnection(url, patience=SUPERVISOR_PATIENCE))

    def _keep_ground(self) -> None:
        """Start PostgreSQL, PgBouncer and the simulator again when they died."""
        for restart in self._storage.keep():
            self._record(restart)
        if self._simulator is not None and self._simulator.poll() is not None:
            began = time.monotonic()
            self._simulator.start()
            self._record(_started_again("simulator", "simulator", "exited", "Its process ended.", began))

    def _record(self, restart: Restart) -> None:
        if self._journal is not None:
            self._journal.record(restart)

    # --- the actor system --------------------------------------------------------------------------------

    def _run_system(self) -> None:
        """Run the actor system, again and again when its head falls, until a stop is asked for."""
        fell_at: float | None = None
        cause = ("", "")
        attempt = 0
        while not self._stop_asked:
            try:
                self._start_system()
            except Exception as error:
                if fell_at is None and isinstance(error, SalamanderError) and error.code in _FOR_THE_OPERATOR:
                    raise
                logger().error("The actor system did not start", reason=f"{type(error).__name__}: {error}")
                cause = ("start_failed", "It did not start.")
            else:
                if fell_at is not None:
                    self._record(_started_again("system", "actor system", *cause, fell_at, attempt))
                self._trouble.came_online(time.monotonic())
                cause = self._watch()
            if self._stop_asked:
                return
            fell_at = time.monotonic()
            attempt = self._trouble.next_attempt(fell_at, self._settings.stable_seconds)
            logger().warning("⚠️ The actor system is down; sweeping and starting again", cause=cause[1])
            self._write_daemon_file(ready=False)
            self._sweep_until_gone()
            self._wait(self._backoff.seconds(attempt, 0.5))

    def _start_system(self) -> None:
        forget_shards_file(self._home)
        self._head.start_admin()
        self._write_daemon_file(ready=False)
        self._head.start_fleet()

    def _watch(self) -> tuple[str, str]:
        """Watch until the system's head falls (return why) or a stop is asked for."""
        ready = False
        while not self._stop_asked:
            self._wait(_POLL_SECONDS)
            reap()
            self._keep_ground()
            if self._journal is not None:
                self._journal.flush()
            if (fallen := self._head.look()) is not None:
                return fallen
            if self._head.up and not ready:
                ready = True
                self._write_daemon_file(ready=True)
                logger().info("✅ The fleet is up")
        return "stopped", "A stop was asked for."

    def _wait(self, seconds: float) -> None:
        """Wait, but no longer than until a stop is asked for."""
        deadline = time.monotonic() + seconds
        while not self._stop_asked and time.monotonic() < deadline:
            time.sleep(min(0.05, max(0.0, deadline - time.monotonic())))

    # --- leaving -----------------------------------------------------------------------------------------

    def _sweep_actors(self) -> None:
        """Kill every process of the daemon but PostgreSQL, the simulator and the watchdog itself."""
        kept = (self._simulator.pid if self._simulator is not None else None, self._storage.postgres_pid)
        self._head.forget()
        sweep(self._home, spare=(os.getpid(), *(pid for pid in kept if pid is not None)))
        reap()

    def _sweep_until_gone(self) -> None:
        """Sweep until nothing is left: beside a client that lives none may be started, and giving up heals nothing.

        On a machine that is too busy, what was killed may take long to end.
        """
        while not self._stop_asked:
            try:
                self._sweep_actors()
            except SalamanderError as error:
                logger().error("What was killed is still there; it is swept again", reason=error.sentence)
            else:
                return

    def _leave(self) -> None:
        """Stop everything, in order, and leave no process, socket or file of the run behind."""
        logger().info("Stopping")
        self._head.leave(self._settings.drain_seconds + _LEAVE_SECONDS)
        self._sweep_actors()
        if self._simulator is not None:
            self._simulator.stop()
        self._storage.stop()
        self._home.daemon_file.unlink(missing_ok=True)
        logger().info("Stopped")

    def _write_daemon_file(self, *, ready: bool) -> None:
        write_daemon_file(
            self._home,
            DaemonFile(
                pid=os.getpid(),
                process_started=own_process_started(),
                bind_address=self._settings.bind_address,
                port=self._head.port,
                ready=ready,
                simulator=self._simulator is not None,
            ),
        )


def _started_again(what: str, name: str, code: str, cause: str, since: float, attempt: int = 1) -> Restart:
    return Restart(what, name, code, cause, "started it again", "ok", time.monotonic() - since, attempt)
