"""PostgreSQL's wire protocol (version 3), as far as a pooler must understand it. Pure: bytes in, bytes out.

Source: PostgreSQL's manual, chapter "Frontend/Backend Protocol".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from config.errors import SalamanderError

#: What stands in place of a version in a client's first packet.
VERSION_3 = 196_608
SSL_REQUEST = 80_877_103
GSS_REQUEST = 80_877_104
CANCEL_REQUEST = 80_877_102
#: A first packet is never longer than this, in bytes.
_LONGEST_STARTUP = 10_000
#: No message may be longer than this, in bytes: a broken length must not fill the memory.
_LONGEST_MESSAGE = 256 << 20

#: A server is ready for the next query, and in no transaction.
IDLE = ord("I")
_READY = ord("Z")
_SYNC = ord("S")
_QUERY = ord("Q")
_TERMINATE = ord("X")
_PASSWORD = ord("p")


class NotTheProtocol(SalamanderError):
    """What came is not PostgreSQL's protocol."""

    code = "not_the_protocol"

    def __init__(self) -> None:
        super().__init__("What came is not PostgreSQL's protocol.")


@dataclass(frozen=True)
class Startup:
    """A client's first packet: what it asks for, and with which parameters."""

    request: int
    parameters: dict[str, str]


def take_startup(buffer: bytearray) -> Startup | None:
    """Take the first packet out of ``buffer``; None: it is not complete yet.

    Raises:
        NotTheProtocol: it is none.
    """
    if len(buffer) < 8:
        return None
    length, request = struct.unpack_from("!ii", buffer)
    if not 8 <= length <= _LONGEST_STARTUP:
        raise NotTheProtocol
    if len(buffer) < length:
        return None
    words = bytes(buffer[8:length]).split(b"\0")
    del buffer[:length]
    names = [word.decode(errors="replace") for word in words]
    return Startup(request, dict(zip(names[::2], names[1::2], strict=False)))


def take_password(buffer: bytearray) -> bytes | None:
    """Take a password message out of ``buffer``; None: it is not complete yet.

    Raises:
        NotTheProtocol: it is another message.
    """
    if len(buffer) < 5:
        return None
    kind, length = struct.unpack_from("!Bi", buffer)
    if kind != _PASSWORD or not 4 <= length <= _LONGEST_STARTUP:
        raise NotTheProtocol
    if len(buffer) < length + 1:
        return None
    password = bytes(buffer[5 : length + 1]).rstrip(b"\0")
    del buffer[: length + 1]
    return password


@dataclass(frozen=True)
class Portion:
    """Complete messages, to be passed on as they are, and what they mean for whoever passes them on.

    Attributes:
        data: the messages.
        questions: how many of them ask the server to say when it is ready (Sync and Query).
        readies: how many of them say so.
        status: what the last of those says: ``I`` for no transaction, ``T`` or ``E`` for one.
        open_ended: whether the last of them belongs to a question that is not complete.
        farewell: whether the client takes its leave.
    """

    data: bytes
    questions: int = 0
    readies: int = 0
    status: int | None = None
    open_ended: bool = False
    farewell: bool = False


class Messages:
    """Cuts one direction of a stream into portions of complete messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes, *, from_client: bool) -> Portion:
        """Take what arrived; return what is complete now.

        Raises:
            NotTheProtocol: a message has an impossible length.
        """
        buffer = self._buffer
        buffer += data
        position = questions = readies = 0
        status: int | None = None
        open_ended = farewell = False
        while len(buffer) - position >= 5:
            kind, length = struct.unpack_from("!Bi", buffer, position)
            if not 4 <= length <= _LONGEST_MESSAGE:
                raise NotTheProtocol
            end = position + 1 + length
            if end > len(buffer):
                break
            if from_client:
                if kind == _TERMINATE:
                    farewell = True
                    break
                open_ended = kind not in {_SYNC, _QUERY}
                questions += not open_ended
            elif kind == _READY:
                readies += 1
                status = buffer[end - 1]
            position = end
        complete = bytes(buffer[:position])
        del buffer[:position]
        return Portion(complete, questions, readies, status, open_ended, farewell)


def ask_password() -> bytes:
    """Return the request for a password in clear (the connection never leaves the machine)."""
    return _message("R", struct.pack("!i", 3))


def welcome(parameters: dict[str, str]) -> bytes:
    """Return what a client is told when it is let in: the server's parameters, and that it may ask.

    The key for cancelling is an empty one: nobody can cancel anything.
    """
    told = b"".join(_message("S", f"{name}\0{value}\0".encode()) for name, value in parameters.items())
    key = _message("K", bytes(8))
    return _message("R", struct.pack("!i", 0)) + told + key + _message("Z", b"I")


def refusal(code: str, sentence: str) -> bytes:
    """Return a fatal error with an SQLSTATE."""
    fields = (("S", "FATAL"), ("V", "FATAL"), ("C", code), ("M", sentence))
    return _message("E", b"".join(f"{kind}{value}\0".encode() for kind, value in fields) + b"\0")


def _message(kind: str, body: bytes) -> bytes:
    return kind.encode() + struct.pack("!i", len(body) + 4) + body
