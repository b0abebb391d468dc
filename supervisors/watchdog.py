"""The watchdog: the one process of a daemon that is nobody's actor. It keeps the actor system itself alive.

It owns what must outlive the actors (PostgreSQL, PgBouncer, the simulator), starts the actor system, and starts it
again when its Admin or root supervisor is gone or silent. It is a child subreaper without threads: whatever the daemon
leaves behind becomes its child, and it leaves nothing behind itself. When it is killed, everything dies with it; the
next start cleans up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

from actors.messages import Ping, Pong, StartChild, StopChild
from config.daemon import DaemonFile, exec_environment, read_daemon_file, write_daemon_file
from config.errors import DaemonAlreadyRunning, SalamanderError, StorageUnavailable
from config.home import DAEMON_VARIABLE, Home
from config.logging import configure_logging, logger
from config.settings import Settings
from storage.connection_cap import shard_connections
from storage.database import (
    SALAMANDER_DATABASE,
    STATEMENT_MILLISECONDS,
    SUPERVISOR_PATIENCE,
    WHATSMEOW_DATABASE,
    SingleConnection,
    connect,
    database_url,
    whatsmeow_url,
)
from storage.embedded import EmbeddedPostgres
from storage.events import keep_clock
from storage.migrate import migrate
from storage.pgbouncer import PgBouncer, PooledDatabase, forget_pooler, locate_pgbouncer
from storage.restarts import Restart, RestartJournal
from supervisors.actor_system import admin_pid, admin_port, ask, disconnect, lookup, start_actor_system
from supervisors.policy import LONGEST_PROCESS_WAIT, Backoff, Trouble
from supervisors.processes import (
    become_subreaper,
    die_with_parent,
    name_process,
    own_process_started,
    process_is_alive,
    process_started,
    raise_descriptor_limit,
    reap,
    sweep,
)
from supervisors.pulse import Pulse, patience
from supervisors.shards_file import forget_shards_file

#: How often the watchdog looks at what it keeps alive, in seconds.
_POLL_SECONDS = 0.2
#: How often it asks the root supervisor whether it lives, how long it waits, and how many misses it bears.
_PING_SECONDS = 2.0
_PING_WAIT_SECONDS = 3.0
_PING_MISSES = 3
#: How long the actors get to leave by themselves on `stop`, beyond the time for draining sends, in seconds.
_LEAVE_SECONDS = 5.0
#: Failures of the first start that only the operator can mend: told at once instead of tried again.
_FOR_THE_OPERATOR = frozenset({"configuration_invalid", "home_not_usable", "port_taken"})
#: Connections beyond the configured ones that the embedded server takes: people's, and those of a start.
_DIRECT_CONNECTIONS = 50
#: How long a statement of the WhatsApp library may take, in milliseconds: it has no deadlines of its own.
_LIBRARY_STATEMENT_MILLISECONDS = 60_000
#: How long the simulator may take to be ready, in seconds.
_SIMULATOR_SECONDS = 30.0


def ensure_environment(home: Home, *, simulator: bool) -> None:
    """Replace this process by itself with the environment that the daemon's processes need, unless it has it.

    Go reads the environment as it was at ``exec``; the simulator's proxy must stand there before.
    """
    proxy = ca_file = None
    if simulator:
        from simulator.whatsapp.authority import prepare_authority  # noqa: PLC0415 - only when it is switched on

        ca_file = prepare_authority(home.simulator).ca_file
        proxy = os.environ.get("HTTPS_PROXY", "")
        if os.environ.get("SALAMANDER_SIMULATOR") != str(home.simulator):
            proxy = f"http://127.0.0.1:{_free_port('127.0.0.1')}"
    wanted = exec_environment(home, daemon_variable=DAEMON_VARIABLE, proxy=proxy, ca_file=ca_file)
    if any(os.environ.get(name) != value for name, value in wanted.items()) or set(wanted) != set(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)  # noqa: S606 - ourselves, no shell


class Watchdog:
    """Keeps one daemon alive until it is told to stop."""

    def __init__(self, home: Home, settings: Settings, *, simulator: bool) -> None:
        self._home = home
        self._settings = settings
        self._with_simulator = simulator
        self._port = settings.admin_port
        self._stop_asked = False
        self._simulator: subprocess.Popen[bytes] | None = None
        self._postgres: EmbeddedPostgres | None = None
        if settings.database_url is None:
            self._postgres = EmbeddedPostgres(
                home.postgres,
                programs=settings.postgres_programs,
                max_connections=settings.database_connections + _DIRECT_CONNECTIONS,
            )
        self._pgbouncer = _pgbouncer_before(home, settings) if self._postgres is not None else None
        self._system: Any = None
        self._fleet: Any = None
        self._fleet_process: tuple[int, float] = (0, 0.0)
        self._admin_process: tuple[int, float] = (0, 0.0)
        self._journal: RestartJournal | None = None
        self._trouble = Trouble()
        longest = min(settings.backoff_longest_seconds, LONGEST_PROCESS_WAIT)
        self._backoff = Backoff(settings.backoff_first_seconds, longest)
        self._next_ping = 0.0
        self._misses = 0
        self._pulse = Pulse()

    def run(self, *, echo: bool) -> None:
        """Run the daemon until SIGTERM or SIGINT.

        Raises:
            DaemonAlreadyRunning: another watchdog holds this home.
            SalamanderError: PostgreSQL or the simulator cannot be started.
        """
        with _daemon_lock(self._home):
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
                    self._record("watchdog", "watchdog", "killed", "It ended without being stopped.", began)
                self._run_system()
            finally:
                self._leave()

    def _ask_to_stop(self, _number: int, _frame: object) -> None:
        self._stop_asked = True

    # --- what the actors stand on ------------------------------------------------------------------------

    def _start_ground(self) -> None:
        """Start the simulator and PostgreSQL, and bring both schemas up to date."""
        if self._with_simulator:
            self._start_simulator()
        if self._postgres is not None:
            self._postgres.start()
            self._postgres.ensure_database(SALAMANDER_DATABASE)
            self._postgres.ensure_database(WHATSMEOW_DATABASE)
            forget_pooler(self._home.postgres)
        url = database_url(self._home, self._settings)
        for name in migrate(url):
            logger().info("Applied a migration", migration=name)
        with connect(url) as connection:
            if keep_clock(connection):
                logger().warning("PostgreSQL was restored from a backup; the order of events goes on where it was")
        from actors.whatsapp.session import migrate_store  # noqa: PLC0415 - only the watchdog needs it

        migrate_store(whatsmeow_url(self._home, self._settings))
        self._start_pgbouncer()
        url = database_url(self._home, self._settings)
        self._journal = RestartJournal(SingleConnection(url, patience=SUPERVISOR_PATIENCE))

    def _start_pgbouncer(self) -> None:
        """Put PgBouncer before the embedded server; one that was only found may fail: then all connect directly."""
        if self._pgbouncer is not None:
            try:
                self._pgbouncer.start()
            except StorageUnavailable as error:
                if self._settings.pgbouncer != "auto":
                    raise
                logger().warning("PgBouncer is not used", reason=error.sentence)
                self._pgbouncer.stop()
                self._pgbouncer = None
        if self._pgbouncer is None and self._postgres is not None:
            shard_connections(self._settings.database_connections, self._settings.max_shards)  # refuses what cannot be

    def _start_simulator(self) -> None:
        port = os.environ["HTTPS_PROXY"].rsplit(":", 1)[-1]
        described = self._home.simulator / "simulator.json"
        described.unlink(missing_ok=True)
        output = os.open(self._home.logs / "simulator.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        watchdog = os.getpid()
        self._simulator = subprocess.Popen(
            [sys.executable, "-m", "simulator", str(self._home.simulator), "--proxy-port", port],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the watchdog, which stops it in its turn
            cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),  # noqa: PTH100, PTH120 - the project
            preexec_fn=lambda: die_with_parent(watchdog),  # noqa: PLW1509 - this process has no threads
        )
        os.close(output)
        deadline = time.monotonic() + _SIMULATOR_SECONDS
        while not described.exists() and not self._stop_asked:
            if self._simulator.poll() is not None or time.monotonic() > deadline:
                raise SalamanderError(
                    "The simulator did not start.",
                    f"See {self._home.logs / 'simulator.log'}.",
                    code="simulator",
                )
            time.sleep(0.02)

    def _keep_ground(self) -> None:
        """Start PostgreSQL and the simulator again when they died."""
        if self._postgres is not None and self._postgres.poll() is not None:
            started = time.monotonic()
            logger().warning("⚠️ PostgreSQL is down", status=self._postgres.poll())
            try:
                self._postgres.start()
            except SalamanderError as error:
                logger().error("PostgreSQL cannot be started", reason=error.sentence)
                time.sleep(1.0)
                return
            self._record("postgres", "embedded", "exited", "Its process ended.", started)
        if self._pgbouncer is not None and self._pgbouncer.poll() is not None:
            started = time.monotonic()
            logger().warning("⚠️ PgBouncer is down", status=self._pgbouncer.poll())
            try:
                self._pgbouncer.start()
            except SalamanderError as error:
                logger().error("PgBouncer cannot be started", reason=error.sentence)
                time.sleep(1.0)
                return
            self._record("pgbouncer", "pgbouncer", "exited", "Its process ended.", started)
        if self._simulator is not None and self._simulator.poll() is not None:
            started = time.monotonic()
            self._start_simulator()
            self._record("simulator", "simulator", "exited", "Its process ended.", started)

    def _record(self, what: str, name: str, code: str, cause: str, started: float, attempt: int = 1) -> None:
        if self._journal is not None:
            self._journal.record(
                Restart(
                    what=what,
                    name=name,
                    cause_code=code,
                    cause=cause,
                    attempt=attempt,
                    tried="started it again",
                    outcome="ok",
                    seconds=time.monotonic() - started,
                )
            )

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
                    self._record("system", "actor system", *cause, fell_at, attempt)
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
        self._system = start_actor_system(self._home, self._settings.bind_address, self._settings.admin_port)
        self._port = admin_port(self._system)
        self._write_daemon_file(ready=False)
        admin = admin_pid(self._system)
        self._admin_process = (admin, process_started(admin) or 0.0)
        self._fleet = self._system.createActor("supervisors.fleet.FleetSupervisor", globalName="fleet")
        owner = f"fleet/{uuid.uuid4().hex}"
        self._system.tell(self._fleet, StartChild("fleet", "fleet", owner))
        answer = ask(self._system, self._fleet, Ping(), self._settings.child_start_seconds)
        if not isinstance(answer, Pong):
            raise SalamanderError("The root supervisor did not answer.", "See run.py logs.")
        self._fleet_process = (answer.pid, answer.process_started)
        self._misses = 0
        self._next_ping = 0.0
        logger().info("The actor system is up", admin=self._admin_process[0], fleet=answer.pid, port=self._port)

    def _watch(self) -> tuple[str, str]:
        """Watch until the system's head falls (return why) or a stop is asked for."""
        ready = False
        while not self._stop_asked:
            self._wait(_POLL_SECONDS)
            reap()
            self._keep_ground()
            if self._journal is not None:
                self._journal.flush()
            if not process_is_alive(*self._admin_process):
                return "admin_died", "Thespian's Admin ended."
            if not process_is_alive(*self._fleet_process):
                return "fleet_died", "The root supervisor ended."
            now = time.monotonic()
            if now < self._next_ping:
                continue
            self._next_ping = now + (_PING_SECONDS if ready else _POLL_SECONDS)
            answer = ask(self._system, self._fleet, Ping(), _PING_WAIT_SECONDS)
            fleet_answers = isinstance(answer, Pong)
            if isinstance(answer, Pong) and self._admin_answers():
                self._misses = 0
                if answer.detail == "up" and not ready:
                    ready = True
                    self._write_daemon_file(ready=True)
                    logger().info("✅ The fleet is up")
            else:
                self._misses += 1
                silent, _ = self._admin_process if fleet_answers else self._fleet_process
                if self._misses >= patience(_PING_MISSES, works=self._pulse.beats(silent)):
                    return "silent", "The actor system's head stopped answering."
        return "stopped", "A stop was asked for."

    def _admin_answers(self) -> bool:
        """Return whether Thespian's Admin still answers: without it no client finds the router."""
        try:
            lookup(self._system, "fleet", _PING_WAIT_SECONDS)
        except SalamanderError:
            return False
        return True

    def _wait(self, seconds: float) -> None:
        """Wait, but no longer than until a stop is asked for."""
        deadline = time.monotonic() + seconds
        while not self._stop_asked and time.monotonic() < deadline:
            time.sleep(min(0.05, max(0.0, deadline - time.monotonic())))

    # --- leaving -----------------------------------------------------------------------------------------

    def _sweep_actors(self) -> None:
        """Kill every process of the daemon but PostgreSQL, the simulator and the watchdog itself."""
        spare = [os.getpid()]
        if self._simulator is not None:
            spare.append(self._simulator.pid)
        if self._postgres is not None and self._postgres.pid is not None:
            spare.append(self._postgres.pid)
        if self._system is not None:
            with contextlib.suppress(Exception):
                disconnect(self._system)
            self._system = None
        sweep(self._home, spare=spare)
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
        if self._system is not None and self._fleet is not None:
            with contextlib.suppress(Exception):
                self._system.tell(self._fleet, StopChild())
            self._await_children(self._settings.drain_seconds + _LEAVE_SECONDS)
            with contextlib.suppress(Exception):
                self._system.shutdown()
        self._sweep_actors()
        if self._simulator is not None:
            self._simulator.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._simulator.wait(5)
            self._simulator.kill()
            self._simulator.wait()
        if self._pgbouncer is not None:
            self._pgbouncer.stop()
        if self._postgres is not None:
            with contextlib.suppress(SalamanderError):
                self._postgres.stop()
        self._home.daemon_file.unlink(missing_ok=True)
        logger().info("Stopped")

    def _await_children(self, seconds: float) -> None:
        """Wait until the root supervisor's children left by themselves, or time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            reap()
            if not _has_children(self._fleet_process[0]):
                return
            time.sleep(0.05)

    def _write_daemon_file(self, *, ready: bool) -> None:
        write_daemon_file(
            self._home,
            DaemonFile(
                pid=os.getpid(),
                process_started=own_process_started(),
                bind_address=self._settings.bind_address,
                port=self._port,
                ready=ready,
                simulator=self._with_simulator,
            ),
        )


def _pgbouncer_before(home: Home, settings: Settings) -> PgBouncer | None:
    program = locate_pgbouncer(settings.pgbouncer)
    if program is None:
        return None
    return PgBouncer(
        home.postgres,
        program,
        (
            PooledDatabase(SALAMANDER_DATABASE, STATEMENT_MILLISECONDS),
            PooledDatabase(WHATSMEOW_DATABASE, _LIBRARY_STATEMENT_MILLISECONDS),
        ),
        connections=settings.database_connections,
        log_file=home.logs / "pgbouncer.log",
    )


@contextlib.contextmanager
def _daemon_lock(home: Home) -> Iterator[None]:
    """Hold the home's daemon lock. It is a POSIX lock: forked children do not inherit it, death releases it."""
    descriptor = os.open(home.daemon_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        daemon = read_daemon_file(home)
        raise DaemonAlreadyRunning(home.path, daemon.pid if daemon else None) from None
    try:
        yield
    finally:
        os.close(descriptor)


def is_locked(home: Home) -> bool:
    """Return whether a watchdog holds this home's lock (it may still be starting or stopping)."""
    try:
        descriptor = os.open(home.daemon_lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _has_children(pid: int) -> bool:
    import psutil  # noqa: PLC0415

    try:
        return bool(psutil.Process(pid).children())
    except psutil.Error:
        return False


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
