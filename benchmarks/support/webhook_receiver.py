"""A receiver of webhooks on loopback that fails in the ways in which receivers fail, and can be down for minutes."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from benchmarks.support.webhook_judge import Taken
from benchmarks.support.webhook_weather import Dice

#: How long a slow answer takes (longer than any sender waits), and a hesitant one, in seconds.
_SLOW_SECONDS = 20.0
_HESITANT_SECONDS = (0.5, 5.0)
#: What a busy receiver asks for in Retry-After, in seconds.
_RETRY_AFTER = (1, 5)


class FailingReceiver:
    """Takes deliveries at one address that it keeps across its outages.

    Attributes:
        secret: signatures are verified with it; None: there are none.
        taken: what it took, in order.
        came: how requests fared, by kind.
        forged: requests whose signature was wrong.
    """

    def __init__(self, seed: int) -> None:
        self.secret: str | None = None
        self.taken: list[Taken] = []
        self.came: Counter[str] = Counter()
        self.forged = 0
        self.fails = True
        self.down = False
        self.lock = threading.Lock()
        self.leaving = threading.Event()
        self._dice = Dice(seed)
        self._server = _Server(("127.0.0.1", 0), self)
        self._port = int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}/hook"

    def go_down(self) -> None:
        """Refuse connections, and break those there are."""
        self.down = True
        self._server.end()

    def come_up(self) -> None:
        """Listen again, at the same address."""
        self._server = _Server(("127.0.0.1", self._port), self)
        self.down = False

    def close(self) -> None:
        """End."""
        self.leaving.set()
        if not self.down:
            self.go_down()

    def fate(self) -> tuple[str, float]:
        """Return how the next request fares, and how long its answer takes or shall be waited for, in seconds."""
        with self.lock:
            fate = self._dice.throw() if self.fails else "well"
            fate = "down" if self.down else fate
            self.came[fate] += 1
            if fate == "429":
                return fate, float(round(self._dice.seconds(*_RETRY_AFTER)))
            return fate, {"slow": _SLOW_SECONDS, "hesitant": self._dice.seconds(*_HESITANT_SECONDS)}.get(fate, 0.0)

    def take(self, raw: bytes, headers: dict[str, str]) -> None:
        """Take an event, as a careful receiver would: only with a signature that is right."""
        if self.secret is not None:
            try:
                Webhook(self.secret).verify(raw, headers)
            except WebhookVerificationError:
                self.forged += 1
                return
        with self.lock:
            self.taken.append(Taken(headers["webhook-id"], hashlib.sha256(raw).digest(), time.time()))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], receiver: FailingReceiver) -> None:
        super().__init__(address, _Handler)
        self.receiver = receiver
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self.socket.close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: who is killed leaves broken connections."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        receiver = self.server.receiver
        fate, seconds = receiver.fate()
        if fate in {"well", "hesitant", "slow", "lost"}:
            receiver.take(raw, {name.lower(): value for name, value in self.headers.items()})
        if fate in {"hesitant", "slow"}:
            receiver.leaving.wait(seconds)
        if fate in {"reset", "lost", "down"}:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fate == "redirect":
            self._answer(307, {"Location": receiver.url.removesuffix("hook") + "elsewhere"})
        elif fate == "429":
            self._answer(429, {"Retry-After": f"{seconds:.0f}"})
        else:
            self._answer(int(fate) if fate.isdecimal() else 200, {})

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""
