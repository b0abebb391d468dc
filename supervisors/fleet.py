"""FleetSupervisor: the root of the tree. It keeps the router, the platform actors and the shards alive.

A heartbeat is the truth about a child, its exit only a hint: a process that is gone, or silent for too long, is killed
for certain and started again under the same name, with a back-off. It has no thread, never loads the WhatsApp library,
and waits for nothing but PostgreSQL, and for that only briefly.
"""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from contextlib import suppress
from typing import Any

import psutil

from actors.child import SupervisedChild
from actors.messages import (
    ConnectShare,
    DevicesChanged,
    Heartbeat,
    HostDevices,
    Ping,
    Pong,
    RecycleShard,
    RouterAt,
    Routes,
    StartChild,
    StopChild,
    TellDevice,
)
from actors.platforms.actor import PlatformActor
from actors.router import Router
from actors.whatsapp.flight_recorder import read_suspects
from actors.whatsapp.preload import preload
from config.errors import StorageUnavailable
from config.logging import logger
from storage import devices, leases, outbox
from storage.database import SUPERVISOR_PATIENCE, SingleConnection, database_url
from storage.leases import holder_name
from storage.restarts import Restart, RestartJournal
from supervisors.attention import ALERTING_CODES, Alerts, Quarantine
from supervisors.budget import planned, share_of, weight_of
from supervisors.children import Child, key_of
from supervisors.failover import reroute
from supervisors.placement import place
from supervisors.policy import LONGEST_PROCESS_WAIT, Backoff
from supervisors.processes import own_process_started, process_is_alive
from supervisors.pulse import patience
from supervisors.recycling import Budget, Recycler, Recycling
from supervisors.shards_file import describe, write_shards_file

#: How often children are looked at, in seconds.
_TICK_SECONDS = 0.25
#: A look that comes this long after the one before was late: something kept the supervisor, in seconds.
_LATE_SECONDS = 1.0
#: How often their processes are looked up, in seconds: the kernel is slow to tell, and an exit is mostly told at once.
_LOOK_AT_PROCESSES_SECONDS = 1.0
#: How often the device table is read again, in case a hint was lost, in seconds.
_READ_DEVICES_SECONDS = 10.0
#: How often stranded messages are looked for, in seconds.
_REROUTE_SECONDS = 2.0
#: How often it is written down how the shards are, in seconds.
_DESCRIBE_SECONDS = 2.0
#: Without a word from PostgreSQL for this long no device moves: its new shard could not read its row. In seconds.
_STORAGE_SILENCE_SECONDS = 5.0
#: After how long a shard is given an order again that it has not carried out, in seconds.
_ORDER_SECONDS = 30.0
#: How long a child that was told to leave may take beyond the time for draining, in seconds.
_LEAVE_SECONDS = 30.0
#: How long a shard may take to log a removed device out, in seconds: if it falls meanwhile, it is told again.
_REMOVAL_SECONDS = 60.0
#: A send of a removed device that has no outcome after this long will never have one, in seconds.
_REMOVED_SECONDS = 60.0
#: A holder of leases that cannot renew them disconnects its devices this long before they run out, in seconds.
_STEP_BACK_SECONDS = 15.0
#: For how long a shard that was started again has a larger share of the fleet's connects, in seconds.
_HURRY_SECONDS = 20.0
#: The name under which clients find the router.
ROUTER_NAME = "router"


class FleetSupervisor(SupervisedChild):
    """Starts every other actor, and starts again what dies."""

    def __init__(self) -> None:
        super().__init__()
        database = SingleConnection(database_url(self.home, self.settings), patience=SUPERVISOR_PATIENCE)
        self._database = database
        self._journal = RestartJournal(database)
        longest = min(self.settings.backoff_longest_seconds, LONGEST_PROCESS_WAIT)
        self._backoff = Backoff(self.settings.backoff_first_seconds, longest)
        self._children: dict[str, Child] = {}
        #: Shards that were started again a moment ago.
        self._hurried: frozenset[str] = frozenset()
        self._read_devices_at = 0.0
        self._processes_seen = 0.0
        self._listened_at = time.monotonic()
        self._stopping = False
        self._routes_changed = True
        self._quarantine = Quarantine()
        self._recycler = Recycler(Budget.of(self.settings), self.settings.pairing_seconds)
        self._ours: tuple[int, ...] = ()
        self._stored_at = 0.0
        self._described_at = 0.0
        self._started_at = time.time()
        self._alerts = Alerts()
        self._holder = holder_name(self.home)
        #: A private server knows no other host; only a shared one needs a holder who steps back in time.
        self._shared = self.settings.database_url is not None
        self._leased_at = time.monotonic()
        self._rerouted_at = 0.0

    # --- life --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin: the router first, then whatever the device table asks for."""
        logger().info("The fleet starts")
        preload()
        self._children.setdefault("router", Child("router", "router"))
        if self.settings.gateway_enabled or self.settings.webhook_port:
            self._children.setdefault("gateway:gateway", Child("gateway", "gateway"))
        if self.settings.retention_days:
            self._children.setdefault("housekeeper:housekeeper", Child("housekeeper", "housekeeper"))
        self.on_wakeup("tick")

    def on_ping(self, message: Ping, sender: Any) -> None:
        """Say that the fleet is supervised, and whether everything is up."""
        everything = self._read_devices_at > 0 and all(child.up or child.retiring for child in self._children.values())
        detail = "up" if everything else "starting"
        self.send(sender, Pong(message.request, os.getpid(), own_process_started(), detail))

    def on_wakeup(self, payload: Any) -> None:
        """Look after the children, and come back in a moment."""
        if payload != "tick":
            return  # the root has nobody to report to; the watchdog asks it
        try:
            if not self._stopping:
                self._look_after_children()
        finally:
            self.wake_after(_TICK_SECONDS, "tick")

    def on_stop_child(self, _message: StopChild, _sender: Any) -> None:
        """Let every child finish what is under way and leave; start nothing any more."""
        self._stopping = True
        with suppress(StorageUnavailable), self._database.transaction() as connection:
            leases.release(connection, self._holder)
        for child in self._children.values():
            if child.address is not None:
                self.send(child.address, StopChild())

    # --- what children and the router tell ---------------------------------------------------------------

    def on_heartbeat(self, beat: Heartbeat, _sender: Any) -> None:
        """Note that a child lives; its first beat ends a restart."""
        child = self._children.get(key_of(beat.role, beat.name))
        if child is None or child.owner != beat.owner:
            return  # from a process that was replaced
        first = child.heard_at is None
        child.heard_at = time.monotonic()
        child.pid, child.process_started = beat.pid, beat.process_started
        if child.role == "shard":
            self._note_holdings(child, beat)
        if first:
            self._came_up(child)

    def on_child_actor_exited(self, message: Any, _sender: Any) -> None:
        """Take an exit as a hint to look at once."""
        for child in self._children.values():
            if child.address == message.childAddress:
                self._fell(child, "exited", "Its process ended.")

    def on_devices_changed(self, message: DevicesChanged, _sender: Any) -> None:
        """Read the device table again."""
        logger().debug("The devices changed", device_id=message.device_id)
        self._read_devices_at = 0.0
        if not self._stopping:
            self._look_after_children()

    def on_tell_device(self, message: TellDevice, _sender: Any) -> None:
        """Hand a command on to the shard that hosts the device."""
        if message.command == "remove" and (holder := self._holder_of(message.device_id)) is not None:
            self._hand(holder, message)
            return
        for child in self._children.values():
            if child.role == "shard" and message.device_id in child.device_ids:
                if child.up and message.device_id in child.told:
                    self._hand(child, message)
                else:
                    child.waiting.append(message)
                return
        logger().warning("No shard hosts the device", device_id=message.device_id, command=message.command)

    def on_recycle_shard(self, message: RecycleShard, _sender: Any) -> None:
        """Have a fresh process take over a shard's devices, as soon as no other is being recycled."""
        child = self._children.get(key_of("shard", message.shard))
        if child is None or child.retiring:
            self._refuse_recycling(message.shard, message.request, "there is no such shard")
        elif not self._recycler.ask(message.shard, message.request):
            self._refuse_recycling(message.shard, message.request, "it is being recycled already")

    def _refuse_recycling(self, shard: str, request: str, why: str) -> None:
        words = "The operator asked for it."
        self._journal.record(Restart("shard", shard, "recycle_operator", words, "nothing", why, 0.0, request=request))

    # --- looking after children --------------------------------------------------------------------------

    def _look_after_children(self) -> None:
        now = time.monotonic()
        self._forgive(now)
        if now - self._read_devices_at > _READ_DEVICES_SECONDS or self._read_devices_at == 0.0:
            self._read_devices(now)
        self._recycle(now)
        self._share_out(now)
        thorough = now - self._processes_seen >= _LOOK_AT_PROCESSES_SECONDS
        if thorough:
            self._processes_seen = now
        for child in list(self._children.values()):
            self._look_after(child, now, thorough=thorough)
        router = self._children["router"]
        if self._routes_changed and router.up:
            self.send(router.address, self._routes())
            self._routes_changed = False
            gateway = self._children.get("gateway:gateway")
            if gateway is not None and gateway.up:
                self.send(gateway.address, RouterAt(router.address, router.owner))
        self._journal.flush()
        self._describe(now)
        if now - self._rerouted_at > _REROUTE_SECONDS:
            self._rerouted_at = now
            self._reroute()

    def _forgive(self, now: float) -> None:
        """Leave out of account the time in which this process itself did not get to listen."""
        late = now - self._listened_at
        self._listened_at = now
        if late < _LATE_SECONDS:
            return
        for child in self._children.values():
            child.created_at = min(now, child.created_at + late)
            if child.heard_at is not None:
                child.heard_at = min(now, child.heard_at + late)

    def _reroute(self) -> None:
        """Let messages whose route is down go by another, and end those whose time ran out."""
        with suppress(StorageUnavailable), self._database.transaction() as connection:
            outbox.expire_everywhere(connection)
            reroute(
                connection,
                patience=self.settings.failover_patience_seconds,
                attempts=self.settings.failover_attempts,
            )
            self._stored_at = time.monotonic()

    def _look_after(self, child: Child, now: float, *, thorough: bool) -> None:
        if child.retiring:
            self._retire(child)
        if child.address is None:
            if not child.retiring and now >= child.start_at and self._is_gone(child):
                self._start(child, now)
            return
        if child.heard_at is None:
            if now - child.created_at > self.settings.child_start_seconds:
                self._fell(child, "start_timeout", "It did not report in time after its start.")
        elif thorough and child.pid is not None and not process_is_alive(child.pid, child.process_started):
            self._fell(child, "exited", "Its process ended.")
        elif thorough and self._is_silent(child, now - child.heard_at):
            self._fell(child, "silent", "It stopped reporting that it lives.")
        elif child.carried_out not in {-1, child.order} and now - child.ordered_at > _ORDER_SECONDS:
            # It was lost on its way, or in the doing: a device might never be hosted.
            child.ordered_at = now
            self.send(child.address, child.latest)

    def _is_silent(self, child: Child, quiet_seconds: float) -> bool:
        """Return whether a child has been quiet for longer than even an overloaded one may be."""
        ordinary = self.settings.heartbeat_seconds * self.settings.heartbeat_misses
        if quiet_seconds <= ordinary:
            return False
        works = child.pid is not None and child.pulse.beats(child.pid)
        return quiet_seconds > patience(ordinary, works=works)

    def _is_gone(self, child: Child) -> bool:
        """Return whether the former process is gone for certain: only then may its devices be opened again."""
        if child.pid is None or not process_is_alive(child.pid, child.process_started):
            child.pid = None
            if child.holds:
                child.holds = frozenset()
                self._give_orders()
            return True
        with suppress(ProcessLookupError, PermissionError):
            os.kill(child.pid, signal.SIGKILL)
        return False

    def _fell(self, child: Child, code: str, words: str) -> None:
        """Note that a child is down: kill what is left of it and set the time of its next start."""
        if child.address is None or self._stopping:
            return
        now = time.monotonic()
        child.address = None
        removals = [each for at, each in child.removals if now - at < _REMOVAL_SECONDS]
        child.removals = []
        if child.leaving_since is not None:  # it was told to
            for removal in removals:
                self.on_tell_device(removal, None)
            return
        child.heard_at = None
        child.opening = frozenset()
        child.waiting += removals
        child.fell_at = now
        child.cause = (code, words)
        child.attempt = child.trouble.next_attempt(now, self.settings.stable_seconds)
        child.start_at = now + self._backoff.seconds(child.attempt, random.random())  # noqa: S311 - jitter
        self._routes_changed = True
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
        if child.role == "shard" and code == "exited":
            for device_id in self._quarantine.crashed(read_suspects(self.home.run / child.name), now):
                logger().error(
                    "☣️ A device was inside the library at every crash: it gets a shard of its own", id=device_id
                )
                self._read_devices_at = 0.0

    def _kill_unknown_children(self) -> None:
        """Kill processes of ours that never reported: one of them might still come to hold the fallen child's place."""
        known = {child.pid for child in self._children.values()}
        patience = self.settings.child_start_seconds - 1.0
        for process in psutil.Process().children():
            with suppress(psutil.Error):
                if process.pid not in known and time.time() - process.create_time() > patience:
                    process.kill()

    def _start(self, child: Child, now: float) -> None:
        child.lives += 1
        child.owner = f"{child.name}/{uuid.uuid4().hex}"
        child.created_at = now
        child.heard_at = None
        child.leaving_since = None
        child.told = self._may_host(child, self._held_elsewhere())
        child.order += 1
        child.carried_out = -1
        child.holds = frozenset(child.told)
        if child.role == "router":
            child.address = self.createActor(Router, globalName=ROUTER_NAME)
        elif child.role == "platform":
            child.address = self.createActor(PlatformActor)
        elif child.role == "gateway":
            child.address = self.createActor("gateway.actor.GatewayActor")
        elif child.role == "housekeeper":
            child.address = self.createActor("actors.housekeeper.Housekeeper")
        else:
            child.address = self.createActor("actors.whatsapp.shard.WhatsAppShard")
        self.send(
            child.address,
            StartChild(
                child.role,
                child.name,
                child.owner,
                child.told,
                restarted=child.lives > 1,
                connects_per_second=self._connect_share(child),
                order=child.order,
            ),
        )

    def _came_up(self, child: Child) -> None:
        now = time.monotonic()
        child.trouble.came_online(now)
        self._routes_changed = True
        self._pass_commands(child)
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

    # --- which children there are ------------------------------------------------------------------------

    def _read_devices(self, now: float) -> None:
        """Make the children match the device table. While PostgreSQL is away, what runs goes on running."""
        try:
            with self._database.transaction() as connection:
                platforms = devices.platforms(connection)
                alerting = devices.with_reasons(connection, ALERTING_CODES)
                whatsapp = [device_id for device_id, platform in platforms.items() if platform is None]
                ours = sorted(leases.hold(connection, self._holder, whatsapp))
                # A fresh fleet spreads the devices with messages waiting evenly: each shard opens its own first.
                urgent = outbox.lanes_with_work(connection, ours) if not self._ours else []
                outbox.end_removed(connection, _REMOVED_SECONDS)
        except StorageUnavailable as error:
            logger().warning("The device table cannot be read", reason=error.sentence)
            self._read_devices_at = now - _READ_DEVICES_SECONDS + 1.0
            if self._shared and now - self._leased_at > leases.LEASE_SECONDS - _STEP_BACK_SECONDS:
                self._step_back()
            return
        self._read_devices_at = self._leased_at = now
        self._stored_at = time.monotonic()
        for alert in self._alerts.about(alerting):
            logger().error(f"🚨 {alert}")
        self._ours = tuple(dict.fromkeys([*sorted(urgent), *ours]))
        self._place()
        by_platform: dict[str, list[int]] = {}
        for device_id, platform in platforms.items():
            if platform is not None:
                by_platform.setdefault(platform, []).append(device_id)
        self._match("platform", {name: tuple(sorted(ids)) for name, ids in by_platform.items()})

    def _place(self) -> None:
        """Say which shard hosts which device, and see to it."""
        shards = self._recycler.as_one({each.name: each.device_ids for each in self._shards()})
        wanted = place(shards, self._ours, self.settings.max_shards, self._quarantine.devices)
        self._match("shard", self._recycler.apart(wanted))

    def _step_back(self) -> None:
        """Disconnect every device: the leases run out, and another host may take them any moment."""
        logger().error("The leases cannot be renewed; every device is disconnected until they can")
        self._ours = ()
        self._place()

    def _match(self, role: str, wanted: dict[str, tuple[int, ...]]) -> None:
        for name, device_ids in wanted.items():
            child = self._children.setdefault(key_of(role, name), Child(role, name))
            child.retiring = False
            if child.device_ids != device_ids:
                child.device_ids = device_ids
                self._routes_changed = True
        for child in list(self._children.values()):
            if child.role == role and child.name not in wanted:
                child.device_ids = ()
                child.retiring = True
                self._routes_changed = True
        self._give_orders()

    # --- handing devices over ----------------------------------------------------------------------------

    def _shards(self) -> list[Child]:
        return [child for child in self._children.values() if child.role == "shard"]

    def _held_elsewhere(self) -> frozenset[int]:
        """Return the devices that may still be connected in a shard where they are not placed any more."""
        return frozenset[int]().union(*(child.holds.difference(child.device_ids) for child in self._shards()))

    def _holder_of(self, device_id: int) -> Child | None:
        """Return the shard that has a removed device's connection, or has to make one, to log it out.

        That is the one that has not let it go yet. One that nobody has, and that is not placed any more, since the
        device table was read before the command came, is logged out by any.
        """
        up = [child for child in self._shards() if child.up]
        for child in up:
            if device_id in child.holds and device_id not in child.device_ids:
                return child
        placed = any(device_id in child.device_ids or device_id in child.holds for child in self._shards())
        # One that leaves will not read it any more.
        return None if placed else next((child for child in up if child.leaving_since is None), None)

    @staticmethod
    def _may_host(child: Child, held_elsewhere: frozenset[int]) -> tuple[int, ...]:
        """Return the devices that are placed at a child and that nobody else may still be connected for."""
        return tuple(device_id for device_id in child.device_ids if device_id not in held_elsewhere)

    def _give_orders(self) -> None:
        """Tell each child that runs what it hosts from now on, where that has changed."""
        held_elsewhere = self._held_elsewhere()
        placed = {device_id for child in self._shards() for device_id in child.device_ids}
        for child in self._children.values():
            if child.address is None or child.role not in {"shard", "platform"}:
                continue
            may_host = self._may_host(child, held_elsewhere)
            if may_host == child.told:
                continue
            moving = tuple(sorted(placed.intersection(child.told).difference(child.device_ids)))
            child.told = may_host
            child.order += 1
            child.ordered_at = time.monotonic()
            if child.role == "shard":
                child.holds |= frozenset(may_host)
            child.latest = HostDevices(may_host, self._connect_share(child), child.order, moving)
            self.send(child.address, child.latest)
            self._pass_commands(child)

    def _pass_commands(self, child: Child) -> None:
        """Hand commands on that have waited for the process, or for their device to be handed over."""
        if not child.up:
            return
        waiting, child.waiting = child.waiting, []
        for command in waiting:
            if command.device_id in child.told or command.device_id not in child.device_ids:
                self._hand(child, command)
            else:
                child.waiting.append(command)

    def _hand(self, child: Child, command: TellDevice) -> None:
        """Give a shard a command; keep a removal for a while, since nobody else knows of it: the row is gone."""
        if command.command == "remove":
            now = time.monotonic()
            lately = [(at, each) for at, each in child.removals if now - at < _REMOVAL_SECONDS]
            child.removals = [*lately, (now, command)]
        self.send(child.address, command)

    def _note_holdings(self, child: Child, beat: Heartbeat) -> None:
        """Note what a shard says it hosts; one that has carried out its latest order holds nothing else."""
        child.carried_out, child.wear, child.opening = beat.order, beat.wear, frozenset(beat.opening)
        hosted = frozenset(beat.device_ids)
        held, child.holds = child.holds, hosted if beat.order == child.order else child.holds | hosted
        if held - child.holds:
            self._give_orders()
        if self._recycler.current is not None:
            self._recycle(time.monotonic())

    def _connect_share(self, child: Child) -> float:
        """Return a shard's share of the fleet's connects a second; a successor has that of the shard it replaces."""
        shards = self._recycler.as_one({each.name: each.device_ids for each in self._shards()})
        weights = {name: weight_of(len(ids), hurried=name in self._hurried) for name, ids in shards.items()}
        hosted = weights.get(child.name, len(child.device_ids))
        return share_of(planned(self.settings.connects_per_second), hosted, sum(weights.values()))

    def _share_out(self, now: float) -> None:
        """Share the budget out anew when a shard was started again, and when it has had its time."""
        begun = [child for child in self._shards() if child.lives > 0]
        young = {child.name for child in begun if child.lives > 1 and now - child.created_at < _HURRY_SECONDS}
        hurried = frozenset(young.union(child.name for child in begun if child.address is None))
        if hurried == self._hurried:
            return
        self._hurried = hurried
        for child in self._shards():
            if child.up:
                self.send(child.address, ConnectShare(self._connect_share(child)))

    def _recycle(self, now: float) -> None:
        """Take the next step of recycling, if it is time for one."""
        if self._stopping or now - self._stored_at > _STORAGE_SILENCE_SECONDS:
            return
        shards = {child.name: child.as_shard() for child in self._shards()}
        if done := self._recycler.finished(shards):
            self._recycled(done, now)
        for name, request in self._recycler.forgotten(shards).items():
            self._refuse_recycling(name, request, "it is gone")
        began = self._recycler.begin(shards, now)
        current = self._recycler.current
        if began and current is not None:
            logger().info(
                f"♻️ Recycling {current.worn}: {current.fresh} takes over its devices",
                cause=current.cause.words,
                devices=len(current.staying),
            )
        fresh = self._children.get(key_of("shard", current.fresh)) if current is not None else None
        gap = 1.0 / self._connect_share(fresh) if fresh is not None else 0.0
        if self._recycler.advance(shards, now, gap) or began:
            self._place()
            self._described_at = 0.0
        if current is not None and self._recycler.stuck(shards, now):
            self._fell(self._children[key_of("shard", current.worn)], "stuck", "It did not let a device go.")

    def _recycled(self, done: Recycling, now: float) -> None:
        tried = f"moved its devices to {done.fresh}, one by one"
        if done.broken:
            tried = f"moved {done.moved} of its devices to {done.fresh}; then its process ended, and the rest followed"
        cause = done.cause
        took = now - done.began
        self._journal.record(
            Restart("shard", done.worn, cause.code, cause.words, tried, "ok", took, request=cause.request)
        )

    def _describe(self, now: float) -> None:
        """Write down how the shards are, for the command line; there is no hurry, and no harm if it fails."""
        if now - self._described_at < _DESCRIBE_SECONDS:
            return
        self._described_at = now
        shards = {child.name: (child.pid, child.as_shard()) for child in self._shards()}
        with suppress(OSError):
            write_shards_file(self.home, describe(shards, self._recycler.current, now, self._started_at))

    def _retire(self, child: Child) -> None:
        """Let a child that is not wanted any more go, once it certainly holds no device."""
        now = time.monotonic()
        if child.address is None:
            if self._is_gone(child):
                del self._children[key_of(child.role, child.name)]
            return
        if child.holds and child.leaving_since is None:
            return  # a device is still being closed, or logged out
        if child.leaving_since is None:
            child.leaving_since = now
            self.send(child.address, StopChild())
        elif now - child.leaving_since > self.settings.drain_seconds + _LEAVE_SECONDS:
            self._fell(child, "leave_timeout", "It did not leave in time.")

    def _routes(self) -> Routes:
        shards: dict[int, object] = {}
        platforms: dict[str, object] = {}
        for child in self._children.values():
            if not child.up:
                continue
            if child.role == "platform":
                platforms[child.name] = child.address
            elif child.role == "shard":
                shards.update(dict.fromkeys(child.device_ids, child.address))
        return Routes(shards, platforms)
