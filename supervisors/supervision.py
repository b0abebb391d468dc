"""Keeping children alive: each is a process that is started, watched, killed for certain, and started again.

A heartbeat is the truth about a child, its exit only a hint. One that is gone, or silent for too long, is started
again under the same name, with a back-off.
"""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import psutil

from actors.messages import StartChild, StopChild
from actors.platforms.actor import PlatformActor
from actors.router import Router
from actors.router_connection import ROUTER_NAME
from config.logging import logger
from config.settings import Settings
from storage.restarts import Restart, RestartJournal
from supervisors.children import Child, Children
from supervisors.hosting import Hosting
from supervisors.policy import LONGEST_PROCESS_WAIT, Backoff
from supervisors.processes import process_is_alive
from supervisors.pulse import patience

#: A look that comes this long after the one before was late: something kept the supervisor, in seconds.
_LATE_SECONDS = 1.0
#: How often their processes are looked up, in seconds: the kernel is slow to tell, and an exit is mostly told at once.
_LOOK_AT_PROCESSES_SECONDS = 1.0
#: How long a child that was told to leave may take beyond the time for draining, in seconds.
_LEAVE_SECONDS = 30.0
#: What is started for each role: classes that this process has loaded, and names of those it never loads.
_ACTORS = {
    "router": Router,
    "platform": PlatformActor,
    "gateway": "gateway.actor.GatewayActor",
    "housekeeper": "actors.housekeeper.Housekeeper",
    "shard": "actors.whatsapp.shard.WhatsAppShard",
}


class Parent(Protocol):
    """The actor whose children they are."""

    def createActor(self, kind: Any, *, globalName: str | None = None) -> Any:  # noqa: N802, N803 - Thespian's names
        """Start a process for an actor; return its address."""

    def send(self, address: Any, message: Any) -> None:
        """Hand a message to an actor."""


class Supervision:
    """Starts the children, and starts again what falls.

    ``fell`` is called with each child that fell, the cause's code, and the time (monotonic seconds).
    """

    def __init__(
        self,
        parent: Parent,
        children: Children,
        hosting: Hosting,
        journal: RestartJournal,
        settings: Settings,
        fell: Callable[[Child, str, float], None],
    ) -> None:
        self._parent = parent
        self._children = children
        self._hosting = hosting
        self._journal = journal
        self._settings = settings
        self._tell_of_fall = fell
        longest = min(settings.backoff_longest_seconds, LONGEST_PROCESS_WAIT)
        self._backoff = Backoff(settings.backoff_first_seconds, longest)
        self._listened_at = time.monotonic()
        self._looked_at_processes = 0.0
        #: Nothing is started any more.
        self.stopping = False

    def stop(self) -> None:
        """Let every child finish what is under way and leave; start nothing any more."""
        self.stopping = True
        for child in self._children:
            if child.address is not None:
                self._parent.send(child.address, StopChild())

    # --- looking after children --------------------------------------------------------------------------

    def forgive(self, now: float) -> None:
        """Leave out of account the time in which this process itself did not get to listen."""
        late = now - self._listened_at
        self._listened_at = now
        if late < _LATE_SECONDS:
            return
        for child in self._children:
            child.created_at = min(now, child.created_at + late)
            if child.heard_at is not None:
                child.heard_at = min(now, child.heard_at + late)

    def look_after_children(self, now: float) -> None:
        """Start what is due, notice what fell, and let go what is not wanted any more."""
        thorough = now - self._looked_at_processes >= _LOOK_AT_PROCESSES_SECONDS
        if thorough:
            self._looked_at_processes = now
        for child in self._children:
            self._look_after(child, now, thorough=thorough)

    def _look_after(self, child: Child, now: float, *, thorough: bool) -> None:
        if child.retiring:
            self._retire(child)
        if child.address is None:
            if not child.retiring and now >= child.start_at and self._is_gone(child):
                self._start(child, now)
            return
        if child.heard_at is None:
            if now - child.created_at > self._settings.child_start_seconds:
                self.fell(child, "start_timeout", "It did not report in time after its start.")
        elif thorough and child.pid is not None and not process_is_alive(child.pid, child.process_started):
            self.fell(child, "exited", "Its process ended.")
        elif thorough and self._is_silent(child, now - child.heard_at):
            self.fell(child, "silent", "It stopped reporting that it lives.")
        else:
            self._hosting.repeat_lost_order(child, now)

    def _is_silent(self, child: Child, quiet_seconds: float) -> bool:
        """Return whether a child has been quiet for longer than even an overloaded one may be."""
        ordinary = self._settings.heartbeat_seconds * self._settings.heartbeat_misses
        if quiet_seconds <= ordinary:
            return False
        works = child.pid is not None and child.pulse.beats(child.pid)
        return quiet_seconds > patience(ordinary, works=works)

    def _retire(self, child: Child) -> None:
        """Let a child that is not wanted any more go, once it certainly holds no device."""
        now = time.monotonic()
        if child.address is None:
            if self._is_gone(child):
                self._children.remove(child)
            return
        if child.holds and child.leaving_since is None:
            return  # a device is still being closed, or logged out
        if child.leaving_since is None:
            child.leaving_since = now
            self._parent.send(child.address, StopChild())
        elif now - child.leaving_since > self._settings.drain_seconds + _LEAVE_SECONDS:
            self.fell(child, "leave_timeout", "It did not leave in time.")

    # --- starting ----------------------------------------------------------------------------------------

    def _start(self, child: Child, now: float) -> None:
        child.lives += 1
        child.owner = f"{child.name}/{uuid.uuid4().hex}"
        child.created_at = now
        child.heard_at = None
        child.leaving_since = None
        first = self._hosting.first_order(child)
        name = ROUTER_NAME if child.role == "router" else None
        child.address = self._parent.createActor(_ACTORS[child.role], globalName=name)
        self._parent.send(
            child.address,
            StartChild(
                child.role,
                child.name,
                child.owner,
                first.device_ids,
                restarted=child.lives > 1,
                connects_per_second=first.connects_per_second,
                order=first.order,
            ),
        )

    def came_up(self, child: Child) -> None:
        """Note the first word of a child's process; it ends a restart."""
        now = time.monotonic()
        child.trouble.came_online(now)
        self._children.routes_changed = True
        if child.lives == 1:
            logger().info(f"Started {child.role} {child.name}", process=child.pid)
            return
        code, words = child.cause
        self._journal.record(
            Restart(
                what=child.role,
                name=child.name,
                cause_code=code,
                cause=words,
                attempt=child.attempt,
                tried="started a new process",
                outcome="ok",
                seconds=now - (child.fell_at if child.fell_at is not None else child.created_at),
            )
        )

    # --- falling -----------------------------------------------------------------------------------------

    def fell(self, child: Child, code: str, words: str) -> None:
        """Note that a child is down: kill what is left of it and set the time of its next start."""
        if child.address is None or self.stopping:
            return
        now = time.monotonic()
        child.address = None
        if child.leaving_since is not None:  # it was told to
            self._tell_of_fall(child, "left", now)
            return
        child.heard_at = None
        child.opening = frozenset()
        child.fell_at = now
        child.cause = (code, words)
        child.attempt = child.trouble.next_attempt(now, self._settings.stable_seconds)
        child.start_at = now + self._backoff.seconds(child.attempt, random.random())  # noqa: S311 - jitter
        self._children.routes_changed = True
        logger().warning(
            f"⚠️ {child.role} {child.name} is down",
            cause=words,
            code=code,
            process=child.pid,
            attempt=child.attempt,
            starts_in=round(child.start_at - now, 3),
        )
        if child.pid is None:
            self._kill_unknown_children()
        self._is_gone(child)
        self._tell_of_fall(child, code, now)

    def _is_gone(self, child: Child) -> bool:
        """Return whether the former process is gone for certain: only then may its devices be opened again."""
        if child.pid is None or not process_is_alive(child.pid, child.process_started):
            child.pid = None
            self._hosting.is_gone(child)
            return True
        with suppress(ProcessLookupError, PermissionError):
            os.kill(child.pid, signal.SIGKILL)
        return False

    def _kill_unknown_children(self) -> None:
        """Kill processes of ours that never reported: one of them might still come to hold the fallen child's place."""
        known = {child.pid for child in self._children}
        patience = self._settings.child_start_seconds - 1.0
        for process in psutil.Process().children():
            with suppress(psutil.Error):
                if process.pid not in known and time.time() - process.create_time() > patience:
                    process.kill()
