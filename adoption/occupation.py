"""Whether somebody else uses a SQLite file at this moment: who has it open, who locks it, when it was written."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from contextlib import suppress
from pathlib import Path

#: A file written less long ago than this counts as in use, in seconds.
QUIET_SECONDS = 10.0
#: What SQLite keeps beside a database: the write-ahead log and its index, and the rollback journal.
SUFFIXES = ("-wal", "-shm", "-journal")
#: The bytes that SQLite locks in the database file (sqlite.org/lockingv3.html), and in the index of its log.
_LOCKED_IN_DATABASE = (0x40000000, 512)
_LOCKED_IN_INDEX = (120, 8)
#: ``struct flock`` of 64-bit Linux: type, whence, start, length, process.
_FLOCK = struct.Struct("hhqqi4x")

HOW_JUDGED = (
    f"no other process has it open (/proc), nobody locks it, and it was not written for {QUIET_SECONDS:.0f} seconds"
)


def signs_of_life(database: Path) -> list[str]:
    """Return why a SQLite database seems to be in use, a sentence each."""
    files = [each for each in (database, *(_beside(database, suffix) for suffix in SUFFIXES)) if each.exists()]
    signs = [f"{who} has it open." for who in _holders(files)]
    if not signs and _is_locked(database):
        # In another container, or of another user: its process cannot be seen, its lock can.
        signs.append("A process that cannot be seen from here holds a lock on it.")
    age = time.time() - max(each.stat().st_mtime for each in files)
    if age < QUIET_SECONDS:
        signs.append(f"It was written {max(0.0, age):.0f} seconds ago (wait until {QUIET_SECONDS:.0f} have passed).")
    return signs


def _beside(database: Path, suffix: str) -> Path:
    return database.with_name(database.name + suffix)


def _holders(files: list[Path]) -> list[str]:
    """Return the other processes that have one of these files open, as far as they may be looked into."""
    wanted = {(each.stat().st_dev, each.stat().st_ino) for each in files}
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid() and _has_open(process, wanted):
            with suppress(OSError):
                found.append(f"{(process / 'comm').read_text().strip()} (process {process.name})")
    return found


def _has_open(process: Path, wanted: set[tuple[int, int]]) -> bool:
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                status = descriptor.stat()
                if (status.st_dev, status.st_ino) in wanted:
                    return True
    return False


def _is_locked(database: Path) -> bool:
    """Return whether some process locks the database. Only asks; no lock is taken."""
    index = _beside(database, "-shm")
    return _asks_locked(database, *_LOCKED_IN_DATABASE) or (index.exists() and _asks_locked(index, *_LOCKED_IN_INDEX))


def _asks_locked(path: Path, start: int, length: int) -> bool:
    with path.open("rb") as file:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        answer = fcntl.fcntl(file, fcntl.F_GETLK, asked)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
