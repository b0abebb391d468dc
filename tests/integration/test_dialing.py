"""The dial gate over real sockets: what it lets through, when, and to whom it answers."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from actors.whatsapp.dialing import DialGate


@dataclass
class Upstream:
    """A proxy that notes what it is asked for and echoes what it gets."""

    status: bytes = b"200 OK"
    heads: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    url: str = ""
    open: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        self.moments.append(time.monotonic())
        writer.write(b"HTTP/1.1 " + self.status + b"\r\n\r\n")
        self.open.append(writer)
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()
        await writer.wait_closed()
        self.open.remove(writer)


@asynccontextmanager
async def gate_and_upstream(per_second: float = 1000.0, hosted: int = 1) -> AsyncIterator[tuple[DialGate, Upstream]]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    gate = DialGate(upstream.url, per_second, lambda: hosted)
    await gate.start()
    try:
        yield gate, upstream
    finally:
        await gate.stop()
        server.close()
        async with asyncio.timeout(10):
            while upstream.open:
                await asyncio.sleep(0.01)


async def dial(way: str, target: str = "web.whatsapp.com:443", send: bytes = b"") -> tuple[int, bytes]:
    """CONNECT through the gate as the library does; return the status and what came back of ``send``."""
    parts = urlsplit(way)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    pair = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {pair}\r\n\r\n".encode())
    try:
        async with asyncio.timeout(20):
            status = int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
            echoed = b""
            if status == 200 and send:
                writer.write(send)
                echoed = await reader.readexactly(len(send))
    finally:
        writer.close()
        await writer.wait_closed()
    return status, echoed


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_device_reaches_whatsapp_through_the_upstream_with_its_bytes_unchanged() -> None:
    async def check() -> None:
        async with gate_and_upstream() as (gate, upstream):
            assert await dial(gate.way_for(1, None), send=b"\x16\x03\x01 sealed") == (200, b"\x16\x03\x01 sealed")
            assert upstream.heads[0].startswith("CONNECT web.whatsapp.com:443 ")
            assert "device-1" not in upstream.heads[0]

    run(check)


def test_a_device_with_a_proxy_of_its_own_goes_through_that_one() -> None:
    async def check() -> None:
        async with gate_and_upstream() as (gate, upstream), gate_and_upstream() as (_, own):
            way = gate.way_for(1, own.url.replace("//", "//user:p%40ss@"))
            assert (await dial(way))[0] == 200
            assert upstream.heads == []
            assert base64.b64encode(b"user:p@ss").decode() in own.heads[0]

    run(check)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("example.com:443", 403),
        ("web.whatsapp.com:80", 403),
        ("evilwhatsapp.com:443", 403),
        ("mmg.whatsapp.net:443", 200),
    ],
)
def test_only_hosts_of_whatsapp_are_reached(target: str, status: int) -> None:
    async def check() -> None:
        async with gate_and_upstream() as (gate, _):
            assert (await dial(gate.way_for(1, None), target))[0] == status

    run(check)


def test_a_stranger_and_an_earlier_client_are_refused() -> None:
    async def check() -> None:
        async with gate_and_upstream() as (gate, upstream):
            earlier = gate.way_for(1, None)
            gate.way_for(1, None)
            parts = urlsplit(earlier)
            assert (await dial(earlier))[0] == 407
            assert (await dial(f"http://device-1:guess@127.0.0.1:{parts.port}"))[0] == 407
            assert upstream.heads == []

    run(check)


def test_an_upstream_that_refuses_is_told_as_a_bad_gateway() -> None:
    async def check() -> None:
        async with gate_and_upstream() as (gate, upstream):
            upstream.status = b"403 No"
            assert (await dial(gate.way_for(1, None)))[0] == 502

    run(check)


def test_connects_keep_to_the_budget_and_media_are_not_counted() -> None:
    async def check() -> None:
        async with gate_and_upstream(per_second=20.0) as (gate, upstream):
            ways = [gate.way_for(device_id, None) for device_id in range(30)]
            started = asyncio.get_running_loop().time()
            answers = await asyncio.gather(*(dial(way) for way in ways))
            lasted = asyncio.get_running_loop().time() - started
            assert [status for status, _ in answers] == [200] * 30
            assert lasted >= 29 / 20 - 0.1, "30 connects at 20 a second take 1.45 seconds"
            assert len(upstream.heads) == 30

    run(check)


def test_connects_that_a_standstill_held_up_do_not_go_all_at_once() -> None:
    async def check() -> None:
        async with gate_and_upstream(per_second=20.0) as (gate, upstream):
            ways = [gate.way_for(device_id, None) for device_id in range(40)]
            dialling = asyncio.gather(*(dial(way) for way in ways))
            while len(upstream.heads) < 5:
                await asyncio.sleep(0.01)
            time.sleep(1.0)  # noqa: ASYNC251 - the loop stands still, and the moments of twenty devices pass
            assert [status for status, _ in await dialling] == [200] * 40
            came = sorted(upstream.moments)
            within = max(sum(1 for each in came if first <= each < first + 1.0) for first in came)
            assert within <= 20 / 0.85 + 2

    run(check)


def test_a_connect_whose_moment_is_far_away_is_refused_and_keeps_its_place() -> None:
    async def check() -> None:
        async with gate_and_upstream(per_second=0.1) as (gate, _):
            assert (await dial(gate.way_for(1, None)))[0] == 200
            way = gate.way_for(2, None)
            assert (await dial(way))[0] == 503
            assert gate.holds(2)
            place = gate.budget.waits_until(2)
            assert (await dial(way))[0] == 503
            assert gate.budget.waits_until(2) == place
            gate.admit(2)
            assert (await dial(way))[0] == 200

    run(check)


def test_only_few_devices_log_in_at_once_and_those_that_failed_before_take_no_fresh_ones_place() -> None:
    async def check() -> None:
        async with gate_and_upstream() as (gate, _):
            came: list[int] = []

            async def turn(device_id: int) -> None:
                await gate.turn(device_id, again=device_id >= 100)
                came.append(device_id)

            fresh = [asyncio.ensure_future(turn(device_id)) for device_id in range(8)]
            failed = [asyncio.ensure_future(turn(device_id)) for device_id in range(100, 108)]
            await asyncio.sleep(0.2)
            assert sorted(came) == [0, 1, 2, 3, 100, 101, 102, 103]
            assert (await dial(gate.way_for(0, None)))[0] == 200
            await asyncio.sleep(0.1)
            assert len(came) == 8, "it is not online yet"
            fresh[4].cancel()
            gate.end_turn(0)
            await gate.hang_up(1)
            gate.end_turn(102)
            await asyncio.wait([fresh[5], fresh[6], failed[4]])
            assert sorted(came[8:]) == [5, 6, 104]
            for waiting in (*fresh, *failed):
                waiting.cancel()

    run(check)


def test_an_outage_holds_devices_back_until_a_probe_comes_online() -> None:
    async def check() -> None:
        async with gate_and_upstream(hosted=6) as (gate, _):
            ways = [gate.way_for(device_id, None) for device_id in range(6)]
            for device_id in range(5):
                gate.fell(device_id)
            statuses = [(await dial(way))[0] for way in ways]
            assert sorted(statuses) == [200, 503, 503, 503, 503, 503], "one probes, the others wait"
            gate.came_online()
            assert [(await dial(way))[0] for way in ways] == [200] * 6

    run(check)
