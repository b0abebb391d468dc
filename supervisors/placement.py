"""Which shard hosts which device: one pure rule, no modes.

A fleet of up to ``max_shards`` devices gets a process for each, the best isolation there is; a larger one is spread
evenly. Devices stay where they are; a new one goes to a new shard, or to the emptiest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def place(
    current: Mapping[str, tuple[int, ...]],
    device_ids: Iterable[int],
    max_shards: int,
    quarantined: frozenset[int] = frozenset(),
) -> dict[str, tuple[int, ...]]:
    """Return which devices each shard hosts from now on, given what it hosts now; empty shards are left out.

    A quarantined device has a shard of its own, beyond ``max_shards``, so that it takes no neighbour down.
    """
    alone = {f"quarantine-{device_id}": (device_id,) for device_id in set(device_ids) & quarantined}
    wanted = sorted(set(device_ids) - quarantined)
    current = {name: hosted for name, hosted in current.items() if not name.startswith("quarantine-")}
    shards = {name: [device_id for device_id in hosted if device_id in set(wanted)] for name, hosted in current.items()}
    shards = {name: hosted for name, hosted in shards.items() if hosted}
    placed = {device_id for hosted in shards.values() for device_id in hosted}
    for device_id in wanted:
        if device_id in placed:
            continue
        if len(shards) < max_shards:
            shards[_free_name(shards)] = [device_id]
        else:
            emptiest = min(shards, key=lambda name: (len(shards[name]), name))
            shards[emptiest].append(device_id)
    return {name: tuple(sorted(hosted)) for name, hosted in shards.items()} | alone


def _free_name(shards: Mapping[str, object]) -> str:
    number = 1
    while f"shard-{number}" in shards:
        number += 1
    return f"shard-{number}"
