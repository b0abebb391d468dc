"""The server's side of a WebSocket (RFC 6455), as little of it as the web client uses."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct

_ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
#: Longest message taken; the client's own limit for one frame is 16 MB.
LONGEST_MESSAGE = 1 << 24


class WebSocketClosed(Exception):
    """The client closed the WebSocket or broke its rules."""


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> WebSocket:
    """Read the upgrade request and agree to it, without any extension.

    Raises:
        WebSocketClosed: the request is no WebSocket upgrade; it was answered 400.
    """
    request = await reader.readuntil(b"\r\n\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in request.split(b"\r\n")[1:])
    }
    key = headers.get(b"sec-websocket-key")
    if key is None or headers.get(b"upgrade", b"").lower() != b"websocket":
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        raise WebSocketClosed("no WebSocket upgrade")
    # RFC 6455 prescribes SHA-1 here; it proves that the peer speaks the protocol, nothing more.
    digest = hashlib.sha1(key + _ACCEPT_SUFFIX, usedforsecurity=False).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
    return WebSocket(reader, writer)


class WebSocket:
    """An accepted WebSocket carrying binary messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._close_sent = False

    async def receive(self) -> bytes:
        """Return the next message; pings are answered on the way.

        Raises:
            WebSocketClosed: the client sent a close frame (it was echoed) or broke the protocol.
            asyncio.IncompleteReadError: the connection ended.
        """
        message = b""
        while True:
            final, operation, data = await self._frame()
            if operation == _CLOSE:
                self._echo_close(data)
                raise WebSocketClosed("closed by the client")
            if operation == _PING:
                self._send(_PONG, data)
            elif operation in (_CONTINUATION, _BINARY, _TEXT):
                message += data
                if len(message) > LONGEST_MESSAGE:
                    raise WebSocketClosed("a message is too long")
                if final:
                    return message

    def send(self, *messages: bytes) -> None:
        """Send binary messages, all in one write (buffered; never blocks)."""
        self._send(_BINARY, *messages)

    async def _frame(self) -> tuple[bool, int, bytes]:
        first, second = await self._reader.readexactly(2)
        length = second & 127
        if length == 126:
            length = int.from_bytes(await self._reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self._reader.readexactly(8), "big")
        if not second & 128 or first & 0x70 or length > LONGEST_MESSAGE:
            raise WebSocketClosed("a client's frame must be masked, plain and of a reasonable length")
        mask = await self._reader.readexactly(4)
        return bool(first & 128), first & 15, _unmask(await self._reader.readexactly(length), mask)

    def _send(self, operation: int, *messages: bytes) -> None:
        if not self._close_sent and not self._writer.is_closing():
            self._writer.write(b"".join(_header(operation, len(data)) + data for data in messages))

    def _echo_close(self, data: bytes) -> None:
        self._send(_CLOSE, data[:2])
        self._close_sent = True


def _header(operation: int, length: int) -> bytes:
    if length < 126:
        return bytes([128 | operation, length])
    if length < 1 << 16:
        return bytes([128 | operation, 126]) + struct.pack(">H", length)
    return bytes([128 | operation, 127]) + struct.pack(">Q", length)


def _unmask(data: bytes, mask: bytes) -> bytes:
    """Undo the client's masking; one big number is far faster than a loop over bytes."""
    length = len(data)
    if not length:
        return data
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")
