"""Operators' commands on their way to the shard that hosts the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from actors.messages import TellDevice
from config.logging import logger
from supervisors.children import Child, Children

#: How long a shard may take to log a removed device out, in seconds: if it falls meanwhile, it is told again.
_REMOVAL_SECONDS = 60.0


class DeviceCommands:
    """Hands commands on, and keeps those whose device is not hosted yet.

    ``send`` hands a message to an actor's address.
    """

    def __init__(self, children: Children, send: Callable[[Any, Any], None]) -> None:
        self._children = children
        self._send = send

    def tell(self, command: TellDevice) -> None:
        """Hand a command on to the shard that hosts the device, or keep it until that shard does."""
        if command.command == "remove" and (holder := self._holder_of(command.device_id)) is not None:
            self._hand(holder, command)
            return
        for child in self._children.shards:
            if command.device_id in child.device_ids:
                if child.up and command.device_id in child.told:
                    self._hand(child, command)
                else:
                    child.waiting.append(command)
                return
        logger().warning("No shard hosts the device", device_id=command.device_id, command=command.command)

    def pass_on(self, child: Child) -> None:
        """Hand commands on that have waited for the process, or for their device to be handed over."""
        if not child.up:
            return
        waiting, child.waiting = child.waiting, []
        for command in waiting:
            if command.device_id in child.told or command.device_id not in child.device_ids:
                self._hand(child, command)
            else:
                child.waiting.append(command)

    def take_back(self, child: Child, now: float) -> None:
        """Let the removals that an ended process may not have carried out wait for the next one, or for another's."""
        removals = [each for at, each in child.removals if now - at < _REMOVAL_SECONDS]
        child.removals = []
        if child.leaving_since is None:
            child.waiting += removals
            return
        for removal in removals:
            self.tell(removal)

    def _holder_of(self, device_id: int) -> Child | None:
        """Return the shard that has a removed device's connection, or has to make one, to log it out.

        That is the one that has not let it go yet. One that nobody has, and that is not placed any more, since the
        device table was read before the command came, is logged out by any.
        """
        shards = self._children.shards
        up = [child for child in shards if child.up]
        for child in up:
            if device_id in child.holds and device_id not in child.device_ids:
                return child
        placed = any(device_id in child.device_ids or device_id in child.holds for child in shards)
        # One that leaves will not read it any more.
        return None if placed else next((child for child in up if child.leaving_since is None), None)

    def _hand(self, child: Child, command: TellDevice) -> None:
        """Give a shard a command; keep a removal for a while, since nobody else knows of it: the row is gone."""
        if command.command == "remove":
            now = time.monotonic()
            lately = [(at, each) for at, each in child.removals if now - at < _REMOVAL_SECONDS]
            child.removals = [*lately, (now, command)]
        self._send(child.address, command)
