"""The relay between two connections, over real sockets: every byte, both ways, and an end that ends both."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from actors.whatsapp.relay import relay

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
#: More than all buffers between two sockets hold.
LARGE = 24 * 1024 * 1024


@dataclass
class Relayed:
    """A relay under way, and the two ends that talk through it."""

    near: Streams
    far: Streams
    task: asyncio.Task[None]


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Streams, Streams]]:
    """Lend both sides of one TCP connection."""
    accepted: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda *streams: accepted.set_result(streams), "127.0.0.1", 0)
    ours = await asyncio.open_connection(*server.sockets[0].getsockname())
    theirs = await accepted
    try:
        yield ours, theirs
    finally:
        for _, writer in (ours, theirs):
            writer.transport.abort()
        server.close()


@contextlib.asynccontextmanager
async def relaying(before: bytes = b"") -> AsyncIterator[Relayed]:
    """Relay between two connections; ``before`` was said by the near side already."""
    async with connected() as (near, inner_near), connected() as (inner_far, far):
        near[1].write(before)
        while before and len(inner_near[0]._buffer) < len(before):  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
        task = asyncio.ensure_future(relay(*inner_near, *inner_far))
        yield Relayed(near, far, task)
        task.cancel()
        await asyncio.wait({task}, timeout=10)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def test_every_byte_arrives_both_ways_also_what_came_before() -> None:
    async def check() -> None:
        there, back = os.urandom(LARGE), os.urandom(LARGE)

        async def say(streams: Streams, data: bytes) -> None:
            streams[1].write(data)
            await streams[1].drain()

        async with relaying(b"said before ") as relayed:
            saying = [asyncio.ensure_future(say(relayed.near, there)), asyncio.ensure_future(say(relayed.far, back))]
            heard = await asyncio.gather(
                relayed.far[0].readexactly(12 + LARGE), relayed.near[0].readexactly(LARGE), *saying
            )
            assert heard[0] == b"said before " + there
            assert heard[1] == back
            assert not relayed.task.done()

    run(check)


def test_the_end_of_one_side_ends_the_other_when_all_is_said() -> None:
    async def check() -> None:
        async with relaying() as relayed:
            relayed.far[1].write(b"last words")
            relayed.far[1].close()
            assert await relayed.near[0].read() == b"last words"
            await relayed.task

    run(check)


def test_one_that_does_not_read_stops_the_other_and_is_not_waited_for_at_the_end() -> None:
    async def check() -> None:
        async with relaying() as relayed:
            written = 0
            with contextlib.suppress(TimeoutError):
                while written < 10 * LARGE:
                    relayed.near[1].write(bytes(1024 * 1024))
                    await asyncio.wait_for(relayed.near[1].drain(), 1)
                    written += 1024 * 1024
            assert written < 10 * LARGE, "what nobody reads is not heaped up here"
            relayed.task.cancel()
            await asyncio.wait({relayed.task}, timeout=10)
            assert relayed.task.done()

    run(check)


def test_a_side_that_is_gone_already_ends_it_at_once() -> None:
    async def check() -> None:
        async with connected() as (near, inner_near), connected() as (inner_far, far):
            near[1].write(b"only this")
            near[1].close()
            await inner_near[0].readuntil(b"only ")
            while not inner_near[0]._eof:  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
            await relay(*inner_near, *inner_far)
            assert await far[0].read() == b"this"

    run(check)
