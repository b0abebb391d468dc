"""A child of the fleet's supervisor: who it is, what it was told, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from actors.messages import HostDevices, TellDevice, Wear
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


def key_of(role: str, name: str) -> str:
    """Return the name under which the supervisor knows a child; of most roles there are several."""
    return role if role == "router" else f"{role}:{name}"
