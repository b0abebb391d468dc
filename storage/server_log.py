"""The embedded server's output: a file of limited size, and what to quote of it when a start fails."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from typing import TYPE_CHECKING

from config.errors import StorageUnavailable

if TYPE_CHECKING:
    from pathlib import Path

#: The size at which the file is set aside as ``<name>.1`` (replacing the one before), in bytes.
LARGEST_LOG = 8 * 1024 * 1024
#: How often a running server's file is looked at, in seconds.
_LOOK_SECONDS = 30.0
#: How much of the end is read to find the reason of a failure, in bytes.
_TAIL = 64 * 1024
#: Below this much free space a failed start is explained by the full disk: one segment of the write-ahead log
#: is 16 MB. PostgreSQL cannot always say so itself, for its output goes to the same disk.
_FULL_DISK_BYTES = 20 * 1024 * 1024
_NO_ROOM_WORDS = ("No space left on device", "Disk quota exceeded")


class ServerLog:
    """A file that the server appends to through a descriptor it inherits.

    PostgreSQL's own logging collector limits files by age only, and is one process more; so the daemon sets
    the file aside by copying and emptying it, which is safe because every writer appends.
    """

    def __init__(self, path: Path, largest: int = LARGEST_LOG) -> None:
        self.path = path
        self._largest = largest
        self._mark = 0
        self._looked = 0.0

    def open(self) -> int:
        """Open the file for a new server's output, which begins here; the caller closes the descriptor."""
        self._limit()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._mark = os.fstat(descriptor).st_size
        return descriptor

    def limit(self) -> None:
        """Set the file aside when it has grown too large; cheap enough to be called in every poll."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._limit()

    def since_start(self) -> str:
        """Return what has been written since ``open``, at most its last 64 kB."""
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(self._mark if self._mark <= size else 0, size - _TAIL))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def _limit(self) -> None:
        aside = self.path.with_name(f"{self.path.name}.1")
        with contextlib.suppress(OSError):  # a log is never a reason to fail
            if self.path.stat().st_size <= self._largest:
                return
            aside.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # no room for a copy: then the more reason to empty it
                shutil.copyfile(self.path, aside)
                aside.chmod(0o600)
            os.truncate(self.path, 0)


def explain(what: str, directory: Path, log: ServerLog) -> StorageUnavailable:
    """Return the error for a failed start: the full disk if that is the reason, else PostgreSQL's own words.

    Args:
        what: what failed, as the beginning of a sentence.
        directory: where the server keeps its data.
        log: what PostgreSQL wrote.

    """
    output = log.since_start()
    if shutil.disk_usage(directory).free < _FULL_DISK_BYTES or any(words in output for words in _NO_ROOM_WORDS):
        return disk_full(directory)
    reason = reason_in(output) or "it gave no reason"
    return StorageUnavailable(f"{what} in {directory}: {reason}.", f"Read {log.path}.")


def disk_full(directory: Path) -> StorageUnavailable:
    """Return the error for a disk without room for PostgreSQL."""
    return StorageUnavailable(
        f"The disk that holds {directory} is full, so PostgreSQL cannot start.",
        "Free some space, then start again.",
        code="disk_full",
    )


def reason_in(output: str) -> str:
    """Return the most telling line of PostgreSQL's output, without time and process id; else nothing.

    Later lines merely follow from the first severe one (``FATAL: … shutting down``).
    """
    for pattern in (r"PANIC|FATAL|initdb: error", r"ERROR|could not"):
        for line in output.splitlines():
            if found := re.search(rf"(?:{pattern}).*", line):
                return re.sub(r"^(?:PANIC|FATAL|ERROR|initdb: error):\s*", "", found[0]).strip().rstrip(".")
    return ""
