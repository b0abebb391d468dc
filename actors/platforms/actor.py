"""PlatformActor: sends for every device of one platform. It keeps nothing: devices, messages and outcomes are rows.

Its main thread takes messages and reports life. A dispatcher thread looks which lanes have work and gives each one's
message to a worker thread; a lane has one message under way at a time, so its order holds (more only where
``platform_in_flight`` says so). A platform device is never refreshed: it has no connection to lose.
"""

from __future__ import annotations

import os
from typing import Any

from actors.care import Rules
from actors.child import SupervisedChild
from actors.messages import HostDevices, StopChild, WorkNoted, WorkWaiting
from actors.platforms.callbacks import told_no_address
from actors.platforms.dispatcher import Dispatcher
from config.daemon import loopback_endpoint
from config.logging import logger
from config.webhooks import callback_url
from storage.credentials import CredentialSeal
from storage.database import PooledConnections, database_url
from storage.outbox import Outbox

#: Database connections of one platform actor, at most.
_CONNECTIONS = 4


class PlatformActor(SupervisedChild):
    """The actor of one platform."""

    def __init__(self) -> None:
        super().__init__()
        self._dispatcher: Dispatcher | None = None

    def begin(self) -> None:
        """Start dispatching."""
        assert self.start is not None  # noqa: S101 - life begins with it
        rules = Rules.of(self.settings)
        home, settings, loopback = self.home, self.settings, loopback_endpoint(self.home) is not None
        self._dispatcher = Dispatcher(
            self.start.name,
            Outbox(PooledConnections(database_url(self.home, self.settings), _CONNECTIONS), self.start.owner, rules),
            CredentialSeal(self.home.credentials_key),
            loopback_allowed=loopback,
            workers=self.settings.platform_workers,
            in_flight=self.settings.platform_in_flight,
            poll_seconds=self.settings.poll_seconds,
            patience_seconds=self.settings.in_doubt_patience_seconds,
            rules_everywhere=rules.everywhere,
            callback_url_of=lambda device: callback_url(home, settings, device, loopback=loopback),
        )
        if notice := told_no_address(settings, self.start.name, loopback=loopback):
            logger().warning(notice)
        self._dispatcher.host(self.start.device_ids)
        self._dispatcher.start()

    def is_well(self) -> bool:
        """Return whether the dispatcher lives."""
        return self._dispatcher is None or self._dispatcher.is_alive()

    def on_host_devices(self, message: HostDevices, _sender: Any) -> None:
        """Send for these devices from now on."""
        if self._dispatcher is not None:
            self._dispatcher.host(message.device_ids)

    def on_work_waiting(self, message: WorkWaiting, sender: Any) -> None:
        """Look at these lanes now."""
        if self._dispatcher is not None:
            self._dispatcher.wake(message.device_ids)
        self.send(sender, WorkNoted())

    def on_stop_child(self, _message: StopChild, _sender: Any) -> None:
        """Let requests under way end, then leave."""
        if self._dispatcher is not None:
            self._dispatcher.leave(self.settings.drain_seconds)
        os._exit(0)
