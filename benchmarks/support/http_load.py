"""Load on an HTTP server, from a process of its own: as little of it as will do, since the machine is shared.

    python -m benchmarks.support.http_load      (what to do stands on standard input, as JSON)

Closed: each connection sends its next request when the last one is answered. Open (``rate``): requests begin at their
times, whatever became of the ones before; a latency counts from when its request should have begun.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.support.bench import percentile
from benchmarks.support.trial import PROJECT

#: Single requests that are made beforehand; they have no idempotency key, so that the same one may be sent again.
_MADE = 10_000


@dataclass(frozen=True)
class Load:
    """What to send: ``batch`` messages a request (0: single ones), for ``seconds``, over ``connections``."""

    port: int
    connections: int
    seconds: float
    batch: int = 0
    key: str = ""
    rate: float = 0.0
    device: str = "bench"


def run_load(load: Load) -> dict[str, Any]:
    """Put load on a server, from another process; return messages a second and latencies in milliseconds."""
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.support.http_load"],
        input=json.dumps(asdict(load)),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise RuntimeError(finished.stderr[-2000:])
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


class _Connection(asyncio.Protocol):
    """One kept-alive connection: sends bytes, and wakes its sender when an answer is whole."""

    def __init__(self) -> None:
        self._answer = b""
        self._done: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found:
            return
        _, _, length = head.lower().partition(b"content-length: ")
        if len(body) >= int(length.split(b"\r\n", 1)[0]) and self._done is not None and not self._done.done():
            status, self._answer = int(head.split(b" ", 2)[1]), b""
            self._done.set_result(status)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(0)

    async def ask(self, request: bytes) -> int:
        """Send a request and return the answer's status; 0: the connection was lost."""
        assert self._transport is not None
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._done


def _requests(load: Load) -> Any:
    """Yield requests without end, each with a text of its own."""
    for number in itertools.count():
        messages = [
            {
                "device": load.device,
                "to": f"+6012{(number * 7919 + position) % 10_000_000:07d}",
                "text": f"Your order {number}-{position} is ready for you.",
            }
            for position in range(load.batch or 1)
        ]
        body = json.dumps({"messages": messages} if load.batch else messages[0])
        path = "/v1/messages/batch" if load.batch else "/v1/messages"
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {load.key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        yield (head + body).encode()


async def _run(load: Load) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    refused: dict[int, int] = {}
    # Made beforehand: the server's neighbour on the same cores shall only send.
    requests = itertools.cycle(list(itertools.islice(_requests(load), _MADE if not load.batch else _MADE // 20)))
    begins = time.perf_counter() + 0.2
    ends = begins + load.seconds
    turns = itertools.count()

    async def work() -> None:
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", load.port)
        while True:
            began = time.perf_counter()
            if load.rate:
                began = begins + next(turns) / load.rate
                await asyncio.sleep(max(0.0, began - time.perf_counter()))
            if began >= ends:
                return
            status = await connection.ask(next(requests))
            if status in {200, 202}:
                latencies.append(time.perf_counter() - began)
            else:
                refused[status] = refused.get(status, 0) + 1
                if status == 0:
                    return

    await asyncio.gather(*(work() for _ in range(load.connections)))
    taken = max(load.seconds, time.perf_counter() - begins)
    return {
        "messages_per_second": round(len(latencies) * (load.batch or 1) / taken, 1),
        "p50_ms": round(percentile(latencies, 0.5) * 1000, 2),
        "p99_ms": round(percentile(latencies, 0.99) * 1000, 2),
        "answered": len(latencies),
        "refused": refused,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_run(Load(**json.load(sys.stdin))))))
