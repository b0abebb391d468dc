"""The gate in front of the WhatsApp library, and the threads behind it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from actors.whatsapp.gate import RegistryGate
from actors.whatsapp.threads import DaemonThreads

Result = TypeVar("Result")


def test_changes_happen_one_at_a_time() -> None:
    async def scenario() -> None:
        gate = RegistryGate(DaemonThreads("test"))
        inside: list[int] = []

        async def change() -> None:
            async with gate.changing():
                inside.append(1)
                assert len(inside) == 1
                await asyncio.sleep(0.01)
                inside.pop()

        await asyncio.gather(*(change() for _ in range(5)))

    asyncio.run(scenario())


def test_no_call_begins_while_a_change_writes_and_long_calls_do_not_delay_it() -> None:
    async def scenario() -> None:
        gate = RegistryGate(DaemonThreads("test"))
        release = threading.Event()
        began: list[float] = []
        long_call = asyncio.ensure_future(gate.call(release.wait, 10))
        await asyncio.sleep(0)
        async with gate.changing():
            assert not long_call.done()
            short_call = asyncio.ensure_future(gate.call(lambda: began.append(time.monotonic())))
            await asyncio.sleep(0.05)
            assert began == []
            ending = time.monotonic()
        await short_call
        assert began[0] >= ending
        release.set()
        assert await long_call

    asyncio.run(scenario())


def test_calls_wait_for_a_quarter_of_a_second_at_most() -> None:
    async def scenario() -> None:
        gate = RegistryGate(DaemonThreads("test"))
        async with gate.changing():
            started = time.monotonic()
            assert await gate.call(lambda: 7) == 7
            assert 0.2 < time.monotonic() - started < 2

    asyncio.run(scenario())


def test_a_call_that_finds_no_thread_keeps_no_change_waiting() -> None:
    class NoThreads(DaemonThreads):
        def run(self, function: Callable[..., Result], *arguments: object) -> asyncio.Future[Result]:
            raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        gate = RegistryGate(NoThreads("test"))
        with pytest.raises(RuntimeError):
            await gate.call(lambda: None)
        async with asyncio.timeout(10), gate.changing():
            pass

    asyncio.run(scenario())


def test_threads_are_used_again_and_do_not_run_out() -> None:
    async def scenario() -> None:
        threads = DaemonThreads("test")
        for _ in range(20):
            await threads.run(lambda: None)
        assert threads.started < 20, "each may overtake the one before, but not all of them do"
        meeting = threading.Barrier(50)
        await asyncio.gather(*(threads.run(meeting.wait, 10) for _ in range(50)))
        assert threads.started <= 51

    asyncio.run(scenario())


def test_an_error_in_a_thread_reaches_whoever_waits() -> None:
    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError):
            await DaemonThreads("test").run(lambda: 1 // 0)

    asyncio.run(scenario())
