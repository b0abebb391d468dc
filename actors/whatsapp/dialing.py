"""The dial gate: every connect of a shard's devices goes through it, and so keeps to the fleet's budget.

The library reconnects by itself, at once and without jitter, and has no switch for that; but it dials through the
proxy it is given. The gate is such a proxy (HTTP CONNECT on loopback, a secret for each device, WhatsApp's hosts only):
it lets a connect through when its moment has come, and hands the bytes on, still sealed by TLS. It also gives each
device its own upstream proxy.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from actors.whatsapp.relay import relay
from config.logging import logger
from supervisors.budget import ConnectBudget, OutageBreaker

#: The host whose connects are counted; media hosts are let through.
_CHAT_HOST = "web.whatsapp.com"
#: Hosts the gate connects to at all.
_HOSTS = (".whatsapp.com", ".whatsapp.net")
#: A connect whose moment is further away than this is refused for now: the library would give up on it anyway, and
#: asks again; its moment is kept. In seconds.
_PATIENCE_SECONDS = 6.0
#: How long a device that had its turn may take to make use of it, in seconds.
_PASS_SECONDS = 30.0
#: Devices that log in at once, at most: those that try for the first time, and as many of those that failed before.
#: When more do than the machine can serve, each takes longer than it may, fails, and was work in vain; and a device
#: that hangs again and again takes no fresh one's place.
_MOST_AT_ONCE = 4
#: How often a device that is held back looks whether it may go, in seconds.
_PROBE_PAUSE = 1.0
#: How long reaching the upstream may take, in seconds.
_DIAL_SECONDS = 10.0
#: How long ending a connection may take: the other side may not read, in seconds.
_HANG_UP_SECONDS = 2.0
_HEAD_LIMIT = 8192


@dataclass(frozen=True)
class Way:
    """One device's way out."""

    device_id: int
    upstream: str | None


class DialRefused(Exception):
    """The upstream proxy refused the connection."""


class DialGate:
    """A shard's only door to WhatsApp.

    Args:
        upstream: the proxy of devices without their own; None connects directly.
        hosted: returns how many devices are hosted here, for the breaker.
    """

    def __init__(self, upstream: str | None, per_second: float, hosted: Callable[[], int]) -> None:
        self.budget = ConnectBudget(per_second)
        self.breaker = OutageBreaker()
        self._upstream = upstream
        self._hosted = hosted
        self._ways: dict[str, Way] = {}
        self._passes: dict[int, float] = {}
        self._first_turns = asyncio.Semaphore(_MOST_AT_ONCE)
        self._later_turns = asyncio.Semaphore(_MOST_AT_ONCE)
        self._turns_given: dict[int, tuple[asyncio.TimerHandle, asyncio.Semaphore]] = {}
        self._line = asyncio.Lock()
        self._last_connect = float("-inf")
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._of_device: dict[int, set[asyncio.Task[None]]] = {}

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_HEAD_LIMIT, backlog=1024)

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def way_for(self, device_id: int, upstream: str | None) -> str:
        """Return the proxy URL a device's client must dial through.

        A SOCKS proxy is dialled by the library itself and returned unchanged.
        """
        if upstream is not None and urlsplit(upstream).scheme.startswith("socks"):
            return upstream
        assert self._server is not None  # noqa: S101 - started before any device
        # A fresh secret for each opening: what an earlier client of the device still dials is let in no more.
        secret = secrets.token_hex(16)
        self._ways = {key: way for key, way in self._ways.items() if way.device_id != device_id}
        self._ways[secret] = Way(device_id, upstream)
        port = self._server.sockets[0].getsockname()[1]
        return f"http://device-{device_id}:{secret}@127.0.0.1:{port}"

    async def turn(self, device_id: int, *, again: bool = False) -> None:
        """Wait until it is the device's turn to connect; its next connect is then let through at once.

        The turn lasts until :meth:`end_turn`: the device is online, or failed. ``again``: it has failed before.
        """
        turns = self._later_turns if again else self._first_turns
        await turns.acquire()
        try:
            while not self.breaker.lets_through(time.monotonic()):  # noqa: ASYNC110 - the breaker goes by the clock
                await asyncio.sleep(_PROBE_PAUSE * (0.5 + random.random()))  # noqa: S311 - jitter is no secret
            now = time.monotonic()
            await asyncio.sleep(max(0.0, self.budget.place_of(device_id, now, random.random()) - now))  # noqa: S311
            await self._take_moment(device_id)
        except BaseException:
            turns.release()
            raise
        self.end_turn(device_id)
        lapse = asyncio.get_running_loop().call_later(_PASS_SECONDS, self.end_turn, device_id)
        self._turns_given[device_id] = lapse, turns
        self.admit(device_id)

    def end_turn(self, device_id: int) -> None:
        """Let the next device have its turn: this one is through with its try."""
        if device_id in self._turns_given:
            lapse, turns = self._turns_given.pop(device_id)
            lapse.cancel()
            turns.release()

    def admit(self, device_id: int) -> None:
        """Let the device's next connect through at once (its turn has come, or the operator wants it)."""
        self.budget.used(device_id)
        self._passes[device_id] = time.monotonic() + _PASS_SECONDS

    async def hang_up(self, device_id: int) -> None:
        """Let nothing of the device out any more: end its connections and forget its way."""
        self.end_turn(device_id)
        self._ways = {key: way for key, way in self._ways.items() if way.device_id != device_id}
        connections = self._of_device.pop(device_id, set())
        for connection in connections:
            connection.cancel()
        if connections:
            await asyncio.wait(connections, timeout=_HANG_UP_SECONDS)

    def holds(self, device_id: int) -> bool:
        """Return whether the device is being held back, so that its not connecting is no fault of its own."""
        moment = self.budget.waits_until(device_id)
        return self.breaker.open or (moment is not None and moment > time.monotonic())

    def fell(self, device_id: int) -> None:
        """Note that a device lost its connection, or could not get one."""
        if self.breaker.fell(device_id, self._hosted(), time.monotonic()):
            logger().warning(
                "⛔ Many devices fell at once: the server is away. They are held back; one at a time probes",
                devices=self._hosted(),
            )

    def came_online(self) -> None:
        """Note that a device is online: the server is there."""
        lasted = self.breaker.came_online(time.monotonic())
        if lasted is not None:
            logger().info("✅ The server is back; devices connect within the budget", seconds=round(lasted, 1))

    # --- the proxy ---------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relayed = False
        connection = asyncio.current_task()
        assert connection is not None  # noqa: S101 - a server's callback runs in a task
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                way, host, port = await self._read_request(reader)
            own = self._of_device.setdefault(way.device_id, set())
            own.add(connection)
            connection.add_done_callback(own.discard)
            if host == _CHAT_HOST:
                await self._await_moment(way.device_id)
                await self._fall_in_line()
            async with asyncio.timeout(_DIAL_SECONDS):
                answers, upstream = await self._dial(way, host, port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            relayed = True
            await relay(reader, writer, answers, upstream)
        except _Refusal as refusal:
            writer.write(f"HTTP/1.1 {refusal.status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        except (OSError, DialRefused, TimeoutError):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # not a request: nothing is answered to strangers
        finally:
            if not relayed:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _read_request(self, reader: asyncio.StreamReader) -> tuple[Way, str, int]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.split("\r\n")
        method, target, _ = request.split(" ", 2)
        host, _, port = target.rpartition(":")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        credentials = base64.b64decode(headers.get("proxy-authorization", "").removeprefix("Basic ")).decode("latin-1")
        way = self._ways.get(credentials.partition(":")[2])
        if way is None:
            raise _Refusal("407 Proxy Authentication Required")
        if method != "CONNECT" or port != "443" or not ("." + host).endswith(_HOSTS):
            raise _Refusal("403 Forbidden")
        return way, host, int(port)

    async def _await_moment(self, device_id: int) -> None:
        """Wait for the device's moment, or refuse when it is too far away (the moment is kept)."""
        now = time.monotonic()
        if self._passes.pop(device_id, 0.0) > now:
            return
        if not self.breaker.lets_through(now):
            raise _Refusal("503 Held back")
        if not await self._take_moment(device_id, _PATIENCE_SECONDS):
            raise _Refusal("503 Not yet")

    async def _fall_in_line(self) -> None:
        """Keep connects apart whose moments have come: a loop that stood still lets all of them go at once."""
        async with self._line:
            await asyncio.sleep(max(0.0, self._last_connect + self.budget.least_gap - time.monotonic()))
            self._last_connect = time.monotonic()

    async def _take_moment(self, device_id: int, patience: float = float("inf")) -> bool:
        """Wait until the device may connect; return False at once when that is over ``patience`` seconds away."""
        now = time.monotonic()
        moment = self.budget.take(device_id, now, random.random(), patience)  # noqa: S311 - jitter is no secret
        if moment is None:
            return False
        await asyncio.sleep(moment - now)
        return True

    async def _dial(self, way: Way, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        proxy = way.upstream or self._upstream
        if proxy is None:
            return await asyncio.open_connection(host, port, happy_eyeballs_delay=0.25)
        parts = urlsplit(proxy)
        reader, writer = await asyncio.open_connection(
            parts.hostname,
            parts.port or (443 if parts.scheme == "https" else 80),
            ssl=True if parts.scheme == "https" else None,
        )
        lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}")
        try:
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            status = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
        except BaseException:
            writer.close()
            raise
        if status != b"200":
            writer.close()
            raise DialRefused
        return reader, writer


class _Refusal(Exception):
    """The gate answers a request with this status."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status
