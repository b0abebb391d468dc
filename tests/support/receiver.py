"""A receiver of webhooks as its operator would write one, that fails in whatever way a test asks for."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from standardwebhooks.webhooks import Webhook

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Received:
    """One delivery: its headers, its body, and whether its signature was verified."""

    id: str
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def type(self) -> str:
        return str(self.body["type"])

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = self.body["data"]
        return data


class Receiver(ThreadingHTTPServer):
    """Takes deliveries on loopback; what ``behave`` returns is what becomes of each.

    A status is answered; ``reset`` breaks the connection, ``lost`` does so once it was taken, ``hang`` answers when the
    receiver is closed, ``redirect`` leads to an address of its own that counts who follows.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behave: Callable[[Received], int | str] = lambda _: 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave = behave
        self.secret: str | None = None
        self.taken: list[Received] = []
        self.came: list[Received] = []
        self.forged: list[str] = []
        self.followed = 0
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that are killed leave broken connections."""

    def firsts(self) -> list[Received]:
        """Return what was taken, each event once, in the order of its first arrival."""
        with self.lock:
            found: dict[str, Received] = {}
            for each in self.taken:
                found.setdefault(each.id, each)
            return list(found.values())

    def repeated(self) -> int:
        """Return how many deliveries were taken more than once."""
        with self.lock:
            return sum(count - 1 for count in Counter(each.id for each in self.taken).values())


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.followed += 1
        self._answer(200)

    def do_POST(self) -> None:
        if self.path == "/elsewhere":
            self.server.followed += 1
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        received = Received(headers["webhook-id"], json.loads(raw), headers)
        server = self.server
        if server.secret is not None:
            try:
                Webhook(server.secret).verify(raw, headers)
            except Exception as error:
                server.forged.append(str(error))
        with server.lock:
            server.came.append(received)
        what = server.behave(received)
        if what == "lost" or (isinstance(what, int) and 200 <= what < 300):
            with server.lock:
                server.taken.append(received)
        if isinstance(what, int):
            self._answer(what)
        elif what in {"reset", "lost"}:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif what == "hang":
            server.closing.wait()
            self.close_connection = True
        else:
            self.send_response(307)
            self.send_header("Location", f"http://127.0.0.1:{server.port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _answer(self, status: int) -> None:
        with contextlib.suppress(OSError):
            body = f"status {status}".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


def failing_at_random(share: float, seed: int, slow_seconds: float = 0.3) -> Callable[[Received], int | str]:
    """Return a behaviour that fails in one of many ways, so often."""
    dice = random.Random(seed)  # noqa: S311 - a test's dice
    ways: list[int | str] = [500, 503, 429, 404, "reset", "redirect", "slow", "lost"]
    lock = threading.Lock()

    def behave(_: Received) -> int | str:
        with lock:
            fails = dice.random() < share
            way: int | str = dice.choice(ways)
        if not fails:
            return 200
        if way == "slow":
            time.sleep(slow_seconds)
            return 200
        return way

    return behave
