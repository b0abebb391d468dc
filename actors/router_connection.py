"""How a program outside the daemon reaches the router: found anew whenever the actor system was restarted."""

from __future__ import annotations

import contextlib
from typing import Any

from config.daemon import DaemonFile, read_daemon_file
from config.errors import DaemonNotRunning, NoAnswer, Refused
from config.home import Home
from supervisors.actor_system import ask, connect_actor_system, disconnect, lookup
from supervisors.processes import process_is_alive

#: The name under which the router is registered.
ROUTER_NAME = "router"


def running_daemon(home: Home) -> DaemonFile:
    """Return what the running daemon of ``home`` wrote.

    Raises:
        DaemonNotRunning: there is none.
    """
    daemon = read_daemon_file(home)
    if daemon is None or not process_is_alive(daemon.pid, daemon.process_started):
        raise DaemonNotRunning(home.path)
    return daemon


class RouterConnection:
    """A way to the router that survives its restarts, and those of the whole actor system. It starts nothing."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._daemon = running_daemon(home)
        self._system: Any = None
        self._router: Any = None

    def ask(self, message: Any, seconds: float) -> Any | None:
        """Return the router's answer, or None when there is none now (it may be on its way up).

        Raises:
            DaemonNotRunning: the daemon is gone.
        """
        daemon = running_daemon(self._home)
        if daemon.port != self._daemon.port or daemon.pid != self._daemon.pid:
            self.close()
            self._daemon = daemon
        try:
            if self._system is None:
                self._system = connect_actor_system(self._home, daemon.bind_address, daemon.port)
            if self._router is None:
                self._router = lookup(self._system, ROUTER_NAME)
        except (DaemonNotRunning, NoAnswer):
            self.close()  # the watchdog lives, so the actor system is being started
            return None
        try:
            answer = None if self._router is None else ask(self._system, self._router, message, seconds)
        except ValueError as error:
            raise Refused(f"The request is too large: {error}.", "Send less at once.", code="too_large") from None
        if answer is None:
            self._router = None
        return answer

    def close(self) -> None:
        """Close this process's sockets; the daemon goes on."""
        system, self._system, self._router = self._system, None, None
        if system is not None:
            with contextlib.suppress(Exception):
                disconnect(system)
