"""What becomes of webhooks in a run: a pure function of its seed. When the receiver is down, when its sender is killed,
and how each request fares otherwise."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: The share of requests that each fault meets while the receiver is up; the rest is answered with 200 at once.
#: ``slow`` answers past every time-out, ``hesitant`` within it; ``lost`` takes the event and breaks the connection.
SHARES: dict[str, float] = {
    "500": 0.05,
    "503": 0.03,
    "429": 0.03,
    "reset": 0.03,
    "lost": 0.03,
    "hesitant": 0.03,
    "slow": 0.01,
    "redirect": 0.01,
}
#: How often the receiver goes down and the sender is killed in a run of any length, and which share of it an outage
#: lasts: in an hour, one to four minutes.
_OUTAGES, _KILLS = 6, 12
_SHORTEST, _LONGEST = 1 / 60, 4 / 60


@dataclass(frozen=True)
class Weather:
    """When it is bad, in seconds from the beginning."""

    outages: tuple[tuple[float, float], ...]
    kills: tuple[float, ...]

    def is_down(self, elapsed: float) -> bool:
        """Return whether the receiver is down at this moment."""
        return any(began <= elapsed < ended for began, ended in self.outages)


def forecast(seed: int, seconds: float) -> Weather:
    """Return the weather of a run: spread over it, each at a random moment of its part, and over at its end."""
    chance = random.Random(seed)  # noqa: S311 - a schedule, no secret
    part = seconds / _OUTAGES
    outages = []
    for number in range(_OUTAGES):
        began = part * (number + 0.5 * chance.random())
        outages.append((began, began + seconds * chance.uniform(_SHORTEST, _LONGEST)))
    kills = tuple(seconds / _KILLS * (number + chance.random()) for number in range(_KILLS))
    return Weather(tuple(outages), kills)


class Dice:
    """Says how the next request fares."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a schedule, no secret

    def throw(self) -> str:
        """Return a fault's name, or ``well``."""
        drawn = self._chance.random()
        for name, share in SHARES.items():
            if drawn < share:
                return name
            drawn -= share
        return "well"

    def seconds(self, least: float, most: float) -> float:
        """Return how long something takes."""
        return self._chance.uniform(least, most)
