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
    unplaced = set(device_ids)
    alone = {f"quarantine-{device_id}": (device_id,) for device_id in unplaced & quarantined}
    unplaced -= quarantined
    shards: dict[str, list[int]] = {}
    for name, hosted in current.items():
        staying = sorted(unplaced.intersection(hosted))
        if staying and not name.startswith("quarantine-"):
            shards[name] = staying
            unplaced.difference_update(staying)
    for device_id in sorted(unplaced):
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
