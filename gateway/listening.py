"""Where the gateway's servers listen. A port that is taken is no reason to keep the fleet from sending."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from typing import TYPE_CHECKING

from config.gateway import keep_port, kept_port
from config.logging import logger
from gateway.server import Server, bind

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fastapi import FastAPI

    from config.home import Home

#: Where a free port is picked: below those that the kernel gives to outgoing connections, one of which might else hold
#: the port while the gateway is restarted.
_PORTS = range(20_000, 32_000)
_TRIES = 100


class Listener:
    """One server on one port: it listens as soon as the port is free.

    Args:
        what: as it is called in the log.
        address: the IP address.
        port: the port; 0 picks a free one, which the home keeps.
        app: makes what is served.
    """

    def __init__(self, what: str, home: Home, address: str, port: int, app: Callable[[], FastAPI]) -> None:
        self._what = what
        self._home = home
        self._address = address
        self._port = port
        self._app = app
        self._server: Server | None = None

    def is_well(self) -> bool:
        """Return whether the server lives, or waits for its port."""
        return self._server is None or self._server.is_alive()

    def listen(self) -> None:
        """Listen, unless it does already or the port is taken."""
        if self._server is not None:
            return
        try:
            listening = bind(self._address, self._port) if self._port else _bind_kept(self._home, self._address)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            port = self._port or kept_port(self._home)
            logger().error(
                f"The {self._what} cannot listen; it tries again", address=self._address, port=port, reason=reason
            )
            return
        self._server = Server(self._app(), listening)
        self._server.start()
        logger().info(f"The {self._what} is up", address=self._address, port=self._server.port)

    def leave(self) -> None:
        """Let requests under way end, and close the port."""
        if self._server is not None:
            self._server.leave()


def _bind_kept(home: Home, address: str) -> socket.socket:
    """Return a socket on the port that the home keeps, or on a free one, which it keeps from now on.

    Raises:
        OSError: the kept port is taken; another would be another address.
    """
    kept = kept_port(home)
    if kept is not None:
        return bind(address, kept)
    for port in random.sample(_PORTS, _TRIES):
        with suppress(OSError):
            listening = bind(address, port)
            keep_port(home, port)
            return listening
    return bind(address, 0)
