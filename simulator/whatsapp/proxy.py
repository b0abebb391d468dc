"""The way in: an HTTP CONNECT proxy that is itself every host behind it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from asyncio import sslproto

from config.logging import logger
from simulator.whatsapp import media_host
from simulator.whatsapp.connection import Connection
from simulator.whatsapp.network import Network

#: The host of the WebSocket; all others under the media domain are media hosts.
_WEBSOCKET_HOST = "web.whatsapp.com"
_MEDIA_DOMAIN = ".whatsapp.net"
_PORT = "443"
#: How long a client may take for its request and for TLS.
_REQUEST_SECONDS = 20.0
#: Connections that may wait to be accepted: a fleet reconnects all at once.
_BACKLOG = 8192
#: Of the kernel's ``struct tcp_info`` (linux/tcp.h): where ``tcpi_last_data_recv`` stands, and so many bytes suffice.
_LAST_DATA_RECEIVED, _TCP_INFO_BYTES = 52, 56
#: asyncio's read buffer for each TLS connection, in bytes. Its default of 256 KB would be 0.8 GB for 3000 clients;
#: a TLS record is at most 16 KB.
_TLS_BUFFER = 16 << 10


class Proxy:
    """Accepts connections on 127.0.0.1 and serves what they ask for, with the faults that are set."""

    def __init__(self, network: Network) -> None:
        sslproto.SSLProtocol.max_size = _TLS_BUFFER
        self._network = network
        self._trusted = network.authority.tls_context()
        self._impostor = network.authority.tls_context(impostor=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int) -> int:
        """Listen on ``port`` (0: any); return the port.

        Raises:
            OSError: the port is taken.
        """
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, backlog=_BACKLOG)
        chosen: int = self._server.sockets[0].getsockname()[1]
        return chosen

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (asyncio runs this in a task)
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError, ssl.SSLError, asyncio.LimitOverrunError) as error:
            logger().debug("connection ended", error=repr(error))
        except asyncio.CancelledError:
            pass  # only stop() cancels; the task ends here either way
        except Exception:  # noqa: BLE001  (one connection must not end the simulator)
            self._network.statistics.count("internal_errors")
            logger().exception("a connection failed")
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(OSError):
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_REQUEST_SECONDS):
            request = await reader.readuntil(b"\r\n\r\n")
        method, _, target = request.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
        host, _, port = target.partition(" ")[0].rpartition(":")
        network = self._network
        known = method == "CONNECT" and port == _PORT
        if not known or not (host == _WEBSOCKET_HOST or host.endswith(_MEDIA_DOMAIN)):
            network.statistics.count("foreign_connects")
            await _answer(writer, "403 Forbidden")
            return
        if host == _WEBSOCKET_HOST:
            network.statistics.connected(time.time() - _seconds_since_data(writer))
        if network.faults.active("refuse"):
            await _answer(writer, "502 Bad Gateway")
            return
        await _answer(writer, "200 Connection established")
        if network.faults.active("blackhole"):
            await reader.read()
            return
        context = self._impostor if network.faults.active("tls-failure") else self._trusted
        await writer.start_tls(context, ssl_handshake_timeout=_REQUEST_SECONDS)
        if host != _WEBSOCKET_HOST:
            await media_host.serve(network, reader, writer)
        elif network.faults.active("http-503"):
            await reader.readuntil(b"\r\n\r\n")
            await _answer(writer, "503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close")
        else:
            await Connection(network, reader, writer).run()


def _seconds_since_data(writer: asyncio.StreamWriter) -> float:
    """Return how long ago, by the kernel, the client's last bytes came: its request, while it waits for the answer.

    A simulator that was busy finds many requests at once, however evenly they came.
    """
    information = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    [milliseconds] = struct.unpack_from("=I", information, _LAST_DATA_RECEIVED)
    return float(milliseconds) / 1000.0


async def _answer(writer: asyncio.StreamWriter, status: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
    await writer.drain()
