"""What is turned away before any part of the gateway looks at it: foreign hosts, bodies too large or too slow."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from http import HTTPStatus
from typing import TYPE_CHECKING

from config.errors import Refused
from gateway.problems import TurnedAway, problem_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.context import Context

#: The largest body, in bytes: 500 messages of a batch with long texts. Uploads have a limit of their own.
LONGEST_BODY = 8 * 1024 * 1024
#: How long a body may take to arrive, in seconds; uploads take as long as they go on.
_BODY_SECONDS = 30.0
_PIECE_SECONDS = 20.0
#: How much of a body that is too large is passed over before the answer, and for how long, in seconds.
_PASS_OVER_BYTES = 256 * 1024 * 1024
_PASS_OVER_SECONDS = 2.0
#: Where no browser comes by itself with somebody's session: programs, under whatever name they know us.
_FOR_PROGRAMS = ("/v1/", "/healthz", "/readyz", "/metrics")
_UPLOADS = "/v1/uploads"
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_NOT_KEPT = (b"cache-control", b"no-store")


class Guard:
    """ASGI middleware. Each refusal is a problem."""

    def __init__(self, app: ASGIApp, *, context: Context) -> None:
        self._app = app
        settings = context.settings
        self._hosts = {"localhost", settings.gateway_address, *(name.lower() for name in settings.gateway_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what may go on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        api = path.startswith("/v1/")
        body = _Body(receive, None if path.startswith(_UPLOADS) else LONGEST_BODY)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    await body.pass_over()
                message["headers"] = [*message["headers"], *_HEADERS, *((_NOT_KEPT,) if api else ())]
            await send(message)

        try:
            if not path.startswith(_FOR_PROGRAMS):
                self._check_host(headers.get(b"host", b"").decode("latin-1"))
            announced = headers.get(b"content-length", b"")
            if not path.startswith(_UPLOADS) and announced.isdigit() and int(announced) > LONGEST_BODY:
                raise _too_large()
            await self._app(scope, body.read, send_with_headers)
        except TurnedAway as turned_away:
            await problem_of(turned_away.error, headers={"Connection": "close"})(scope, receive, send_with_headers)

    def _check_host(self, host: str) -> None:
        name = name_of_host(host)
        if name in self._hosts or _is_loopback(name):
            return
        sentence, next_step = "The gateway is not known by this name.", "Use its address, or set gateway_hosts."
        raise TurnedAway(Refused(sentence, next_step, code="host_unknown"))


def name_of_host(host: str) -> str:
    """Return a ``Host`` header's name, without its port and an IPv6 address's brackets."""
    name = host.rsplit(":", 1)[0] if ":" in host and not host.endswith("]") else host
    return name.strip("[]").lower()


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class _Body:
    """A request's body as it arrives: not too large, not too slow.

    Args:
        receive: gives the next piece.
        longest: how many bytes it may have; None: whoever reads it minds that.
    """

    def __init__(self, receive: Receive, longest: int | None) -> None:
        self._receive = receive
        self._longest = longest
        self._taken = 0
        self._complete = False
        self._deadline = asyncio.get_running_loop().time() + _BODY_SECONDS

    async def read(self) -> Message:
        """Return the next piece; behind the last one, wait until the client goes away."""
        if self._complete:
            return await self._receive()
        patience = asyncio.timeout(_PIECE_SECONDS) if self._longest is None else asyncio.timeout_at(self._deadline)
        try:
            async with patience:
                message = await self._receive()
        except TimeoutError:
            raise _too_slow() from None
        if message["type"] == "http.request":
            self._taken += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._longest is not None and self._taken > self._longest:
                raise _too_large()
        return message

    async def pass_over(self) -> None:
        """Read on for a while without keeping anything.

        A client that still sends when the connection is closed learns of a reset instead of the answer.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PASS_OVER_SECONDS):
                while not self._complete and self._taken < _PASS_OVER_BYTES:
                    message = await self._receive()
                    self._taken += len(message.get("body", b""))
                    self._complete = message["type"] != "http.request" or not message.get("more_body", False)


def _too_large() -> TurnedAway:
    sentence = f"The request's body is larger than {LONGEST_BODY // 1024**2} MB."
    return TurnedAway(Refused(sentence, "Send less at once.", code="body_too_large"))


def _too_slow() -> TurnedAway:
    return TurnedAway(Refused("The request's body did not arrive in time.", "Send it again.", code="body_too_slow"))
