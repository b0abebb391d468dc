"""A stand-in that does as little as possible: it takes WAHA's ``sendText``, waits, and answers with a fresh id.

The stand-ins of the simulator judge and record what they are sent, and would be measured along. This one counts:
``GET /count`` answers with how many sends were answered, and when the first arrived and the last was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time

_HEAD = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class SlowPlatform:
    """Answers every send after ``latency`` seconds."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._arrived = self._answered = 0
        self._first = self._last = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_length(head))
                if head.startswith(b"GET /count"):
                    writer.write(_answer(200, {"sent": self._answered, "first": self._first, "last": self._last}))
                    continue
                self._arrived += 1
                number = self._arrived
                self._first = self._first or time.time()
                await asyncio.sleep(self._latency)
                self._answered += 1
                self._last = time.time()
                writer.write(_answer(201, {"id": f"true_60@c.us_{number}"}))
        writer.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _answer(status: int, value: object) -> bytes:
    body = json.dumps(value).encode()
    return _HEAD % (status, len(body)) + body


async def run(latency: float) -> None:
    """Serve on a port of its own, told on standard output, until killed."""
    server = await asyncio.start_server(SlowPlatform(latency).serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds until a send is answered")
    asyncio.run(run(parser.parse_args().latency))
