"""Receipts that are on their way into PostgreSQL, kept where a killed process leaves them.

The library acknowledges a receipt before anybody could record it, and the server then forgets it. So each receipt is
written to a small file the moment it arrives, and struck out when its row is committed; what a killed process left is
read by the next. Surviving the process is enough: nothing is forced to disk.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from actors.whatsapp.events import ReceiptReceived


class ReceiptJournal:
    """The receipts of one device that are not recorded yet."""

    def __init__(self, directory: Path, device_id: int) -> None:
        self._path = directory / f"device-{device_id}.receipts"
        self._open = 0

    def note(self, receipt: ReceiptReceived) -> None:
        """Note a receipt that has just arrived. A full disk loses the note, never the receipt itself."""
        self._open += 1
        line = "\t".join([receipt.kind, receipt.chat, receipt.sender, str(receipt.timestamp), *receipt.message_ids])
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, (line + "\n").encode())
            finally:
                os.close(descriptor)

    def recorded(self) -> None:
        """Note that a receipt is recorded; when it was the last one that was not, the file is emptied."""
        self._open -= 1
        if self._open <= 0:
            self._open = 0
            with contextlib.suppress(OSError):
                os.truncate(self._path, 0)

    def left_behind(self) -> list[ReceiptReceived]:
        """Return what an earlier process noted and did not record. A torn last line is passed over."""
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        receipts = []
        for line in text.splitlines(keepends=True):
            kind, *rest = line.rstrip("\n").split("\t")
            if line.endswith("\n") and len(rest) > 3 and rest[2].isdigit():
                chat, sender, timestamp, *message_ids = rest
                receipts.append(ReceiptReceived(tuple(message_ids), kind, chat, sender, int(timestamp)))
        return receipts
