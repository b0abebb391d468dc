"""One client's connection to the WebSocket host: frames in and out, faults on the way, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from pyaileys.proto import WAProto_pb2 as schema

from config.logging import logger
from simulator.whatsapp import binary_xml, stanzas, websocket
from simulator.whatsapp.faults import SLOW_SECONDS
from simulator.whatsapp.nodes import MalformedStanza, Node
from simulator.whatsapp.noise import CONNECTION_HEADER, HandshakeRefused, NoiseCipher, NoiseResponder
from simulator.whatsapp.pairing import WAITING_SECONDS

if TYPE_CHECKING:
    from simulator.whatsapp.network import Network
    from simulator.whatsapp.records import Companion

#: How long the upgrade and the handshake may take together.
_HANDSHAKE_SECONDS = 20.0
#: How long a connection stays open after its last stanza: a client drops what it has queued when the
#: connection closes, and would not see that stanza.
_LINGER_SECONDS = 2.0


class Connection:
    """A client's connection. ``companion`` is set once it has logged in, ``live`` while it counts as online.

    ``half_open`` marks one that was there when that fault was set: a dead socket says nothing about the next one.
    """

    def __init__(self, network: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.companion: Companion | None = None
        self.live = False
        self.half_open = False
        self._network = network
        self._reader = reader
        self._writer = writer
        self._socket: websocket.WebSocket | None = None
        self._incoming: NoiseCipher | None = None
        self._outgoing: NoiseCipher | None = None
        self._buffer = bytearray()
        self._ending = False
        # While the connection is half-open, both directions wait here.
        self._unread: list[Node] = []
        self._unsent: list[Node] = []

    @property
    def hung_up(self) -> bool:
        """Whether the client has closed its side already."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def run(self) -> None:
        """Serve the client until either side ends the connection."""
        self._network.opened(self)
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                noise, payload = await self._handshake()
            self._network.admit(self, noise, payload)
            async with asyncio.timeout(None if self.companion else WAITING_SECONDS) as deadline:
                while True:
                    stanza = await self._receive()
                    if self._ending:
                        continue
                    if self.companion:
                        deadline.reschedule(None)
                    self._take(stanza)
        except (MalformedStanza, HandshakeRefused) as error:
            self._network.statistics.count("protocol_errors")
            logger().warning("a client broke the protocol", error=str(error), jid=self._name)
            await self._say_goodbye()
        except (
            OSError,
            EOFError,
            TimeoutError,
            websocket.WebSocketClosed,
            asyncio.LimitOverrunError,
        ) as error:
            logger().debug("connection ended", error=repr(error), jid=self._name)
        finally:
            self._network.closed(self)
            self._writer.close()

    def send(self, *outgoing: Node) -> None:
        """Send stanzas, as the faults that are set allow."""
        if self._held_back:
            self._unsent += outgoing
        elif self._network.faults.active("slow", self._key):
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._write, *outgoing)
        else:
            self._write(*outgoing)

    def resume(self) -> None:
        """Go on after a fault ended: read and send what waited."""
        if self._held_back or not (self._unread or self._unsent):
            return
        unsent, self._unsent = self._unsent, []
        self.send(*unsent)
        unread, self._unread = self._unread, []
        try:
            for stanza in unread:
                self._take(stanza)
        except MalformedStanza:
            self.reset()

    def finish(self) -> None:
        """End the connection after its last stanza: wait for the client to close, but not long."""
        if not self._ending:
            self._ending = True
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._close)

    def reset(self) -> None:
        """Cut the connection at once, with a TCP reset."""
        self._network.closed(self)
        raw: socket.socket | None = self._writer.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                # Lingering for zero seconds makes the kernel send RST instead of FIN.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    @property
    def _key(self) -> tuple[str, int] | None:
        return self.companion.key if self.companion else None

    @property
    def _name(self) -> str:
        return str(self.companion.jid) if self.companion else "not logged in"

    @property
    def _held_back(self) -> bool:
        return self.half_open and self._network.faults.active("half-open", self._key)

    def _take(self, stanza: Node) -> None:
        if self._held_back:
            self._unread.append(stanza)
        else:
            self._network.handle(self, stanza)

    def _close(self) -> None:
        self._network.closed(self)
        self._writer.close()

    async def _handshake(self) -> tuple[bytes, schema.ClientPayload]:
        """Upgrade to a WebSocket and go through the Noise handshake; return the client's key and payload."""
        self._socket = await websocket.accept(self._reader, self._writer)
        while len(self._buffer) < len(CONNECTION_HEADER):
            self._buffer += await self._socket.receive()
        header = bytes(self._buffer[: len(CONNECTION_HEADER)])
        if header != CONNECTION_HEADER:
            raise HandshakeRefused(f"a connection begins with {header.hex()}")
        del self._buffer[: len(CONNECTION_HEADER)]
        authority = self._network.authority
        responder = NoiseResponder(authority.noise_static, authority.noise_chain)
        self._send_frames(responder.hello(await self._frame()))
        noise, data = responder.finish(await self._frame())
        self._incoming, self._outgoing = responder.ciphers()
        try:
            return noise, schema.ClientPayload.FromString(data)
        except DecodeError:
            raise HandshakeRefused("the client's payload is no protocol buffer") from None

    async def _receive(self) -> Node:
        assert self._incoming is not None  # noqa: S101  (set by the handshake)
        return binary_xml.decode(self._incoming.decrypt(await self._frame()))

    async def _frame(self) -> bytes:
        """Return the next frame: three bytes of length, then as many of content."""
        assert self._socket is not None  # noqa: S101  (set by the handshake)
        while len(self._buffer) < 3 or len(self._buffer) < 3 + int.from_bytes(self._buffer[:3], "big"):
            self._buffer += await self._socket.receive()
        length = int.from_bytes(self._buffer[:3], "big")
        frame = bytes(self._buffer[3 : 3 + length])
        del self._buffer[: 3 + length]
        return frame

    def _write(self, *outgoing: Node) -> None:
        if self._outgoing is not None and not self._writer.is_closing():
            encrypt = self._outgoing.encrypt
            self._send_frames(*(encrypt(binary_xml.encode(stanza)) for stanza in outgoing))

    def _send_frames(self, *frames: bytes) -> None:
        assert self._socket is not None  # noqa: S101  (set by the handshake)
        self._socket.send(*(len(frame).to_bytes(3, "big") + frame for frame in frames))

    async def _say_goodbye(self) -> None:
        """Tell a client that broke the protocol so, and give it the time to read it."""
        self._write(stanzas.stream_error(400))
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self._reader.read()
