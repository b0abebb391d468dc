"""The stand-ins' sockets: one loopback port a platform, each accepted send recorded before it is answered."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from config.errors import NotFound, Refused
from simulator.platforms.callbacks import Reporter
from simulator.platforms.faults import FAULTS, FaultSwitch
from simulator.platforms.http import LONGEST_HEAD, Answer, BadRequestError, read_request
from simulator.platforms.records import Records
from simulator.platforms.registry import stand_ins

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from simulator.platforms.http import HttpRequest
    from simulator.platforms.stand_in import StandIn, Taken

_ADDRESS = "127.0.0.1"
#: Longer than any client waits, in seconds.
_HOLD_SECONDS = 120.0
_DRIP_SECONDS = 0.5

#: An account that each stand-in knows from the start, its credentials invented.
DEFAULT_ACCOUNTS: dict[str, dict[str, str]] = {each.name: dict(each.default_account) for each in stand_ins()}


class PlatformStandIns:
    """All stand-ins over one directory. Methods that are not coroutines may be called at any time between.

    Args:
        directory: where accounts, ports and accepted sends are kept, over restarts and kills.
    """

    def __init__(self, directory: Path) -> None:
        self._records = Records(directory)
        self._stand_ins = {each.name: each(self._records) for each in stand_ins()}
        self._faults = {name: FaultSwitch() for name in self._stand_ins}
        self._reporters = {name: Reporter(stand_in) for name, stand_in in self._stand_ins.items()}
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        for name, stand_in in self._stand_ins.items():
            self._records.add_account(name, stand_in.default_account, "default")

    async def start(self) -> dict[str, str]:
        """Listen, on the ports of last time where they are free; return each platform's base URL."""
        urls = {}
        for name, stand_in in self._stand_ins.items():
            server = await self._listen(stand_in, self._records.port(name))
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]
            self._records.keep_port(name, port)
            urls[name] = f"http://{_ADDRESS}:{port}{stand_in.base_path}"
        return urls

    async def stop(self) -> None:
        """Close every socket and end every answer under way."""
        for server in self._servers:
            server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for reporter in self._reporters.values():
            await reporter.stop()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        self._records.close()

    def add_account(self, name: str, credentials: Mapping[str, str]) -> str:
        """Let a stand-in know one more account; return the label its sends are recorded under."""
        self._known(name)
        fields = tuple(DEFAULT_ACCOUNTS[name])
        if not {fields[0]} <= set(credentials) <= set(fields) or not all(credentials.values()):
            raise Refused(f"An account of {name} has {', '.join(fields)}.")
        return self._records.add_account(name, credentials)

    def log(self, name: str) -> list[dict[str, Any]]:
        """Return every send the stand-in accepted, in order, with id, account, to, kind, text and more."""
        self._known(name)
        return [send.as_dict() for send in self._records.sends(name)]

    def set_fault(self, name: str, kind: str, seconds: float | None = None) -> None:
        """Let a stand-in show a fault for ``seconds`` (None: until ``clear``, which forgets what went too fast, too).

        Raises:
            NotFound: there is no such platform or fault.
        """
        self._known(name)
        self._faults[name].set(kind, seconds)
        if kind == "clear":
            self._stand_ins[name].rates.forget()

    def set_callback(self, name: str, url: str) -> None:
        """Let a stand-in report each message's stages to ``url`` ("": nowhere).

        Raises:
            NotFound: there is no such platform.
            Refused: the address is not on loopback.
        """
        self._known(name)
        self._reporters[name].report_to(url)

    def faults(self) -> dict[str, str]:
        """Return every kind of fault with its description."""
        return dict(FAULTS)

    def _known(self, name: str) -> None:
        if name not in self._stand_ins:
            raise NotFound(
                f"There is no stand-in for the platform {name!r}.",
                f"There are: {', '.join(self._stand_ins)}.",
            )

    async def _listen(self, stand_in: StandIn, port: int) -> asyncio.Server:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(stand_in, reader, writer)

        try:
            return await asyncio.start_server(serve, _ADDRESS, port, limit=LONGEST_HEAD)
        except OSError:
            return await asyncio.start_server(serve, _ADDRESS, 0, limit=LONGEST_HEAD)

    async def _serve(self, stand_in: StandIn, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            while await self._serve_one(stand_in, reader, writer):
                pass
        except (ConnectionError, asyncio.CancelledError):
            # The client is gone, or the stand-ins stop: either way this connection is over.
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve_one(self, stand_in: StandIn, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection goes on."""
        try:
            request = await read_request(reader)
        except BadRequestError as error:
            await _write(writer, Answer(error.status, b"", "text/plain", {"Connection": "close"}))
            return False
        if request is None:
            return False
        fault = self._faults[stand_in.name].kind
        judged = stand_in.judge(request, connected=fault != "disconnected")
        if isinstance(judged, Answer):
            await _write(writer, judged)
            return _keeps_alive(request)
        answer = self._take(stand_in, judged, fault)
        if answer is None:
            _reset(writer)
            return False
        if fault == "slow-after-recording":
            with contextlib.suppress(TimeoutError):
                # A read that ends is the client hanging up; there is nobody left to answer then.
                await asyncio.wait_for(reader.read(1), _HOLD_SECONDS)
                return False
        if fault == "drip":
            await _drip(writer, answer)
        else:
            await _write(writer, answer)
        return _keeps_alive(request)

    def _take(self, stand_in: StandIn, taken: Taken, fault: str) -> Answer | None:
        """Record a send unless the fault says otherwise; return the answer, or None for a reset."""
        refusal = stand_in.refusal(fault) if fault in {"failure-body", "bad-credential", "disconnected"} else None
        if refusal is not None:
            return refusal
        account, now = taken.sends[0].account, time.monotonic()
        if fault == "throttle" or stand_in.rates.is_too_fast(account, now):
            return stand_in.throttle()
        if any(stand_in.rates.is_too_often(account, send.recipient, now) for send in taken.sends):
            return stand_in.throttle_of_recipient()
        if fault == "reset-before-recording":
            return None
        self._records.record(stand_in.name, taken.sends)
        self._reporters[stand_in.name].report(taken, fault)
        match fault:
            case "reset-after-recording":
                return None
            case "garbage-200":
                return Answer(200, b"<!-- OK -->{status: yes", "text/html")
            case "empty-200":
                return Answer(200, b"")
            case "html-502":
                return Answer(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", "text/html")
        return taken.answer


def _keeps_alive(request: HttpRequest) -> bool:
    return request.headers.get("connection", "").lower() != "close"


async def _write(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(answer.head + answer.body)
    await writer.drain()


async def _drip(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(answer.head)
    for value in answer.body:
        writer.write(bytes([value]))
        await writer.drain()
        await asyncio.sleep(_DRIP_SECONDS)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of a farewell."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
