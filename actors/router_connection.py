"""How a program outside the daemon reaches the router: found anew whenever the actor system was restarted."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from config.daemon import DaemonFile, read_daemon_file
from config.errors import DaemonNotRunning, NoAnswer, Refused
from config.home import Home
from supervisors.actor_system import Endpoint, connect_actor_system, disconnect, lookup
from supervisors.processes import process_is_alive

#: The name under which the router is registered.
ROUTER_NAME = "router"
#: An endpoint that was not used for this long may have been forgotten at the other end, in seconds.
_FRESH_SECONDS = 5.0
#: How long it is believed that the daemon which answered a moment ago is still the one, in seconds.
_BELIEVED_SECONDS = 0.2


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
    """A way to the router that survives its restarts, and those of the whole actor system. It starts nothing.

    Threads may ask at the same time: each asks from an endpoint of its own.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._daemon = running_daemon(home)
        self._seen_at = time.monotonic()
        self._system: Any = None
        self._router: Any = None
        self._idle: list[tuple[Endpoint, float]] = []

    def ask(self, message: Any, seconds: float) -> Any | None:
        """Return the router's answer, or None when there is none now (it may be on its way up).

        Raises:
            DaemonNotRunning: the daemon is gone.
        """
        self._follow_the_daemon()
        # Another thread may let go of these at any moment.
        system, router = self._system, self._router
        try:
            if system is None:
                system = self._system = connect_actor_system(self._home, self._daemon.bind_address, self._daemon.port)
            if router is None:
                router = self._router = lookup(system, ROUTER_NAME)
        except (DaemonNotRunning, NoAnswer):
            self.close()  # the watchdog lives, so the actor system is being started
            return None
        try:
            answer = None if router is None else self._asked(system, router, message, seconds)
        except ValueError as error:
            raise Refused(f"The request is too large: {error}.", "Send less at once.", code="too_large") from None
        if answer is None:
            self._router = None
            self._seen_at = float("-inf")
        return answer

    def _follow_the_daemon(self) -> None:
        """Let go of a daemon that another one has taken the place of."""
        now = time.monotonic()
        if now - self._seen_at < _BELIEVED_SECONDS:
            return
        daemon = running_daemon(self._home)
        if daemon.port != self._daemon.port or daemon.pid != self._daemon.pid:
            self.close()
            self._daemon = daemon
        self._seen_at = now

    def _asked(self, system: Any, router: Any, message: Any, seconds: float) -> Any | None:
        """Ask from an endpoint that nobody else asks from; one whose question stayed unanswered is not used again."""
        endpoint = self._endpoint(system)
        answer = None
        try:
            answer = endpoint.ask(
                router, message, seconds, lambda told: getattr(told, "request", None) == message.request
            )
        finally:
            if answer is None:
                endpoint.close()
            else:
                self._idle.append((endpoint, time.monotonic()))
        return answer

    def _endpoint(self, system: Any) -> Endpoint:
        with contextlib.suppress(IndexError):  # another thread took the last one
            while True:
                endpoint, used_at = self._idle.pop()
                if time.monotonic() - used_at < _FRESH_SECONDS:
                    return endpoint
                endpoint.close()
        return Endpoint(system)

    def close(self) -> None:
        """Close this process's sockets; the daemon goes on."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop()[0].close()
        system, self._system, self._router = self._system, None, None
        if system is not None:
            with contextlib.suppress(Exception):
                disconnect(system)
