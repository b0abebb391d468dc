"""PgBouncer before the embedded server: any number of clients share a bounded number of connections to PostgreSQL.

The WhatsApp library keeps connections of its own for each client and never closes them; for thousands of clients
PostgreSQL would spend its time on making processes. PgBouncer lends each transaction one of a few connections.

It listens in the directory of the server's own socket, which is private, and asks for the server's password besides;
it has no TCP port. Clients must not rely on a session: no named prepared statements, no settings, no LISTEN.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config.errors import ConfigurationInvalid, StorageUnavailable
from storage.embedded_layout import POOLER_PORT, PORT, SOCKET_DIRECTORY, SUPERUSER, Layout
from storage.postgres_process import Account, give_to, server_account, spawn

#: Where Debian puts the program, which is on no ordinary user's path.
_USUAL_PLACES = ("/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer")
#: How long a start and a stop may take, in seconds (measured: 0.02).
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.01
#: Clients at once, at most; descriptors bound them, too.
_MOST_CLIENTS = 20_000
#: Connections for each database, at most: more than the cores can use only wait for each other.
_MOST_EACH = 20
#: Of the configured number of connections so many are left for whoever connects directly: router, migrations, people.
RESERVED = 10

_TEMPLATE = """\
;; Rewritten at each start of Salamander.
[databases]
{databases}

[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {socket_directory}
unix_socket_mode = 0700
auth_type = md5
auth_file = {directory}/userlist.txt

pool_mode = transaction
max_client_conn = {clients}
default_pool_size = {pool_size}
max_db_connections = {pool_size}

; What drivers ask for at the start; each database's connections are set to it once, below.
ignore_startup_parameters = extra_float_digits,options

; A server that is away is told at once and tried again soon; nobody waits for it in a queue.
server_connect_timeout = 5
server_login_retry = 1
query_wait_timeout = 15
; As for direct clients: a client that was killed or hangs holds its row locks no longer than this.
idle_transaction_timeout = 60
server_idle_timeout = 60
; The library leaks two connections at each refresh of a device; its drivers bear that idle ones are closed.
client_idle_timeout = 60

log_connections = 0
log_disconnections = 0
stats_period = 3600
"""


@dataclass(frozen=True)
class PooledDatabase:
    """A database that clients reach through PgBouncer, and how long a statement on it may take (milliseconds)."""

    name: str
    statement_milliseconds: int


def locate_pgbouncer(configured: str) -> Path | None:
    """Return PgBouncer's program: ``auto`` finds it or gives None, ``off`` gives None, else it is a path.

    Raises:
        ConfigurationInvalid: there is no program at the path.
    """
    if configured == "off":
        return None
    if configured == "auto":
        found = shutil.which("pgbouncer") or next((each for each in _USUAL_PLACES if os.access(each, os.X_OK)), None)
        return Path(found) if found else None
    if not os.access(configured, os.X_OK):
        raise ConfigurationInvalid(
            f"There is no program {configured}.", "Correct the setting pgbouncer: auto, off, yours or a path."
        )
    return Path(configured)


def pool_size(connections: int, databases: int) -> int:
    """Return how many of so many connections each database gets."""
    return max(1, min(_MOST_EACH, (connections - RESERVED) // databases))


def pooled_connections(connections: int) -> int:
    """Return how many of so many connections PgBouncer opens, at most, for our two databases together."""
    return 2 * pool_size(connections, 2)


class PgBouncer:
    """One PgBouncer, run as a direct child of the daemon beside its embedded server.

    Call everything from the main thread of a process without other threads: when it ends, PgBouncer ends with it.

    Args:
        directory: the embedded server's.
        program: what to run.
        databases: what clients may reach.
        connections: how many connections to PostgreSQL there may be, those of others included.
        log_file: where its output goes.
        user: the account it runs as when we are root (it refuses root); the server's.
    """

    def __init__(
        self,
        directory: Path,
        program: Path,
        databases: tuple[PooledDatabase, ...],
        *,
        connections: int,
        log_file: Path,
        user: str = "nobody",
    ) -> None:
        self._layout = Layout.of(directory)
        self._program = program
        self._databases = databases
        self._connections = connections
        self._log_file = log_file
        self._user = user
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the one started last, until ``stop``."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it and return when it accepts connections; do nothing when it runs.

        Raises:
            StorageUnavailable: it does not start; the sentence holds its own words.
        """
        if self._process is not None and self._process.poll() is None:
            return
        account = server_account(self._layout.data, self._user)
        said_before = self._log_file.stat().st_size if self._log_file.exists() else 0
        output = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            with _ways(self._layout, account) as (own, data):
                self._write_settings(own, data, account)
                self._process = spawn(
                    [self._program, f"/proc/self/fd/{own}/pgbouncer.ini"],
                    Path("/"),
                    account,
                    death_signal=signal.SIGKILL,
                    output=output,
                    inherited=(own, data),
                )
        except OSError as error:
            raise StorageUnavailable(f"PgBouncer could not be prepared: {error.strerror}.") from error
        finally:
            os.close(output)
        self._wait_until_ready(self._process, said_before)

    def poll(self) -> int | None:
        """Return None while it runs, else its exit status."""
        return self._process.poll() if self._process is not None else 0

    def stop(self) -> None:
        """End it and remove its socket; its clients' connections break."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
            self._process.kill()
            self._process.wait()
            self._process = None
        forget_pooler(self._layout.directory)

    def _write_settings(self, own: int, data: int, account: Account | None) -> None:
        """Write the configuration for a process that inherits these two directories.

        Raises:
            OSError: it cannot be written.
        """
        password = self._layout.password.read_text(encoding="utf-8")
        size = pool_size(self._connections, len(self._databases))
        server = f"host=/proc/self/fd/{data}/{SOCKET_DIRECTORY} port={PORT} user={SUPERUSER} password='{password}'"
        lines = [
            f"{each.name} = {server} dbname={each.name} connect_query='set statement_timeout to"
            f" {each.statement_milliseconds}; set synchronous_commit to on'"
            for each in self._databases
        ]
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        text = _TEMPLATE.format(
            databases="\n".join(lines),
            port=POOLER_PORT,
            socket_directory=f"/proc/self/fd/{data}/{SOCKET_DIRECTORY}",
            directory=f"/proc/self/fd/{own}",
            clients=max(100, min(_MOST_CLIENTS, soft - 200)),
            pool_size=size,
        )
        _write_private(self._layout.pooler / "pgbouncer.ini", text, account)
        _write_private(self._layout.pooler / "userlist.txt", f'"{SUPERUSER}" "{password}"\n', account)

    def _wait_until_ready(self, process: subprocess.Popen[str], said_before: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if _answers(self._layout):
                return
            time.sleep(_POLL_SECONDS)
        process.kill()
        process.wait()
        said = self._log_file.read_bytes()[said_before:].decode(errors="replace").strip().splitlines()
        raise StorageUnavailable(
            f"PgBouncer did not start: {said[-1] if said else 'it said nothing'}.", f"Read {self._log_file}."
        )


def forget_pooler(directory: Path) -> None:
    """Remove what a PgBouncer that is gone left: clients of the embedded server then connect directly."""
    Layout.of(directory).pooler_socket.unlink(missing_ok=True)


@contextlib.contextmanager
def _ways(layout: Layout, account: Account | None) -> Iterator[tuple[int, int]]:
    """Open the directory of the configuration and that of the data, for a process that inherits them.

    The kernel's links to them lead there however long the path is, and whatever the account may enter above.
    """
    layout.pooler.mkdir(mode=0o700, exist_ok=True)
    give_to(account, layout.pooler)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        opened = []
        for directory in (layout.pooler, layout.data):
            opened.append(os.open(directory, flags))
            stack.callback(os.close, opened[-1])
        yield opened[0], opened[1]


def _write_private(path: Path, text: str, account: Account | None) -> None:
    """Replace a file by one that only the account may read; the old one is never followed or written into."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    give_to(account, fresh)
    fresh.replace(path)


def _answers(layout: Layout) -> bool:
    """Return whether somebody accepts connections at the socket."""
    descriptor = os.open(layout.data, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(f"/proc/self/fd/{descriptor}/{SOCKET_DIRECTORY}/{layout.pooler_socket.name}")
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
