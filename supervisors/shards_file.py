"""How the shards are, in a small file of the home: the fleet's supervisor writes it, the command line reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.home import Home
from supervisors.recycling import Recycling, Shard


def _path(home: Home) -> Path:
    return home.run / "shards.json"


def describe(
    shards: Mapping[str, tuple[int | None, Shard]], recycling: Recycling | None, now: float, started_at: float
) -> dict[str, Any]:
    """Return how the shards are (each with its process) and what is being recycled.

    ``now`` is in monotonic seconds; ``started_at``, when the fleet started, in seconds since the epoch.
    """
    told: dict[str, Any] = {
        "started_at": started_at,
        "shards": [
            {
                "name": name,
                "pid": pid,
                "up": shard.up,
                "devices": len(shard.devices),
                "refreshes": shard.wear.refreshes if shard.wear else 0,
                "descriptors": shard.wear.descriptors if shard.wear else 0,
                "memory_mb": round(shard.wear.megabytes, 1) if shard.wear else 0.0,
                "age_seconds": round(shard.wear.seconds, 1) if shard.wear else 0.0,
            }
            for name, (pid, shard) in shards.items()
        ],
        "recycling": None,
    }
    if recycling is not None:
        told["recycling"] = {
            "shard": recycling.worn,
            "successor": recycling.fresh,
            "cause": recycling.cause.words,
            "moved": recycling.moved,
            "left": len(recycling.staying),
            "seconds": round(now - recycling.began, 1),
        }
    return told


def write_shards_file(home: Home, described: dict[str, Any]) -> None:
    """Write the file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    fresh = _path(home).with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(described, file)
    fresh.replace(_path(home))


def read_shards_file(home: Home) -> dict[str, Any]:
    """Return what was written last; empty lists when there is nothing (readable)."""
    try:
        told = json.loads(_path(home).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = {}
    return told if isinstance(told, dict) and "shards" in told else {"shards": [], "recycling": None}


def forget_shards_file(home: Home) -> None:
    """Remove what an earlier fleet wrote."""
    _path(home).unlink(missing_ok=True)
