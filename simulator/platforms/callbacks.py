"""How stand-ins report the stages of a message: a POST for each, repeated or out of order when a fault says so."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from config.errors import Refused
from simulator.platforms.stand_in import STAGES

if TYPE_CHECKING:
    from simulator.platforms.records import Send
    from simulator.platforms.stand_in import Callback, StandIn, Taken

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: How long the listener gets for each report, in seconds.
_PATIENCE = 5.0


class Reporter:
    """Reports for one stand-in."""

    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self._url = ""
        self._under_way: set[asyncio.Task[None]] = set()

    def report_to(self, url: str) -> None:
        """Report to ``url`` from now on ("": nowhere).

        Raises:
            Refused: the address is not on loopback.
        """
        if url and not _is_loopback(url):
            raise Refused("Stand-ins report to this machine alone.", "Give an http address on 127.0.0.1.")
        self._url = url

    def report(self, taken: Taken, fault: str) -> None:
        """Report every stage of what was taken, from a task of its own."""
        url = taken.callback_url if _is_loopback(taken.callback_url) else self._url
        if not url:
            return
        for send in taken.sends:
            task = asyncio.get_running_loop().create_task(self._report(send, fault, url))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def stop(self) -> None:
        """End the reports under way."""
        for task in tuple(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _report(self, send: Send, fault: str, url: str) -> None:
        stages = STAGES[::-1] if fault == "unordered-callbacks" else STAGES
        for stage in stages:
            callback = self._stand_in.callback(send, stage, url)
            for _ in range(2 if fault == "duplicate-callbacks" else 1):
                if callback is not None:
                    # A listener that is away misses the report, as with a provider that tries once.
                    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                        async with asyncio.timeout(_PATIENCE):
                            await _post(urlsplit(url), callback)


def _is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


async def _post(parts: SplitResult, callback: Callback) -> None:
    lines = [
        f"POST {parts.path or '/'}{'?' * bool(parts.query)}{parts.query} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Content-Type: {callback.content_type}",
        f"Content-Length: {len(callback.body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in callback.headers.items()),
    ]
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        writer.write("\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + callback.body)
        await writer.drain()
        await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
