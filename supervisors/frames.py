"""Frames of the actor system: nothing is unpickled, or even kept, that was not sealed with our key.

A frame is what Thespian sends over a TCP connection: ``SIZE>`` and SIZE bytes. Ours begin with two proofs,
HMAC-SHA256 under keys derived from the installation's::

    SIZE > proof of the size (32 bytes) | proof of the body (32 bytes) | body (a pickle)

The first lets a stranger be turned away after a hundred bytes, however much he announces; the second comes
before unpickling, which can run any code. Neither hides the content nor stops a repetition of an old frame:
between hosts a private network is needed as well.
"""

from __future__ import annotations

import hmac
import pickle
from typing import Any

#: Length of the installation's key, in bytes.
KEY_LENGTH = 32
_PROOF_LENGTH = 32
_PROOFS_LENGTH = 2 * _PROOF_LENGTH
#: The largest frame, in bytes. The largest message of our own is a batch of 500 long texts (under 40 MB).
LARGEST_FRAME = 64 * 1024 * 1024
_MOST_DIGITS = len(str(LARGEST_FRAME))
#: What may be read before the size is known, in bytes: the size, and the proof of it. No frame is shorter.
_HEAD_LENGTH = _MOST_DIGITS + 1 + _PROOF_LENGTH


class FrameRefusedError(Exception):
    """A frame is not one of ours: its connection is closed without an answer."""


class FrameSeal:
    """Seals what is sent and checks what is received, with one key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_LENGTH:
            raise ValueError(f"a frame key has {KEY_LENGTH} bytes, not {len(key)}")
        self._size_key = hmac.digest(key, b"salamander frame size", "sha256")
        self._body_key = hmac.digest(key, b"salamander frame body", "sha256")

    def dumps(self, value: Any) -> bytes:
        """Return ``value`` pickled, behind its proofs.

        Raises:
            ValueError: it is larger than any receiver would take.

        """
        body = pickle.dumps(value)
        if _PROOFS_LENGTH + len(body) > LARGEST_FRAME:
            raise ValueError(f"a message of {len(body)} bytes is too large to be sent")
        return self._size_proof(_PROOFS_LENGTH + len(body)) + self._body_proof(body) + body

    @staticmethod
    def loads(body: bytes | memoryview) -> Any:
        """Return the value of a body that was checked (a FrameBuffer hands out no other)."""
        return pickle.loads(body)  # noqa: S301 - the proof of its origin was checked before

    def check_size(self, size: int, proof: bytes) -> None:
        """Raise FrameRefusedError unless ``proof`` proves ``size``."""
        if not hmac.compare_digest(self._size_proof(size), proof):
            raise FrameRefusedError("the size is not proved")

    def check_body(self, body: bytes | memoryview, proof: bytes) -> None:
        """Raise FrameRefusedError unless ``proof`` proves ``body``."""
        if not hmac.compare_digest(self._body_proof(body), proof):
            raise FrameRefusedError("the body is not proved")

    def _size_proof(self, size: int) -> bytes:
        return hmac.digest(self._size_key, str(size).encode(), "sha256")

    def _body_proof(self, body: bytes | memoryview) -> bytes:
        return hmac.digest(self._body_key, body, "sha256")


class FrameBuffer:
    """Collects one frame. It takes the place, and has the methods, of Thespian's ``ReceiveBuffer``.

    That one trusts what it reads: a negative size stops its actor, a missing ``>`` fills the memory.
    """

    def __init__(self, seal: FrameSeal, loads: Any = FrameSeal.loads) -> None:
        self._seal = seal
        self._loads = loads
        self._digits = b""
        self._size: int | None = None
        self._size_proved = False
        self._body_proved = False
        self._frame = bytearray()

    def addMore(self, received: bytes) -> None:  # noqa: N802 - Thespian's name
        """Take in what was received.

        Raises:
            FrameRefusedError: the frame is not one of ours.

        """
        if self._size is None:
            received = self._take_size(received)
        self._frame += received
        if self._size is None:
            return
        if not self._size_proved and len(self._frame) >= _PROOF_LENGTH:
            self._seal.check_size(self._size, bytes(self._frame[:_PROOF_LENGTH]))
            self._size_proved = True
        if len(self._frame) > self._size:
            raise FrameRefusedError("more bytes came than were announced")
        if len(self._frame) == self._size:
            proof = bytes(self._frame[_PROOF_LENGTH:_PROOFS_LENGTH])
            with memoryview(self._frame) as frame, frame[_PROOFS_LENGTH:] as body:
                self._seal.check_body(body, proof)
            self._body_proved = True

    def _take_size(self, received: bytes) -> bytes:
        """Read the size once it is complete. Returns what follows it."""
        digits, end, rest = (self._digits + received).partition(b">")
        if len(digits) > _MOST_DIGITS or not (digits + b"0").isdigit():
            raise FrameRefusedError("the size is no number")
        self._digits = digits
        if not end:
            return b""
        size = int(digits or b"0")
        if not _PROOFS_LENGTH < size <= LARGEST_FRAME:
            raise FrameRefusedError("the size is out of bounds")
        self._size = size
        return rest

    def remainingAmount(self) -> int:  # noqa: N802 - Thespian's name
        """Return how many bytes to read next: never past this frame, few before its size is proved."""
        if self._size is None:
            return _HEAD_LENGTH - len(self._digits)
        return (self._size if self._size_proved else _PROOF_LENGTH) - len(self._frame)

    def isDone(self) -> bool:  # noqa: N802 - Thespian's name
        """Tell whether the frame is complete (and thereby checked)."""
        return self._body_proved

    def completed(self) -> tuple[Any, bytes] | None:
        """Return the value and what came after its frame (always nothing), or None when it is incomplete."""
        if not self._body_proved:
            return None
        with memoryview(self._frame) as frame, frame[_PROOFS_LENGTH:] as body:
            return self._loads(body), b""

    def is_empty(self) -> bool:
        """Tell whether nothing was received."""
        return self._size is None and not self._digits

    def removeExtra(self) -> None:  # noqa: N802 - Thespian's name
        """Do nothing: nothing is ever read past the frame."""
