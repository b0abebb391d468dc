"""The children of the fleet's supervisor: who each is, what it was told, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from actors.messages import HostDevices, Routes, TellDevice, Wear
from supervisors.policy import Trouble
from supervisors.pulse import Pulse
from supervisors.recycling import Shard


@dataclass
class Child:
    """One child: who it is, whether it lives, and what its supervisor remembers of its falls."""

    role: str
    name: str
    device_ids: tuple[int, ...] = ()
    address: Any = None
    owner: str = ""
    pid: int | None = None
    process_started: float = 0.0
    created_at: float = 0.0
    heard_at: float | None = None
    fell_at: float | None = None
    start_at: float = 0.0
    cause: tuple[str, str] = ("start", "The fleet starts.")
    lives: int = 0
    attempt: int = 0
    trouble: Trouble = field(default_factory=Trouble)
    pulse: Pulse = field(default_factory=Pulse)
    #: Operators' commands that wait for the next process to be up, or for a device to be handed over.
    waiting: list[TellDevice] = field(default_factory=list)
    #: Removals that its process was told of lately, and when (monotonic seconds).
    removals: list[tuple[float, TellDevice]] = field(default_factory=list)
    #: What it was told to host last, by which order, and which order it has carried out.
    told: tuple[int, ...] = ()
    order: int = 0
    ordered_at: float = 0.0
    latest: HostDevices | None = None
    carried_out: int = -1
    #: A shard's devices that may be connected there, by its own word or for want of it: nobody else may host them.
    holds: frozenset[int] = frozenset()
    opening: frozenset[int] = frozenset()
    wear: Wear | None = None
    #: It is not wanted any more, and not started again; since when it was told to leave.
    retiring: bool = False
    leaving_since: float | None = None

    @property
    def up(self) -> bool:
        """Whether the present process has reported life."""
        return self.address is not None and self.heard_at is not None

    def as_shard(self) -> Shard:
        """Return what recycling goes by."""
        settled = self.up and self.carried_out == self.order
        return Shard(self.up, settled, frozenset(self.device_ids), self.holds, self.opening, self.wear)


class Children:
    """All children of the fleet's supervisor, by role and name. Going through them bears changes on the way."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], Child] = {}
        #: Whether something changed that the router has not been told of.
        self.routes_changed = True

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._by_name.values()))

    def find(self, role: str, name: str) -> Child | None:
        """Return a child, or None when there is no such."""
        return self._by_name.get((role, name))

    def ensure(self, role: str, name: str) -> Child:
        """Return a child; one that is not there yet is made, to be started at the next look."""
        return self._by_name.setdefault((role, name), Child(role, name))

    def remove(self, child: Child) -> None:
        """Forget a child."""
        del self._by_name[child.role, child.name]

    def of_role(self, role: str) -> list[Child]:
        """Return the children of one role."""
        return [child for child in self if child.role == role]

    @property
    def shards(self) -> list[Child]:
        """The shards, those that retire included."""
        return self.of_role("shard")

    def as_shards(self) -> dict[str, Shard]:
        """Return what recycling goes by, for each shard."""
        return {child.name: child.as_shard() for child in self.shards}

    def placed(self) -> dict[str, tuple[int, ...]]:
        """Return which devices are placed at which shard."""
        return {child.name: child.device_ids for child in self.shards}

    def routes(self) -> Routes:
        """Return where the router reaches each device and platform now."""
        shards: dict[int, object] = {}
        platforms: dict[str, object] = {}
        for child in self:
            if not child.up:
                continue
            if child.role == "platform":
                platforms[child.name] = child.address
            elif child.role == "shard":
                shards.update(dict.fromkeys(child.device_ids, child.address))
        return Routes(shards, platforms)
