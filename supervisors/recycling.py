"""Recycling: a worn shard's devices move to a fresh process, one by one, and the worn process ends.

The library leaks a little at each opening of a client and never gives it back, so a shard has a budget. Everything
here is a decision over what the fleet's supervisor knows; the supervisor carries it out, and its rule that a device is
hosted nowhere before every other shard has let it go holds here as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supervisors.placement import successor

if TYPE_CHECKING:
    from actors.messages import Wear
    from config.settings import Settings

#: What a device takes of its shard's descriptors and memory (MB) ordinarily, with room to spare; the budget is beyond.
_DESCRIPTORS_A_DEVICE = 12
_MEGABYTES_A_DEVICE = 1.0
#: How long a device that moved may take to be online again before the next one moves all the same, in seconds.
_SETTLING_SECONDS = 120.0
#: How much longer than a pairing may take a device may need to be let go before its old shard counts as stuck.
_RELEASE_SECONDS = 90.0


@dataclass(frozen=True)
class Cause:
    """Why a shard is recycled: a stable code, and words for people. ``request``: the operator's, if one asked."""

    code: str
    words: str
    request: str = ""


@dataclass(frozen=True)
class Budget:
    """What a shard may use up before it is recycled; 0: any amount.

    Attributes:
        refreshes: clients opened.
        descriptors, megabytes: beyond what its devices take ordinarily.
        seconds: its age.
    """

    refreshes: int = 0
    descriptors: int = 0
    megabytes: float = 0.0
    seconds: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> Budget:
        """Return the budget that the settings give."""
        return cls(
            settings.recycle_refreshes,
            settings.recycle_descriptors,
            settings.recycle_memory_mb,
            settings.recycle_age_seconds,
        )

    def spent(self, wear: Wear, devices: int) -> Cause | None:
        """Return which part of the budget a shard with so many devices has spent, if one."""
        descriptors = self.descriptors + devices * _DESCRIPTORS_A_DEVICE
        megabytes = self.megabytes + devices * _MEGABYTES_A_DEVICE
        if self.refreshes and wear.refreshes >= self.refreshes:
            return Cause("recycle_refreshes", f"It had opened {wear.refreshes} clients (budget {self.refreshes}).")
        if self.descriptors and wear.descriptors >= descriptors:
            return Cause("recycle_descriptors", f"It held {wear.descriptors} descriptors (budget {descriptors}).")
        if self.megabytes and wear.megabytes >= megabytes:
            return Cause("recycle_memory", f"It took {wear.megabytes:.0f} MB (budget {megabytes:.0f} MB).")
        if self.seconds and wear.seconds >= self.seconds:
            return Cause("recycle_age", f"It was {wear.seconds:.0f} s old (budget {self.seconds:.0f} s).")
        return None


@dataclass(frozen=True)
class Shard:
    """What is known of one shard.

    Attributes:
        up: its present process has reported life.
        settled: it has done what it was told last.
        devices: those that are placed there.
        holds: those it may be connected for, by its own word or for want of it.
        opening: those that came from elsewhere and are not online yet.
    """

    up: bool
    settled: bool
    devices: frozenset[int]
    holds: frozenset[int]
    opening: frozenset[int] = frozenset()
    wear: Wear | None = None


@dataclass
class Recycling:
    """One shard that is being recycled.

    Attributes:
        staying: the devices that the worn shard keeps for now.
        moved: how many were sent on their way; ``moved_at``: when the last one was (monotonic seconds).
        broken: the worn shard ended on the way.
    """

    worn: str
    fresh: str
    cause: Cause
    began: float
    staying: frozenset[int]
    moved_at: float
    moved: int = 0
    broken: bool = False


@dataclass
class Recycler:
    """Recycles one shard at a time."""

    budget: Budget
    pairing_seconds: float
    current: Recycling | None = None
    _asked: dict[str, str] = field(default_factory=dict)

    # --- how placement and the shards see it -------------------------------------------------------------

    def as_one(self, shards: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Return who hosts what as placement sees it: the worn shard and its successor are one, by the new name."""
        seen = dict(shards)
        if self.current is not None:
            both = {*seen.pop(self.current.worn, ()), *seen.pop(self.current.fresh, ())}
            seen[self.current.fresh] = tuple(sorted(both))
        return seen

    def apart(self, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Return what placement wants, with the devices that have not moved yet left where they are."""
        told = dict(wanted)
        if self.current is not None:
            both = told.pop(self.current.fresh, ())
            told[self.current.fresh] = tuple(each for each in both if each not in self.current.staying)
            if staying := tuple(each for each in both if each in self.current.staying):
                told[self.current.worn] = staying
        return told

    # --- deciding ----------------------------------------------------------------------------------------

    def ask(self, shard: str, request: str) -> bool:
        """Note that an operator wants a shard to be recycled; return False when it is, or will be, already."""
        if shard in self._asked or (self.current is not None and shard == self.current.worn):
            return False
        self._asked[shard] = request
        return True

    def forgotten(self, shards: Mapping[str, Shard]) -> dict[str, str]:
        """Return, once, the requests about shards that are gone before their turn came, by shard."""
        gone = {name: request for name, request in self._asked.items() if name not in shards}
        for name in gone:
            del self._asked[name]
        return gone

    def begin(self, shards: Mapping[str, Shard], now: float) -> bool:
        """Begin with the shard that needs it first, if one does and none is under way; return whether."""
        if self.current is not None:
            return False
        able = {name: each for name, each in shards.items() if each.up and each.settled and each.devices}
        for name, request in self._asked.items():
            if name in able:
                del self._asked[name]
                self._begin(name, shards, Cause("recycle_operator", "The operator asked for it.", request), now)
                return True
        if not all(each.up and not each.opening for each in shards.values()):
            return False  # the fleet has enough to do
        for name, shard in able.items():
            if shard.wear is not None and (cause := self.budget.spent(shard.wear, len(shard.devices))):
                self._begin(name, shards, cause, now)
                return True
        return False

    def _begin(self, name: str, shards: Mapping[str, Shard], cause: Cause, now: float) -> None:
        self.current = Recycling(name, successor(name, shards), cause, now, shards[name].devices, now)

    def advance(self, shards: Mapping[str, Shard], now: float, gap: float = 0.0) -> bool:
        """Send the next device on its way, if it is time; return whether anything changed.

        ``gap``: the successor may connect a device only so many seconds after the one before; it would wait offline.
        """
        current = self.current
        if current is None or not current.staying:
            return False
        worn, fresh = shards.get(current.worn), shards.get(current.fresh)
        if worn is None or not worn.up:
            # It ended: nothing is left to be handed over, and its devices come up in the new process at once.
            current.broken, current.staying = True, frozenset()
            return True
        current.staying &= worn.devices
        if fresh is None or not fresh.up or not fresh.settled or not fresh.devices <= fresh.holds:
            return False
        if now - current.moved_at < (_SETTLING_SECONDS if fresh.opening else gap):
            return False
        current.staying = frozenset(sorted(current.staying)[1:])
        current.moved += 1
        current.moved_at = now
        return True

    def stuck(self, shards: Mapping[str, Shard], now: float) -> bool:
        """Return whether the worn shard does not let a device go: then its process has to end."""
        current = self.current
        worn = shards.get(current.worn) if current is not None else None
        if current is None or worn is None or not worn.holds - worn.devices:
            return False
        return now - current.moved_at > self.pairing_seconds + _RELEASE_SECONDS

    def finished(self, shards: Mapping[str, Shard]) -> Recycling | None:
        """Return the recycling that is over since the worn shard is gone, once."""
        current = self.current
        if current is None or current.worn in shards:
            return None
        self.current = None
        return current
