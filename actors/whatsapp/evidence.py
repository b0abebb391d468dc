"""What became of an attempt that nobody answered: decided by evidence, never by hope.

Each attempt's message carries a fresh 32-byte secret, committed in the outbox first. whatsmeow stores that secret
with the message id before it encrypts and sends. So no stored secret means that the attempt never left; a stored one
gives the message id, by which a later receipt settles it. The one gap (the store itself failed, the library only warns
and sends anyway) is closed by a journal that the library's warning writes to, synchronously, before encryption.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Verdict(Enum):
    """What the evidence says."""

    NEVER_LEFT = "never_left"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """The verdict on one attempt, with the WhatsApp message id if it is known."""

    verdict: Verdict
    message_id: str | None = None


class SecretJournal:
    """Message ids that the library sent although it could not store their secret, by attempt.

    One small file a device; each line is durable before the library goes on.
    """

    def __init__(self, directory: Path, device_id: int) -> None:
        self._path = directory / f"device-{device_id}.secrets"

    def write(self, attempt_id: int, message_id: str) -> None:
        """Note, durably, that ``attempt_id`` is being sent as ``message_id`` without a stored secret."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # It begins a line of its own, whatever a full disk has cut off before.
            line = f"\n{attempt_id} {message_id}\n".encode()
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def message_id_of(self, attempt_id: int) -> str | None:
        """Return the message id noted for an attempt, if one was."""
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return None
        for line in reversed(lines):
            noted, _, message_id = line.partition(" ")
            if noted == str(attempt_id) and message_id:
                return message_id
        return None


def weigh(stored_message_id: str | None, journal_message_id: str | None, *, store_intact: bool = True) -> Finding:
    """Return what a stored secret and a journal entry (each None when absent) say about a finished attempt.

    ``store_intact`` says that the sender's session is in the store: with a logout, the library deletes the session and
    every secret of it, and then a missing one proves nothing.
    """
    message_id = stored_message_id or journal_message_id
    if message_id is None and store_intact:
        return Finding(Verdict.NEVER_LEFT)
    return Finding(Verdict.UNKNOWN, message_id)
