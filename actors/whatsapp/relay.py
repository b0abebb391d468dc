"""Hand bytes on between two connections, as cheaply as Python can: no task wakes up for them.

All that a shard's devices say and hear passes here. asyncio's streams would wake a task for each piece, which takes
several times what handing it on takes.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

#: How long an ended connection may take to bring out what is still in it: the other side may not read. In seconds.
_FLUSH_SECONDS = 2.0


async def relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answers: asyncio.StreamReader,
    upstream: asyncio.StreamWriter,
) -> None:
    """Hand bytes on in both directions until one side ends, then close both.

    The streams are used up: neither may be touched afterwards. May be cancelled.
    """
    ended = asyncio.get_running_loop().create_future()
    near, far = cast("asyncio.Transport", writer.transport), cast("asyncio.Transport", upstream.transport)
    ways = (_Way(far, ended), _Way(near, ended))
    for transport, way in ((near, ways[0]), (far, ways[1])):
        transport.set_protocol(way)
    try:
        for source, other, transport in ((reader, far, near), (answers, near, far)):
            if await _empty(source, other) or transport.is_closing():
                return
            transport.resume_reading()  # a full stream had stopped it
        await ended
    finally:
        near.close()
        far.close()
        lost = [asyncio.ensure_future(way.lost.wait()) for way in ways]
        try:
            await asyncio.wait(lost, timeout=_FLUSH_SECONDS)
        finally:
            for waiting in lost:
                waiting.cancel()
            near.abort()
            far.abort()


async def _empty(source: asyncio.StreamReader, other: asyncio.Transport) -> bool:
    """Hand on what a stream still holds; return whether its other side has ended."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):  # nothing comes here any more
            while data := await source.read(65_536):
                other.write(data)
            return True
    return False


class _Way(asyncio.Protocol):
    """What one side says, to the other."""

    def __init__(self, other: asyncio.Transport, ended: asyncio.Future[None]) -> None:
        self._other = other
        self._ended = ended
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._other.write(data)

    def pause_writing(self) -> None:
        # What is to be written here comes from the other side.
        self._other.pause_reading()

    def resume_writing(self) -> None:
        self._other.resume_reading()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost.set()
        self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
