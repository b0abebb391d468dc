"""As much HTTP/1.1 as the stand-ins speak: whole requests with a known length in, whole answers out."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The largest request taken, in bytes: head and body.
LONGEST_HEAD = 16_384
LONGEST_BODY = 1_000_000
#: How long a kept-alive connection may stay idle, and a request may take to arrive, in seconds.
IDLE_SECONDS = 30.0


class BadRequestError(Exception):
    """A request that no strict server takes; the connection ends with ``status``."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class HttpRequest:
    """One request; header names are lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def head(self) -> bytes:
        """The status line and headers, as they go over the wire."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"


def json_answer(status: int, value: Any, *, content_type: str = "application/json") -> Answer:
    """Return an answer whose body is ``value`` as JSON."""
    return Answer(status, json.dumps(value, ensure_ascii=False).encode(), content_type)


async def read_request(reader: asyncio.StreamReader) -> HttpRequest | None:
    """Read one request; None: the client closed the connection, or left it idle.

    Raises:
        BadRequestError: what came is not a request that a strict server takes.
    """
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            request_line, *lines = head[:-4].decode("ascii").split("\r\n")
            method, target, version = request_line.split(" ")
            headers = _headers(lines)
            if version != "HTTP/1.1" or not target.startswith("/") or "host" not in headers:
                raise BadRequestError(400)
            if "transfer-encoding" in headers:
                raise BadRequestError(411)
            announced = headers.get("content-length", "0")
            if not announced.isdigit():
                raise BadRequestError(400)
            if int(announced) > LONGEST_BODY:
                raise BadRequestError(413)
            body = await reader.readexactly(int(announced))
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        return None
    except (ValueError, asyncio.LimitOverrunError):
        raise BadRequestError(400) from None
    parts = urlsplit(target)
    return HttpRequest(method, parts.path, parts.query, headers, body)


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip() or not name or name.lower() in headers:
            raise BadRequestError(400)
        headers[name.lower()] = value.strip()
    return headers


def form_fields(encoded: str) -> dict[str, str] | None:
    """Return the fields of a strictly form-encoded text; None: broken, or a field is repeated."""
    if not encoded.isascii() or any(character.isspace() for character in encoded):
        return None
    for piece in encoded.split("%")[1:]:
        if len(piece) < 2 or unquote_to_bytes("%" + piece[:2]) == b"%" + piece[:2].encode():
            return None
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, strict_parsing=True, errors="strict") if encoded else []
    except ValueError:
        return None
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else None
