"""The actor system's head: Thespian's Admin and the root supervisor. Without either, nobody looks after the actors."""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import Any

import psutil

from actors.messages import Ping, Pong, StartChild, StopChild
from config.errors import SalamanderError
from config.home import Home
from config.logging import logger
from config.settings import Settings
from supervisors.actor_system import admin_pid, admin_port, ask, disconnect, lookup, start_actor_system
from supervisors.processes import process_is_alive, process_started, reap
from supervisors.pulse import Pulse, patience

#: How often the root supervisor is asked whether it lives: before it said that everything is up, and then. In seconds.
_FIRST_PINGS_SECONDS = 0.2
_PING_SECONDS = 2.0
#: How long an answer is waited for, in seconds, and how many misses are borne.
_PING_WAIT_SECONDS = 3.0
_PING_MISSES = 3
#: How often it is looked whether the actors have left, in seconds.
_LOOK_SECONDS = 0.05


class SystemHead:
    """Starts the actor system, tells when its head has fallen, and lets it leave in order."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self._home = home
        self._settings = settings
        #: Where the Admin listens; the configured port until it does.
        self.port = settings.admin_port
        #: Whether the root supervisor has said since its start that everything is up.
        self.up = False
        self._system: Any = None
        self._fleet: Any = None
        self._fleet_process: tuple[int, float] = (0, 0.0)
        self._admin_process: tuple[int, float] = (0, 0.0)
        self._next_ping = 0.0
        self._misses = 0
        self._pulse = Pulse()

    # --- starting ----------------------------------------------------------------------------------------

    def start_admin(self) -> None:
        """Start Thespian's Admin; ``port`` tells where it listens.

        Raises:
            SalamanderError: it cannot be started.
        """
        self._system = start_actor_system(self._home, self._settings.bind_address, self._settings.admin_port)
        self.port = admin_port(self._system)
        admin = admin_pid(self._system)
        self._admin_process = (admin, process_started(admin) or 0.0)

    def start_fleet(self) -> None:
        """Start the root supervisor and return when it answers.

        Raises:
            SalamanderError: it did not answer in time.
        """
        self._fleet = self._system.createActor("supervisors.fleet.FleetSupervisor", globalName="fleet")
        owner = f"fleet/{uuid.uuid4().hex}"
        self._system.tell(self._fleet, StartChild("fleet", "fleet", owner))
        answer = ask(self._system, self._fleet, Ping(), self._settings.child_start_seconds)
        if not isinstance(answer, Pong):
            raise SalamanderError("The root supervisor did not answer.", "See run.py logs.")
        self._fleet_process = (answer.pid, answer.process_started)
        self.up = False
        self._misses = 0
        self._next_ping = 0.0
        logger().info("The actor system is up", admin=self._admin_process[0], fleet=answer.pid, port=self.port)

    # --- watching ----------------------------------------------------------------------------------------

    def look(self) -> tuple[str, str] | None:
        """Return why the head has fallen, as a stable code and in words, or None while it lives."""
        if not process_is_alive(*self._admin_process):
            return "admin_died", "Thespian's Admin ended."
        if not process_is_alive(*self._fleet_process):
            return "fleet_died", "The root supervisor ended."
        now = time.monotonic()
        if now < self._next_ping:
            return None
        self._next_ping = now + (_PING_SECONDS if self.up else _FIRST_PINGS_SECONDS)
        answer = ask(self._system, self._fleet, Ping(), _PING_WAIT_SECONDS)
        fleet_answers = isinstance(answer, Pong)
        if isinstance(answer, Pong) and self._admin_answers():
            self._misses = 0
            self.up = self.up or answer.detail == "up"
            return None
        self._misses += 1
        silent, _ = self._admin_process if fleet_answers else self._fleet_process
        if self._misses >= patience(_PING_MISSES, works=self._pulse.beats(silent)):
            return "silent", "The actor system's head stopped answering."
        return None

    def _admin_answers(self) -> bool:
        """Return whether Thespian's Admin still answers: without it no client finds the router."""
        try:
            lookup(self._system, "fleet", _PING_WAIT_SECONDS)
        except SalamanderError:
            return False
        return True

    # --- leaving -----------------------------------------------------------------------------------------

    def leave(self, seconds: float) -> None:
        """Let the actors finish what is under way and leave, for so many seconds at most; then end the system."""
        if self._system is None or self._fleet is None:
            return
        with contextlib.suppress(Exception):
            self._system.tell(self._fleet, StopChild())
        self._await_children(seconds)
        with contextlib.suppress(Exception):
            self._system.shutdown()

    def _await_children(self, seconds: float) -> None:
        """Wait until the root supervisor's children left by themselves, or time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            reap()
            if not _has_children(self._fleet_process[0]):
                return
            time.sleep(_LOOK_SECONDS)

    def forget(self) -> None:
        """Close the connection to a system that has ended, or is about to be killed."""
        if self._system is not None:
            with contextlib.suppress(Exception):
                disconnect(self._system)
            self._system = None


def _has_children(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).children())
    except psutil.Error:
        return False
