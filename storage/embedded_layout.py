"""What the embedded server keeps on disk, and the URL its clients reach it by.

::

    <directory>/               0700, ours
        lock                   held while a daemon uses the directory; names its process
        password               0600, ours: the superuser's password
        postgresql.log         0600, ours: the server's output
        pgdata/                0700, the server's account: the data directory
            s/                 0700: the socket, and PgBouncer's
        pgbouncer/             0700, the server's account: PgBouncer's configuration, when it runs
        pgdata.init/           a data directory being created; worthless until renamed to pgdata
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import sys
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from config.errors import HomeNotUsable, StorageUnavailable

#: The server has no TCP port; the number is merely part of its socket's name.
PORT = 5432
#: The same for PgBouncer's socket.
POOLER_PORT = 6432
#: The server's only role: everything in its databases is ours.
SUPERUSER = "postgres"
#: The socket's directory, relative to the data directory, which is the server's working directory. So the
#: server can bind it however long the home's path is.
SOCKET_DIRECTORY = "s"
SOCKET_NAME = f".s.PGSQL.{PORT}"
#: The longest path a unix socket may be reached by, in bytes (``sun_path`` without its closing zero).
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103


@dataclass(frozen=True)
class Layout:
    """The paths of one embedded server. Nothing is created by merely naming them."""

    directory: Path

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Return the layout of ``directory`` by its real path, so that all agree on the socket."""
        return cls(Path(os.path.realpath(directory)))

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "pgdata"

    @property
    def unfinished_data(self) -> Path:
        """A data directory whose creation is under way, or was cut short."""
        return self.directory / "pgdata.init"

    @property
    def password(self) -> Path:
        """The superuser's password."""
        return self.directory / "password"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the server."""
        return self.directory / "lock"

    @property
    def log(self) -> Path:
        """The server's output."""
        return self.directory / "postgresql.log"

    @property
    def socket(self) -> Path:
        """The server's socket."""
        return self.data / SOCKET_DIRECTORY / SOCKET_NAME

    @property
    def pooler(self) -> Path:
        """PgBouncer's configuration."""
        return self.directory / "pgbouncer"

    @property
    def pooler_socket(self) -> Path:
        """PgBouncer's socket; it is there while PgBouncer is."""
        return self.data / SOCKET_DIRECTORY / f".s.PGSQL.{POOLER_PORT}"

    @property
    def process_file(self) -> Path:
        """PostgreSQL's own note of its process id and state."""
        return self.data / "postmaster.pid"

    def process_file_lines(self) -> list[str]:
        """Return the lines of PostgreSQL's own note, stripped; none when it is not there."""
        try:
            text = self.process_file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line.strip() for line in text.splitlines()]

    def data_major(self) -> int | None:
        """Return the major version of PostgreSQL that wrote the data, or None when there is none yet.

        Raises:
            StorageUnavailable: the data directory holds something else.

        """
        if not self.data.exists():
            return None
        try:
            return int((self.data / "PG_VERSION").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            raise StorageUnavailable(
                f"{self.data} holds no usable PostgreSQL data.",
                "Restore it from a backup, or move it away to begin with empty tables.",
            ) from None


def pooler_is_there(directory: Path) -> bool:
    """Return whether the embedded server in ``directory`` has a PgBouncer before it."""
    return Layout.of(directory).pooler_socket.exists()


def embedded_url(directory: Path, database: str, *, port: int = PORT) -> str:
    """Return the URL of a database of the embedded server in ``directory``, from what is on disk.

    The form is understood by libpq (psycopg) and by Go's lib/pq (whatsmeow). It holds the password. The
    server need not run, and the database need not exist. ``port``: ``POOLER_PORT`` leads through PgBouncer.

    Raises:
        StorageUnavailable: no server was ever set up there.
        HomeNotUsable: the directory may not be read.

    """
    layout = Layout.of(directory)
    try:
        password = layout.password.read_text(encoding="utf-8")
        owner = layout.directory.stat().st_uid
    except FileNotFoundError:
        raise StorageUnavailable(
            f"No embedded PostgreSQL has been set up in {directory}.",
            "Start the daemon once (run.py start), or restore the directory from a backup.",
            code="postgres_not_set_up",
        ) from None
    except OSError as error:
        raise HomeNotUsable(directory, error.strerror or type(error).__name__) from error
    host = urllib.parse.quote(os.fsencode(_socket_host(layout, owner)))
    return (
        f"postgres://{SUPERUSER}:{urllib.parse.quote(password, safe='')}"
        f"@/{urllib.parse.quote(database, safe='')}?host={host}&port={port}"
    )


def create_directory(directory: Path) -> None:
    """Create the server's directory, for us alone.

    Raises:
        HomeNotUsable: somebody else owns it, who could read or replace the data.
        OSError: it cannot be created.

    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = directory.stat().st_uid
    if owner != os.geteuid():
        raise HomeNotUsable(directory, f"it belongs to user id {owner}, but this process runs as {os.geteuid()}")
    directory.chmod(0o700)


def create_password(layout: Layout) -> str:
    """Write a new random password (0600) in place of an old one, and return it."""
    password = secrets.token_urlsafe(32)
    fresh = layout.password.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(password)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(layout.password)
    return password


def create_short_way(layout: Layout) -> None:
    """Link to the socket's directory from a private one when its own path is too long for clients.

    Raises:
        StorageUnavailable: the private directory is not ours.
        OSError: the link cannot be made.

    """
    if _fits(layout.socket):
        return
    link = _short_way(layout, os.geteuid())
    with contextlib.suppress(FileExistsError):
        link.parent.mkdir(mode=0o700)
    _refuse_unless_private(link.parent, os.geteuid())
    target = str(layout.socket.parent)
    with contextlib.suppress(FileNotFoundError):
        if os.readlink(link) == target:  # noqa: PTH115  (compares the text, whatever it leads to)
            return
        link.unlink()
    link.symlink_to(target)


def remove_short_way(layout: Layout) -> None:
    """Remove the link made by ``create_short_way``, and its directory when no other home uses it."""
    if _fits(layout.socket):
        return
    link = _short_way(layout, os.geteuid())
    with contextlib.suppress(OSError):
        link.unlink()
        link.parent.rmdir()


def _socket_host(layout: Layout, owner: int) -> Path:
    """Return the directory to name as host: the socket's own, or the short way to it."""
    if _fits(layout.socket):
        return layout.socket.parent
    link = _short_way(layout, owner)
    with contextlib.suppress(FileNotFoundError):  # not there: then the server does not run
        _refuse_unless_private(link.parent, owner)
    return link


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH


def _short_way(layout: Layout, owner: int) -> Path:
    """Return a path that all processes derive alike, whatever their environment."""
    digest = hashlib.sha256(os.fsencode(layout.directory)).hexdigest()[:16]
    return Path(f"/tmp/salamander-{owner}") / digest  # noqa: S108  (a directory of ours alone, which is verified)


def _refuse_unless_private(directory: Path, owner: int) -> None:
    """Refuse a directory in which somebody else could put a socket of theirs in place of ours."""
    status = directory.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == owner and not status.st_mode & 0o077:
        return
    raise StorageUnavailable(
        f"The directory {directory} is not a private directory of user id {owner}, and the home's path is "
        "too long for a socket.",
        f"Remove {directory}, or choose a shorter --home.",
    )
