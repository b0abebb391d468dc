"""Which faults strike in a run: a pure function of its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: Every kind of strike and how often it comes, relative to the others. Heavy ones, after which everything starts
#: again, are rare, so that the fleet mostly works while it is struck.
WEIGHTS = {
    # processes
    "shard-kill": 30,
    "shard-stop": 6,
    "shard-crash": 6,
    "router-kill": 8,
    "router-stop": 3,
    "platform-kill": 6,
    "fleet-kill": 3,
    "admin-kill": 2,
    "watchdog-kill": 2,
    "simulator-kill": 3,
    # PostgreSQL
    "postgres-kill": 2,
    "postgres-refuse": 2,
    "postgres-freeze": 1,
    # the way to WhatsApp, and WhatsApp
    "reset": 8,
    "half-open": 1,
    "lost-ack": 2,
    "slow": 2,
    "failure-503": 2,
    "http-503": 2,
    "refuse": 2,
    "tls-failure": 2,
    "replaced": 2,
    "logged-out": 2,
    # the platforms
    "platform-slow": 2,
    "platform-reset-before": 2,
    "platform-reset-after": 2,
    "platform-garbage": 2,
    "platform-502": 2,
}


@dataclass(frozen=True)
class Strike:
    """One fault to come: its kind, and two numbers in [0, 1) that choose whom it hits and how long it lasts."""

    kind: str
    target: float
    length: float


def plan(seed: int, count: int) -> list[Strike]:
    """Return ``count`` strikes, the same ones for the same seed; from 28 on, each kind comes at least once."""
    chance = random.Random(seed)  # noqa: S311 - a schedule, no secret
    kinds = list(WEIGHTS) if count >= len(WEIGHTS) else []
    kinds += chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count - len(kinds))
    chance.shuffle(kinds)
    return [Strike(kind, chance.random(), chance.random()) for kind in kinds]
