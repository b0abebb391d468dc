"""Which faults strike in a run: a pure function of its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: Every kind of strike and how often it comes, relative to the others. Heavy ones, after which everything starts
#: again, are rare, so that the fleet mostly works while it is struck. A process is killed (SIGKILL), crashes (SIGSEGV),
#: or is stopped for some seconds and goes on (SIGSTOP, SIGCONT).
WEIGHTS: dict[str, float] = {
    # processes
    "shard-kill": 30,
    "shard-stop": 6,
    "shard-crash": 6,
    "router-kill": 6,
    "router-stop": 3,
    "router-crash": 2,
    "platform-kill": 4,
    "platform-stop": 2,
    "platform-crash": 2,
    "gateway-kill": 4,
    "gateway-stop": 2,
    "gateway-crash": 2,
    "fleet-kill": 2,
    "fleet-stop": 1,
    "fleet-crash": 1,
    "admin-kill": 1,
    "admin-stop": 1,
    "admin-crash": 1,
    "watchdog-kill": 1,
    "watchdog-stop": 1,
    "watchdog-crash": 1,
    "simulator-kill": 2,
    "simulator-stop": 1,
    "simulator-crash": 1,
    # PostgreSQL
    "postgres-kill": 2,
    "postgres-refuse": 2,
    "postgres-freeze": 1,
    "postgres-minute": 0.3,
    # the way to WhatsApp, and WhatsApp
    "reset": 8,
    "half-open": 1,
    "lost-ack": 2,
    "slow": 2,
    "failure-503": 2,
    "http-503": 2,
    "stream-503": 2,
    "refuse": 2,
    "blackhole": 1,
    "tls-failure": 2,
    "replaced": 2,
    "banned": 1,
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
    """Return ``count`` strikes, the same ones for the same seed; from as many on as there are, each kind comes."""
    chance = random.Random(seed)  # noqa: S311 - a schedule, no secret
    kinds = list(WEIGHTS) if count >= len(WEIGHTS) else []
    kinds += chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count - len(kinds))
    chance.shuffle(kinds)
    return [Strike(kind, chance.random(), chance.random()) for kind in kinds]
