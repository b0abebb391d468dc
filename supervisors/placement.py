"""Which shard hosts which device: one pure rule, no modes.

A fleet of up to ``max_shards`` devices gets a process for each, the best isolation there is; a larger one is spread
evenly. Devices stay where they are; a new one goes to a new shard, or to the emptiest. Shards that many devices were
removed from are not merged: each device that moved for it would be offline for a moment, a small fleet is meant to
have a process for each device, and the next start places afresh.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

#: How the names of shards begin that host one quarantined device.
_QUARANTINE = "quarantine-"


def place(
    current: Mapping[str, tuple[int, ...]],
    device_ids: Iterable[int],
    max_shards: int,
    quarantined: frozenset[int] = frozenset(),
) -> dict[str, tuple[int, ...]]:
    """Return which devices each shard hosts from now on, given what it hosts now; empty shards are left out.

    A quarantined device has a shard of its own, beyond ``max_shards``, so that it takes no neighbour down. New devices
    are placed in the order given: those that come first are spread evenly among themselves, too.
    """
    order = tuple(dict.fromkeys(device_ids))
    unplaced = set(order)
    alone: dict[str, tuple[int, ...]] = {}
    for device_id in unplaced & quarantined:
        there = [name for name, hosted in current.items() if name.startswith(_QUARANTINE) and device_id in hosted]
        alone[min(there, default=f"{_QUARANTINE}{device_id}")] = (device_id,)
    unplaced -= quarantined
    shards: dict[str, list[int]] = {}
    for name, hosted in current.items():
        staying = sorted(unplaced.intersection(hosted))
        if staying and not name.startswith(_QUARANTINE):
            shards[name] = staying
            unplaced.difference_update(staying)
    for device_id in (each for each in order if each in unplaced):
        if len(shards) < max_shards:
            shards[_free_name(shards)] = [device_id]
        else:
            emptiest = min(shards, key=lambda name: (len(shards[name]), name))
            shards[emptiest].append(device_id)
    return {name: tuple(sorted(hosted)) for name, hosted in shards.items()} | alone


def successor(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken for the shard that takes over from the shard ``name``."""
    if name.startswith(_QUARANTINE):
        return name.removesuffix("b") if name.endswith("b") else name + "b"
    return _free_name(taken)


def _free_name(taken: Container[str]) -> str:
    number = 1
    while f"shard-{number}" in taken:
        number += 1
    return f"shard-{number}"
