"""One process at a time runs the embedded server of a directory, and ends what an earlier one left behind."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
from typing import TYPE_CHECKING

import psutil

from config.errors import StorageUnavailable
from storage.postgres_process import kill, processes_in, wait_gone

if TYPE_CHECKING:
    from pathlib import Path

    from storage.embedded_layout import Layout

#: How long a server that was told to stop may take before it is killed, in seconds.
SHUTDOWN_SECONDS = 15.0
#: How long what is left of a creation that was cut short may take before it is killed, in seconds.
CREATION_GRACE_SECONDS = 3.0
#: The directories locked in this process, each with the process's id (a forked child has none).
_taken: set[tuple[int, Path]] = set()


class DirectoryLock:
    """The right to run the server of one directory, until released or until the process ends.

    It is a POSIX lock: forked children do not inherit it, so an actor that outlives its daemon keeps nobody
    out. Such a lock does not tell two holders inside one process apart, and closing the file a second time
    would lose it, so the directories taken by this process are noted as well.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._descriptor = -1
        self._note = (0, layout.directory)

    @property
    def held(self) -> bool:
        """Whether this very process (not the one it was forked from) holds the lock."""
        return self._note[0] == os.getpid()

    def take(self) -> None:
        """Take the lock, or keep it.

        Raises:
            StorageUnavailable: another process holds it.
            OSError: the lock file cannot be written.

        """
        if self.held:
            return
        note = (os.getpid(), self._layout.directory)
        if note in _taken:
            raise self._in_use(str(os.getpid()))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._layout.lock, flags, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except OSError as error:
            holder = os.read(descriptor, 32).decode("utf-8", "replace").strip()
            os.close(descriptor)
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
            raise self._in_use(holder or "?") from None
        self._descriptor = descriptor
        self._note = note
        _taken.add(note)

    def release(self) -> None:
        """Give the lock up; do nothing when it is not held."""
        if self.held:
            os.close(self._descriptor)
            _taken.discard(self._note)
            self._note = (0, self._layout.directory)

    def _in_use(self, holder: str) -> StorageUnavailable:
        return StorageUnavailable(
            f"The embedded PostgreSQL in {self._layout.directory} is already run by process {holder}.",
            "Stop that daemon with: run.py stop, or use another --home.",
            code="postgres_in_use",
        )


def end_predecessor(layout: Layout) -> None:
    """End what still runs of an earlier server, and remove what would make PostgreSQL believe that it runs.

    Call it with the lock held: then no living daemon needs what is found. A server whose daemon was killed is
    shutting down already, or (where the system does not tell it) is told now.

    Raises:
        StorageUnavailable: a process survives being killed.
        OSError: a leftover cannot be removed.

    """
    noted = layout.process_file_lines()[:1]
    for process in processes_in([layout.data]):
        if str(process.pid) in noted:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGINT)
            wait_gone(process, SHUTDOWN_SECONDS)
    # Without its master, a creation under way ends by itself; killed, it would leave shared memory behind.
    for process in processes_in([layout.unfinished_data]):
        wait_gone(process, CREATION_GRACE_SECONDS)
    end_everything(layout)
    # The noted process id may be a zombie's by now, or somebody else's; PostgreSQL would refuse to start for
    # either.
    socket_lock = layout.socket.with_name(f"{layout.socket.name}.lock")
    for leftover in (layout.process_file, layout.socket, socket_lock):
        leftover.unlink(missing_ok=True)


def end_everything(layout: Layout) -> None:
    """Kill every process of the server, or of its creation, that is left.

    Back-ends whose postmaster is dead may run on for a whole query, and would keep a new one from starting.

    Raises:
        StorageUnavailable: a process survives being killed.

    """
    kill(processes_in([layout.data, layout.unfinished_data]))
