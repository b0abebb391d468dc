"""FleetSupervisor: the root of the tree. It keeps the router, the platform actors and the shards alive.

Here its messages arrive, and here is the order in which everything is looked after; each part has a module of its own.
It has no thread, never loads the WhatsApp library, and waits for nothing but PostgreSQL, and for that only briefly.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from actors.child import SupervisedChild
from actors.messages import (
    DevicesChanged,
    Heartbeat,
    Ping,
    Pong,
    RecycleShard,
    RouterAt,
    StopChild,
    TellDevice,
)
from actors.whatsapp.flight_recorder import read_suspects
from actors.whatsapp.preload import preload
from config.logging import logger
from storage.database import SUPERVISOR_PATIENCE, SingleConnection, database_url
from storage.leases import holder_name
from storage.restarts import RestartJournal
from supervisors.attention import Quarantine
from supervisors.children import Child, Children
from supervisors.connect_shares import ConnectShares
from supervisors.device_commands import DeviceCommands
from supervisors.hosting import Hosting
from supervisors.processes import own_process_started
from supervisors.recycling import Budget, Recycler
from supervisors.recycling_steps import RecyclingSteps
from supervisors.shards_file import describe, write_shards_file
from supervisors.supervision import Supervision
from supervisors.tables import FleetTables

#: How often children are looked at, in seconds.
_TICK_SECONDS = 0.25
#: How often it is written down how the shards are, in seconds.
_DESCRIBE_SECONDS = 2.0


class FleetSupervisor(SupervisedChild):
    """Starts every other actor, and starts again what dies."""

    def __init__(self) -> None:
        super().__init__()
        settings = self.settings
        database = SingleConnection(database_url(self.home, settings), patience=SUPERVISOR_PATIENCE)
        self._journal = RestartJournal(database)
        self._tables = FleetTables(database, settings, holder_name(self.home))
        self._children = Children()
        self._quarantine = Quarantine()
        recycler = Recycler(Budget.of(settings), settings.pairing_seconds)
        self._shares = ConnectShares(self._children, recycler, settings.connects_per_second, self.send)
        self._commands = DeviceCommands(self._children, self.send)
        self._hosting = Hosting(
            self._children,
            recycler,
            self._quarantine,
            self._shares,
            self._commands,
            max_shards=settings.max_shards,
            send=self.send,
        )
        self._supervision = Supervision(
            self, self._children, self._hosting, self._journal, settings, fell=self._note_fall
        )
        self._recycling = RecyclingSteps(
            recycler, self._children, self._hosting, self._shares, self._supervision, self._journal
        )
        self._described_at = 0.0
        self._started_at = time.time()

    # --- life --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin: the router first, then whatever the device table asks for."""
        logger().info("The fleet starts")
        preload()
        self._children.ensure("router", "router")
        if self.settings.gateway_enabled or self.settings.webhook_port:
            self._children.ensure("gateway", "gateway")
        if self.settings.retention_days:
            self._children.ensure("housekeeper", "housekeeper")
        self.on_wakeup("tick")

    def on_ping(self, message: Ping, sender: Any) -> None:
        """Say that the fleet is supervised, and whether everything is up."""
        everything = self._tables.asked and all(child.up or child.retiring for child in self._children)
        detail = "up" if everything else "starting"
        self.send(sender, Pong(message.request, os.getpid(), own_process_started(), detail))

    def on_wakeup(self, payload: Any) -> None:
        """Look after everything, and come back in a moment."""
        if payload != "tick":
            return  # the root has nobody to report to; the watchdog asks it
        try:
            if not self._supervision.stopping:
                self._look_after_everything()
        finally:
            self.wake_after(_TICK_SECONDS, "tick")

    def on_stop_child(self, _message: StopChild, _sender: Any) -> None:
        """Let every child finish what is under way and leave; start nothing any more."""
        self._tables.release_leases()
        self._supervision.stop()

    # --- what children and the router tell ---------------------------------------------------------------

    def on_heartbeat(self, beat: Heartbeat, _sender: Any) -> None:
        """Note that a child lives; its first beat ends a restart."""
        child = self._children.find(beat.role, beat.name)
        if child is None or child.owner != beat.owner:
            return  # from a process that was replaced
        first = child.heard_at is None
        child.heard_at = time.monotonic()
        child.pid, child.process_started = beat.pid, beat.process_started
        if child.role == "shard":
            self._hosting.note(child, beat)
            if self._recycling.current is not None:
                self._recycle(time.monotonic())
        if first:
            self._commands.pass_on(child)
            self._supervision.came_up(child)

    def on_child_actor_exited(self, message: Any, _sender: Any) -> None:
        """Take an exit as a hint to look at once."""
        for child in self._children:
            if child.address == message.childAddress:
                self._supervision.fell(child, "exited", "Its process ended.")

    def on_devices_changed(self, message: DevicesChanged, _sender: Any) -> None:
        """Read the device table again."""
        logger().debug("The devices changed", device_id=message.device_id)
        self._tables.read_soon()
        if not self._supervision.stopping:
            self._look_after_everything()

    def on_tell_device(self, message: TellDevice, _sender: Any) -> None:
        """Hand a command on to the shard that hosts the device."""
        self._commands.tell(message)

    def on_recycle_shard(self, message: RecycleShard, _sender: Any) -> None:
        """Have a fresh process take over a shard's devices, as soon as no other is being recycled."""
        self._recycling.ask(message)

    # --- looking after everything ------------------------------------------------------------------------

    def _look_after_everything(self) -> None:
        now = time.monotonic()
        self._supervision.forgive(now)
        if self._tables.is_due(now):
            self._read_devices(now)
        self._recycle(now)
        self._shares.share_out(now)
        self._supervision.look_after_children(now)
        self._tell_routes()
        self._journal.flush()
        self._describe(now)
        self._tables.reroute(now)

    def _read_devices(self, now: float) -> None:
        """Make the children match the device table. While PostgreSQL is away, what runs goes on running."""
        wanted = self._tables.read(now, fresh=not self._hosting.device_ids)
        if wanted is not None:
            self._hosting.host(wanted.whatsapp)
            self._hosting.match("platform", wanted.by_platform)
        elif self._tables.leases_run_out(now):
            logger().error("The leases cannot be renewed; every device is disconnected until they can")
            self._hosting.host(())

    def _recycle(self, now: float) -> None:
        """Take the next step of recycling, if it is time for one; how the shards are is then written down at once."""
        if self._supervision.stopping or self._tables.are_silent(now):
            return
        if self._recycling.step(now):
            self._described_at = 0.0

    def _tell_routes(self) -> None:
        """Tell the router where the devices are, and the gateway where the router is, when that has changed."""
        router = self._children.find("router", "router")
        if router is None or not router.up or not self._children.routes_changed:
            return
        self.send(router.address, self._children.routes())
        self._children.routes_changed = False
        gateway = self._children.find("gateway", "gateway")
        if gateway is not None and gateway.up:
            self.send(gateway.address, RouterAt(router.address, router.owner))

    def _describe(self, now: float) -> None:
        """Write down how the shards are, for the command line; there is no hurry, and no harm if it fails."""
        if now - self._described_at < _DESCRIBE_SECONDS:
            return
        self._described_at = now
        shards = {child.name: (child.pid, child.as_shard()) for child in self._children.shards}
        with suppress(OSError):
            write_shards_file(self.home, describe(shards, self._recycling.current, now, self._started_at))

    def _note_fall(self, child: Child, code: str, now: float) -> None:
        """Save what a fallen child was told, and isolate a device that takes its shard down again and again."""
        self._commands.take_back(child, now)
        if child.role != "shard" or code != "exited":
            return
        for device_id in self._quarantine.crashed(read_suspects(self.home.run / child.name), now):
            logger().error("☣️ A device was inside the library at every crash: it gets a shard of its own", id=device_id)
            self._tables.read_soon()
