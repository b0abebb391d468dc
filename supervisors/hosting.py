"""Who hosts which device: devices are placed at shards, and handed over from one to another.

One rule holds for whatever moves a device: no shard is told to host it before every other has let it go, by its own
word or by the death of its process. Where devices belong is decided in ``placement.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from actors.messages import Heartbeat, HostDevices
from supervisors.attention import Quarantine
from supervisors.children import Child, Children
from supervisors.connect_shares import ConnectShares
from supervisors.device_commands import DeviceCommands
from supervisors.placement import place
from supervisors.recycling import Recycler

#: After how long a shard is given an order again that it has not carried out, in seconds.
_ORDER_SECONDS = 30.0


class Hosting:
    """Tells each child what it hosts, by numbered orders.

    ``send`` hands a message to an actor's address.
    """

    def __init__(
        self,
        children: Children,
        recycler: Recycler,
        quarantine: Quarantine,
        shares: ConnectShares,
        commands: DeviceCommands,
        *,
        max_shards: int,
        send: Callable[[Any, Any], None],
    ) -> None:
        self._children = children
        self._recycler = recycler
        self._quarantine = quarantine
        self._shares = shares
        self._commands = commands
        self._max_shards = max_shards
        self._send = send
        #: The devices that this fleet hosts on shards, those first that shall be placed first.
        self.device_ids: tuple[int, ...] = ()

    # --- placing -----------------------------------------------------------------------------------------

    def host(self, device_ids: tuple[int, ...]) -> None:
        """Host these devices on shards from now on, and no others."""
        self.device_ids = device_ids
        self.place()

    def place(self) -> None:
        """Say which shard hosts which device, and see to it."""
        shards = self._recycler.as_one(self._children.placed())
        wanted = place(shards, self.device_ids, self._max_shards, self._quarantine.devices)
        self.match("shard", self._recycler.apart(wanted))

    def match(self, role: str, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """Have one child of a role for each name that is wanted, with these devices; let the others retire."""
        for name, device_ids in wanted.items():
            child = self._children.ensure(role, name)
            child.retiring = False
            if child.device_ids != device_ids:
                child.device_ids = device_ids
                self._children.routes_changed = True
        for child in self._children.of_role(role):
            if child.name not in wanted:
                child.device_ids = ()
                child.retiring = True
                self._children.routes_changed = True
        self._give_orders()

    # --- handing over ------------------------------------------------------------------------------------

    def first_order(self, child: Child) -> HostDevices:
        """Return what a new process of a child hosts at its start."""
        child.told = _may_host(child, self._held_elsewhere())
        child.order += 1
        child.carried_out = -1
        child.holds = frozenset(child.told)
        return HostDevices(child.told, self._shares.of(child), child.order)

    def note(self, child: Child, beat: Heartbeat) -> None:
        """Note what a shard says it hosts; one that has carried out its latest order holds nothing else."""
        child.carried_out, child.wear, child.opening = beat.order, beat.wear, frozenset(beat.opening)
        hosted = frozenset(beat.device_ids)
        held, child.holds = child.holds, hosted if beat.order == child.order else child.holds | hosted
        if held - child.holds:
            self._give_orders()

    def is_gone(self, child: Child) -> None:
        """Note that a child's process is gone for certain: it holds nothing any more."""
        if child.holds:
            child.holds = frozenset()
            self._give_orders()

    def repeat_lost_order(self, child: Child, now: float) -> None:
        """Give an order again that was lost on its way, or in the doing: a device might never be hosted."""
        if child.carried_out not in {-1, child.order} and now - child.ordered_at > _ORDER_SECONDS:
            child.ordered_at = now
            self._send(child.address, child.latest)

    def _held_elsewhere(self) -> frozenset[int]:
        """Return the devices that may still be connected in a shard where they are not placed any more."""
        shards = self._children.shards
        return frozenset[int]().union(*(child.holds.difference(child.device_ids) for child in shards))

    def _give_orders(self) -> None:
        """Tell each child that runs what it hosts from now on, where that has changed."""
        held_elsewhere = self._held_elsewhere()
        placed = {device_id for child in self._children.shards for device_id in child.device_ids}
        for child in self._children:
            if child.address is None or child.role not in {"shard", "platform"}:
                continue
            may_host = _may_host(child, held_elsewhere)
            if may_host == child.told:
                continue
            moving = tuple(sorted(placed.intersection(child.told).difference(child.device_ids)))
            child.told = may_host
            child.order += 1
            child.ordered_at = time.monotonic()
            if child.role == "shard":
                child.holds |= frozenset(may_host)
            child.latest = HostDevices(may_host, self._shares.of(child), child.order, moving)
            self._send(child.address, child.latest)
            self._commands.pass_on(child)


def _may_host(child: Child, held_elsewhere: frozenset[int]) -> tuple[int, ...]:
    """Return the devices that are placed at a child and that nobody else may still be connected for."""
    return tuple(device_id for device_id in child.device_ids if device_id not in held_elsewhere)
