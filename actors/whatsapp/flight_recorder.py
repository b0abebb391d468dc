"""What a shard was doing inside the native library, for the one who finds it dead.

A native crash takes the whole process and names nobody. So each device notes, in a small file, that it enters the
library and that it came back; after a crash the fleet's supervisor reads who was inside, and moves a device that was
there again and again into a shard of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

FILE_NAME = "inside"


class FlightRecorder:
    """Notes which devices are inside the library. Surviving the process is enough; the machine may forget."""

    def __init__(self, directory: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._descriptor = os.open(directory / FILE_NAME, flags, 0o600)
        self._inside: Counter[int] = Counter()

    @contextlib.contextmanager
    def inside(self, device_id: int) -> Iterator[None]:
        """Note that a device is inside the library for the time of the block."""
        self._inside[device_id] += 1
        self._write()
        try:
            yield
        finally:
            self._inside[device_id] -= 1
            if not self._inside[device_id]:
                del self._inside[device_id]
            self._write()

    def _write(self) -> None:
        text = " ".join(map(str, self._inside)).encode() + b"\n"
        with contextlib.suppress(OSError):  # a full disk must not stop a send
            os.pwrite(self._descriptor, text, 0)
            os.ftruncate(self._descriptor, len(text))


def read_suspects(directory: Path) -> set[int]:
    """Return the devices that were inside the library when the shard of ``directory`` ended."""
    try:
        return {int(word) for word in (directory / FILE_NAME).read_text(encoding="ascii").split()}
    except (OSError, ValueError):
        return set()
