"""What is turned away before any part of the gateway looks at it: foreign hosts, bodies too large or too slow."""

from __future__ import annotations

import asyncio
import ipaddress
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

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS, *((_NOT_KEPT,) if api else ())]
            await send(message)

        try:
            if not path.startswith(_FOR_PROGRAMS):
                self._check_host(headers.get(b"host", b"").decode("latin-1"))
            if path.startswith(_UPLOADS):
                await self._app(scope, _patient(receive), send_with_headers)
                return
            announced = headers.get(b"content-length", b"")
            if announced.isdigit() and int(announced) > LONGEST_BODY:
                raise _too_large()
            await self._app(scope, _limited(receive), send_with_headers)
        except TurnedAway as turned_away:
            await problem_of(turned_away.error, headers={"Connection": "close"})(scope, receive, send_with_headers)

    def _check_host(self, host: str) -> None:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.strip("[]").lower()
        if name in self._hosts or _is_loopback(name):
            return
        sentence, next_step = "The gateway is not known by this name.", "Use its address, or set gateway_hosts."
        raise TurnedAway(Refused(sentence, next_step, code="host_unknown"))


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _limited(receive: Receive) -> Receive:
    """Let a body be read while it is neither too large nor too slow."""
    loop = asyncio.get_running_loop()
    taken = 0
    deadline = loop.time() + _BODY_SECONDS
    complete = False

    async def read() -> Message:
        nonlocal taken, complete
        if complete:
            return await receive()  # waits for the client to go away
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise _too_slow() from None
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if taken > LONGEST_BODY:
                raise _too_large()
        return message

    return read


def _patient(receive: Receive) -> Receive:
    """Let an upload be read as long as it goes on; who reads it minds its size."""

    async def read() -> Message:
        try:
            async with asyncio.timeout(_PIECE_SECONDS):
                return await receive()
        except TimeoutError:
            raise _too_slow() from None

    return read


def _too_large() -> TurnedAway:
    sentence = f"The request's body is larger than {LONGEST_BODY // 1024**2} MB."
    return TurnedAway(Refused(sentence, "Send less at once.", code="body_too_large"))


def _too_slow() -> TurnedAway:
    return TurnedAway(Refused("The request's body did not arrive in time.", "Send it again.", code="body_too_slow"))
