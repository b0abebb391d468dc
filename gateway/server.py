"""A server of the gateway: uvicorn in a thread of its own, on a socket that is bound beforehand."""

from __future__ import annotations

import logging
import socket
import threading
from typing import TYPE_CHECKING

import uvicorn

from gateway.patience import PatientProtocol

if TYPE_CHECKING:
    from fastapi import FastAPI

#: Requests under way at once; more are told to come back (503).
_CONCURRENCY = 1024
#: How long an idle connection is kept, and how long requests under way may take once the server leaves, in seconds.
_KEEP_ALIVE_SECONDS = 15
_LEAVE_SECONDS = 3


def bind(address: str, port: int) -> socket.socket:
    """Return a socket that listens; ``port`` 0 picks a free one.

    Raises:
        OSError: the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.create_server((address, port), family=family, backlog=_CONCURRENCY)
    # What it accepts inherits this (asyncio leaves alone sockets that do not call themselves TCP): an answer leaves at
    # once, where its body would otherwise wait 40 ms for the client to confirm the head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


class Server(threading.Thread):
    """Serves ``app`` on ``listening`` until told to leave."""

    def __init__(self, app: FastAPI, listening: socket.socket) -> None:
        super().__init__(name="gateway", daemon=True)
        # Its log lines quote requests, and their paths hold secrets.
        for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._listening = listening
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http=PatientProtocol,
                server_header=False,
                proxy_headers=False,
                lifespan="on",
                limit_concurrency=_CONCURRENCY,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_LEAVE_SECONDS,
            )
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listening.getsockname()[1])

    def run(self) -> None:
        """Serve until told to leave."""
        with self._listening:
            self._server.run(sockets=[self._listening])

    def leave(self, seconds: float = _LEAVE_SECONDS + 1) -> None:
        """Take nothing new, let requests under way end, and close the socket."""
        self._server.should_exit = True
        self.join(seconds)
