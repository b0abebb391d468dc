"""The end of the log file, and what is added to it: read from the back, whatever its size, and across a rotation."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

#: Of the file's end at most so much is read to begin with, and of what was added at most so much at a time, in bytes.
_END = 512 * 1024
_PIECE = 256 * 1024


class LogTail:
    """Reads a log file that others append to.

    Args:
        path: the file; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = -1
        self._position = 0
        self._rest = b""

    def latest(self, lines: int) -> list[dict[str, Any]]:
        """Return the last records, oldest first, and go on from there."""
        try:
            size = self._path.stat().st_size
        except OSError:
            return []
        self._inode = -1
        found = self._read(max(0, size - _END), size)
        return found[-lines:]

    def more(self) -> list[dict[str, Any]]:
        """Return the records that were added since the last look."""
        return self._read(self._position, None)

    def _read(self, start: int, end: int | None) -> list[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                about = os.fstat(file.fileno())
                if self._inode not in {-1, about.st_ino} or about.st_size < start:
                    start, self._rest = 0, b""  # another file has taken its place, or it was emptied
                began_within = self._inode == -1 and start > 0
                self._inode = about.st_ino
                file.seek(start)
                piece = file.read(_PIECE if end is None else end - start)
        except OSError:
            return []
        self._position = start + len(piece)
        *whole, self._rest = (self._rest + piece).split(b"\n")
        return [record for line in whole[began_within:] if (record := _record(line)) is not None]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
