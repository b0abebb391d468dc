"""The media hosts: HTTP/1.1 inside the proxy's TLS, uploads by POST or PUT, downloads by GET."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.whatsapp.network import Network

#: Largest upload taken, in bytes.
LARGEST_UPLOAD = 128 << 20
#: How long an idle connection is kept open for the next request, in seconds.
_IDLE_SECONDS = 60.0
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed"}


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    keep_alive: bool


async def serve(network: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection until it is idle or closed."""
    while True:
        async with asyncio.timeout(_IDLE_SECONDS):
            request = await _read(reader)
        status, body = _answer(network, request)
        writer.write(
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'keep-alive' if request.keep_alive else 'close'}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        if not request.keep_alive:
            return


def _answer(network: Network, request: _Request) -> tuple[int, bytes]:
    if request.method in ("POST", "PUT"):
        return _upload(network, request)
    if request.method == "DELETE":
        return 200, b""
    if request.method != "GET":
        return 405, b""
    with network.recording():
        network.statistics.count("media_downloads")
    data = network.media.get(request.path)
    return (404, b"") if data is None else (200, data)


def _upload(network: Network, request: _Request) -> tuple[int, bytes]:
    """Keep an upload whose token is the hash of its bytes, as clients make it."""
    if request.query.get("auth") != [network.media_token]:
        return 401, b""
    token = base64.urlsafe_b64encode(hashlib.sha256(request.body).digest()).decode()
    if request.query.get("token") != [token] or not request.path.endswith(f"/{token}"):
        return 400, b""
    with network.recording():
        network.statistics.count("media_uploads")
    direct_path = network.media.put(request.body)
    answer = {"url": f"https://mmg.whatsapp.net{direct_path}", "direct_path": direct_path, "handle": ""}
    return 200, json.dumps(answer).encode()


async def _read(reader: asyncio.StreamReader) -> _Request:
    """Read one request with a body of known length.

    Raises:
        ConnectionError: it is malformed or too large.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    try:
        method, target, _ = head[0].split(" ", 2)
        length = int(headers.get("content-length", "0"))
    except ValueError:
        raise ConnectionError("a malformed request") from None
    if not 0 <= length <= LARGEST_UPLOAD or "transfer-encoding" in headers:
        raise ConnectionError("a body that is too large, or of unknown length")
    path, _, query = target.partition("?")
    return _Request(
        method=method,
        path=urllib.parse.unquote(path),
        query=urllib.parse.parse_qs(query),
        body=await reader.readexactly(length),
        keep_alive=headers.get("connection", "").lower() != "close",
    )
