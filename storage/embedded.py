"""The embedded PostgreSQL server: the default for everyone who does not bring a database of their own."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from config.errors import HomeNotUsable, StorageUnavailable
from storage.embedded_creation import create_data
from storage.embedded_layout import (
    SUPERUSER,
    Layout,
    create_directory,
    create_short_way,
    embedded_url,
    remove_short_way,
)
from storage.embedded_ownership import SHUTDOWN_SECONDS, DirectoryLock, end_everything, end_predecessor
from storage.embedded_settings import SETTINGS_FILE, write_settings
from storage.locate_postgres import Programs, locate_programs
from storage.postgres_process import Account, server_account, spawn, way_to
from storage.server_log import ServerLog, disk_full, explain
from storage.shared_programs import SHARED_PROGRAMS, programs_for

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EmbeddedPostgres", "embedded_url"]

#: How long a start may take, in seconds (measured: 0.05 to 0.3; longer when much has to be recovered).
START_SECONDS = 300.0
_POLL_SECONDS = 0.01
_CONNECT_SECONDS = 10
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class EmbeddedPostgres:
    """One PostgreSQL server, run as a direct child of the daemon.

    ``start`` creates what is missing and cleans up after whatever ended the last server: an orderly stop, its
    own death, a killed daemon, a cut power cord. The same call starts it for the first time and again after
    ``poll`` told that it died. When the daemon is killed, Linux tells the server to shut down (elsewhere, the
    next start ends it).

    Call everything from the main thread of one process without other threads. Children forked from that
    process may use ``embedded_url`` only. Reaping children with ``waitpid(-1)`` between the calls is fine
    (``poll`` then reports status 0), from a signal handler it is not.

    Args:
        directory: where the server keeps everything; created when missing.
        programs: the directory of PostgreSQL's programs; None finds them.
        max_connections: how many clients may be connected at once.
        log_file: where its output goes; None: ``postgresql.log`` in ``directory``.
        user: the account it runs as when we are root (PostgreSQL refuses root).
        shared_programs: where root may put a copy of the programs for that account.

    """

    def __init__(
        self,
        directory: Path,
        *,
        programs: Path | None = None,
        max_connections: int = 200,
        log_file: Path | None = None,
        user: str = "nobody",
        shared_programs: Path = SHARED_PROGRAMS,
    ) -> None:
        self._layout = Layout.of(directory)
        self._configured_programs = programs
        self._max_connections = max_connections
        self._log = ServerLog(log_file or self._layout.log)
        self._user = user
        self._shared_programs = shared_programs
        self._lock = DirectoryLock(self._layout)
        self._programs: Programs | None = None
        self._process: subprocess.Popen[str] | None = None

    @property
    def directory(self) -> Path:
        """Where the server keeps everything."""
        return self._layout.directory

    @property
    def pid(self) -> int | None:
        """The process id of the server started last, until ``stop``."""
        return self._process.pid if self._process else None

    def url(self, database: str) -> str:
        """Return the URL of a database, password included; see ``embedded_url``."""
        return embedded_url(self.directory, database)

    def start(self) -> None:
        """Start the server and return when it accepts connections; do nothing when it runs.

        Raises:
            HomeNotUsable: the directory cannot be created or written.
            ConfigurationInvalid: the configured programs or account cannot be used.
            StorageUnavailable: anything else; the sentence holds PostgreSQL's own words where there are some.

        """
        if self._process is not None and self._process.poll() is None:
            return
        try:
            self._prepare_and_launch()
        except OSError as error:
            self._give_up()
            if error.errno in _NO_ROOM:
                raise disk_full(self.directory) from error
            raise HomeNotUsable(self.directory, error.strerror or type(error).__name__) from error
        except BaseException:
            self._give_up()
            raise

    def poll(self) -> int | None:
        """Return None while the server runs, else its exit status (negative: the signal that killed it).

        Does not block. It also limits the log and keeps the way to the socket open, so call it regularly.

        Raises:
            StorageUnavailable: no server was ever started.

        """
        if self._process is None:
            raise StorageUnavailable("The embedded PostgreSQL has not been started.")
        status = self._process.poll()
        if status is None:
            self._log.limit()
            with contextlib.suppress(OSError, StorageUnavailable):
                create_short_way(self._layout)
        return status

    def stop(self, timeout_seconds: float = SHUTDOWN_SECONDS) -> None:
        """Shut the server down, and leave no process of it; do nothing when it is stopped.

        Open transactions are rolled back.

        Args:
            timeout_seconds: how long an orderly shutdown may take before the server is killed (what is
                committed survives that, too).

        Raises:
            StorageUnavailable: a process survives being killed.

        """
        if self._process is None or not self._lock.held:
            return  # never started, or the last start failed and has cleaned up; or a forked child asks
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_seconds)
        end_everything(self._layout)
        self._process.wait()
        self._process = None
        remove_short_way(self._layout)
        self._lock.release()

    def ensure_database(self, name: str) -> None:
        """Create the database ``name`` unless it exists.

        Raises:
            StorageUnavailable: the server does not answer or cannot create it.

        """
        url = self.url(SUPERUSER)
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_SECONDS) as connection:
                known = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name])
                if known.fetchone() is None:
                    with contextlib.suppress(psycopg.errors.DuplicateDatabase):
                        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.Error as error:
            words = " ".join(str(error).split()).rstrip(".")
            raise StorageUnavailable(
                f"The database {name} could not be created: {words}.", f"Read {self._log.path}."
            ) from error

    def _give_up(self) -> None:
        self._programs = None  # looked up again: they may have been upgraded under us
        self._lock.release()

    def _prepare_and_launch(self) -> None:
        layout = self._layout
        create_directory(layout.directory)
        self._lock.take()
        end_predecessor(layout)
        account = server_account(layout.data, self._user)
        if self._programs is None:
            located = locate_programs(self._configured_programs, data_major=layout.data_major())
            self._programs = programs_for(located, account, self._shared_programs)
        if not layout.data.exists():
            create_data(layout, self._programs, account, self._log)
        elif not layout.password.exists():
            raise StorageUnavailable(
                f"The password file {layout.password} is missing.",
                "Restore it from a backup; nobody can open the existing data without it.",
            )
        write_settings(layout, account, self._max_connections)
        create_short_way(layout)
        self._launch(self._programs, account)

    def _launch(self, programs: Programs, account: Account | None) -> None:
        output = self._log.open()
        try:
            with way_to(self._layout.data, account) as way:
                self._process = spawn(
                    [programs.postgres, "-D", way.name, "-c", f"config_file={way.name}/{SETTINGS_FILE}"],
                    way.start_in,
                    account,
                    death_signal=signal.SIGINT,
                    output=output,
                    inherited=way.descriptors,
                )
        finally:
            os.close(output)
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._process.kill()
            self._process.wait()
            end_everything(self._layout)
            raise

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + START_SECONDS
        what = f"PostgreSQL did not start within {START_SECONDS:.0f} s"
        while time.monotonic() < deadline:
            # The eighth line tells the state (source: PostgreSQL, src/include/utils/pidfile.h).
            lines = self._layout.process_file_lines()
            if lines[:1] == [str(process.pid)] and lines[7:8] == ["ready"]:
                return
            if process.poll() is not None:
                what = "PostgreSQL did not start"
                break
            time.sleep(_POLL_SECONDS)
        raise explain(what, self.directory, self._log)
