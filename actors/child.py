"""The life of a child of the fleet's supervisor: it is told who it is, reports that it lives, and leaves when told."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from actors.base import SupervisedActor
from actors.messages import Heartbeat, Ping, Pong, StartChild
from config.home import DAEMON_VARIABLE, Home
from config.settings import Settings, load_settings
from supervisors.processes import name_process, own_process_started


class SupervisedChild(SupervisedActor):
    """A child. Its life begins in :meth:`begin`; it is replaced when :meth:`is_well` turns false or it falls silent."""

    #: Who this child is; None until its parent said so.
    start: StartChild | None = None
    parent: Any = None

    @cached_property
    def home(self) -> Home:
        """The home of the daemon this process belongs to."""
        return Home(Path(os.environ[DAEMON_VARIABLE]))

    @cached_property
    def settings(self) -> Settings:
        """The settings as they were when this process began."""
        return load_settings(self.home)

    def begin(self) -> None:
        """Begin the work; life is reported already."""

    def is_well(self) -> bool:
        """Return whether this child still does its work; a child that is not well stays silent and is replaced."""
        return True

    def on_start_child(self, message: StartChild, sender: Any) -> None:
        """Learn who this is, report life, begin."""
        self.start, self.parent = message, sender
        name = message.name if message.role != "platform" else f"platform-{message.name}"
        name_process(name)
        self.log_as(name)
        self._beat()
        self.begin()

    def on_wakeup(self, payload: Any) -> None:
        """Report life on every beat."""
        if payload == "beat":
            self._beat()

    def on_ping(self, message: Ping, sender: Any) -> None:
        """Answer that this actor is there."""
        self.send(sender, Pong(message.request, os.getpid(), own_process_started()))

    def heartbeat(self, start: StartChild) -> Heartbeat:
        """Return what is reported."""
        return Heartbeat(start.role, start.name, start.owner, os.getpid(), own_process_started())

    def report_life(self) -> None:
        """Report life now, besides the regular beat."""
        if self.start is not None and self.is_well():
            self.send(self.parent, self.heartbeat(self.start))

    def _beat(self) -> None:
        self.report_life()
        self.wake_after(self.settings.heartbeat_seconds, "beat")
