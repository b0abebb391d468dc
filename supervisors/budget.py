"""The fleet's reconnect budget: how fast devices may connect, and what happens when many fall at once.

Pure decisions over a clock that the caller reads: no timer, no socket. Each shard holds its share of the fleet's
budget, by the number of its devices, so that the whole never exceeds it and no shard has to ask another.
"""

from __future__ import annotations

from bisect import insort
from collections import deque

#: No shard's share is less than this many connects a second, or a lone device would wait too long.
SMALLEST_SHARE = 0.5
#: How much of the budget is planned for. Each shard keeps its own time, and what lies between a granted moment and the
#: server differs: planned in full, some seconds would hold more than the whole.
_PLANNED = 0.85
#: How fast connects may follow each other that come late together, as a part of the budget: after a standstill the
#: moments of many have passed.
_CATCHING_UP = 0.92
#: A device of a shard that was started again counts as so many when the budget is shared out.
_HURRY = 30
#: A fall counts for this long, in seconds.
_FALL_MEMORY = 15.0
#: Fewer falls than this are never an outage.
_FEWEST_FALLS = 4
#: While the server is away, one device is let through this often to see whether it is back, in seconds.
_PROBE_SECONDS = 3.0


def share_of(fleet_per_second: float, hosted: int, whole: int) -> float:
    """Return a shard's share of the fleet's connects a second."""
    if whole <= 0:
        return fleet_per_second
    return max(SMALLEST_SHARE, fleet_per_second * hosted / whole)


def planned(fleet_per_second: float) -> float:
    """Return at which rate a fleet connects that must never have more than so many connects within a second."""
    return _PLANNED * fleet_per_second


def weight_of(devices: int, *, hurried: bool) -> int:
    """Return what a shard with so many devices counts when the budget is shared out.

    A shard that was started again has all of its devices to connect, while the others have none: those lend it what
    they do not use. When all were started again, or none, all count alike.
    """
    return devices * _HURRY if hurried else devices


class ConnectBudget:
    """Gives each connect a moment: the next free one, ``1 / per_second`` after the one before.

    A device that asks again before its moment keeps it, so impatience costs nobody a place. One that asks only after
    its moment has passed goes next, but never at once with all the others that are late: the library's attempts are
    far apart, and those of devices that fell together come together.
    """

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._next_free = 0.0
        self._places: dict[int, float] = {}
        #: The moments at which somebody connects for certain, none passed for longer than one gap.
        self._taken: list[float] = []

    @property
    def least_gap(self) -> float:
        """How far connects must really be apart, in seconds, whatever their moments were."""
        return _PLANNED / (_CATCHING_UP * self.per_second)

    def place_of(self, device_id: int, now: float, chance: float) -> float:
        """Return when the device may connect (monotonic seconds; ``chance`` in [0, 1) is its jitter)."""
        kept = self._places.get(device_id)
        if kept is not None:
            return kept
        gap = 1.0 / self.per_second
        moment = max(self._next_free, now)
        self._next_free = moment + gap
        self._places[device_id] = moment + 0.5 * gap * chance if moment > now else moment
        return self._places[device_id]

    def take(self, device_id: int, now: float, chance: float, patience: float = float("inf")) -> float | None:
        """Return when the device connects, now taken for certain; None if that is over ``patience`` seconds away.

        It keeps its place then, and ``waits_until`` tells when it is likely to go.
        """
        gap = 1.0 / self.per_second
        moment = max(now, self.place_of(device_id, now, chance))
        self._taken = [each for each in self._taken if each > now - gap]
        for each in self._taken:
            if moment > each - gap:
                moment = max(moment, each + gap)
        if moment - now > patience:
            self._places[device_id] = moment
            return None
        insort(self._taken, moment)
        self.used(device_id)
        return moment

    def waits_until(self, device_id: int) -> float | None:
        """Return the moment a device is waiting for, or None when it waits for none."""
        return self._places.get(device_id)

    def used(self, device_id: int) -> None:
        """Note that a device connects now; its next connect needs another moment."""
        self._places.pop(device_id, None)


class OutageBreaker:
    """Opens when a large share of the devices falls at once: then the trouble is not theirs.

    While it is open one device at a time is let through; the first that comes online closes it.
    """

    def __init__(self) -> None:
        self._falls: deque[tuple[float, int]] = deque()
        self._opened_at: float | None = None
        self._probed_at = float("-inf")

    @property
    def open(self) -> bool:
        """Whether devices are held back."""
        return self._opened_at is not None

    def fell(self, device_id: int, hosted: int, now: float) -> bool:
        """Note that a device lost its connection or could not get one; return whether this opened the breaker."""
        self._falls.append((now, device_id))
        while self._falls and now - self._falls[0][0] > _FALL_MEMORY:
            self._falls.popleft()
        down = len({device for _, device in self._falls})
        if self.open or down < max(_FEWEST_FALLS, hosted / 2):
            return False
        self._opened_at = now
        return True

    def lets_through(self, now: float) -> bool:
        """Return whether a device may try now; while open, that is a probe once in a while."""
        if not self.open:
            return True
        if now - self._probed_at < _PROBE_SECONDS:
            return False
        self._probed_at = now
        return True

    def came_online(self, now: float) -> float | None:
        """Note that a device is online; return how long the outage lasted if this ended it."""
        self._falls.clear()
        if self._opened_at is None:
            return None
        lasted, self._opened_at = now - self._opened_at, None
        return lasted
