"""Where devices live: properties of one pure rule."""

from __future__ import annotations

import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from supervisors.placement import place

Hosting = dict[str, tuple[int, ...]]

device_sets = st.sets(st.integers(1, 200), max_size=60)
limits = st.integers(1, 12)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Hosting, int]:
    """Draw what shards host after a few changes of the fleet, and the limit that held all the time."""
    limit = draw(limits)
    hosting: Hosting = {}
    for devices in draw(st.lists(device_sets, max_size=4)):
        hosting = place(hosting, devices, limit)
    return hosting, limit


def homes(hosting: Hosting) -> dict[int, str]:
    return {device_id: name for name, hosted in hosting.items() for device_id in hosted}


@given(histories(), device_sets)
def test_every_device_is_hosted_exactly_once_and_no_other(history: tuple[Hosting, int], devices: set[int]) -> None:
    hosting, limit = history
    placed = Counter(device_id for hosted in place(hosting, devices, limit).values() for device_id in hosted)
    assert placed == Counter(devices)


@given(histories(), device_sets)
def test_there_are_never_more_shards_than_allowed_and_never_an_empty_one(
    history: tuple[Hosting, int], devices: set[int]
) -> None:
    hosting, limit = history
    wanted = place(hosting, devices, limit)
    assert len(wanted) <= limit
    assert all(wanted.values())


@given(histories(), device_sets)
def test_devices_stay_where_they_are(history: tuple[Hosting, int], devices: set[int]) -> None:
    hosting, limit = history
    before, after = homes(hosting), homes(place(hosting, devices, limit))
    assert all(after[device_id] == before[device_id] for device_id in devices & set(before))


@given(histories(), device_sets)
def test_placing_again_changes_nothing(history: tuple[Hosting, int], devices: set[int]) -> None:
    hosting, limit = history
    once = place(hosting, devices, limit)
    assert place(once, devices, limit) == once


@given(device_sets, limits)
def test_a_fresh_fleet_is_spread_evenly(devices: set[int], limit: int) -> None:
    sizes = [len(hosted) for hosted in place({}, devices, limit).values()]
    assert len(sizes) == min(limit, len(devices))
    assert not sizes or max(sizes) - min(sizes) <= 1


@given(device_sets, device_sets, limits)
def test_those_that_come_first_are_spread_evenly_among_themselves(
    devices: set[int], urgent: set[int], limit: int
) -> None:
    wanted = place({}, [*sorted(urgent), *sorted(devices)], limit)
    counts = [len(urgent.intersection(hosted)) for hosted in wanted.values()]
    assert not counts or max(counts) - min(counts) <= 1


@given(histories(), device_sets)
def test_a_new_device_goes_to_an_emptiest_shard(history: tuple[Hosting, int], devices: set[int]) -> None:
    hosting, limit = history
    steady = place(hosting, devices, limit)
    newcomer = 1000
    home = homes(place(steady, devices | {newcomer}, limit))[newcomer]
    assert len(steady.get(home, ())) == min(map(len, steady.values()), default=0) or len(steady) < limit
    assert (home not in steady) == (len(steady) < limit)


@given(histories(), device_sets, device_sets)
def test_a_quarantined_device_is_alone_and_moves_nobody(
    history: tuple[Hosting, int], devices: set[int], suspects: set[int]
) -> None:
    hosting, limit = history
    before = place(hosting, devices, limit)
    after = place(before, devices, limit, frozenset(suspects))
    assert Counter(homes(after).keys()) == Counter(devices)
    for device_id in devices:
        if device_id in suspects:
            assert after[homes(after)[device_id]] == (device_id,)
        else:
            assert homes(after)[device_id] == homes(before)[device_id]
    released = place(after, devices, limit)
    assert Counter(device_id for hosted in released.values() for device_id in hosted) == Counter(devices)
    assert len(released) <= limit


def test_a_device_that_two_shards_claim_stays_with_one() -> None:
    assert place({"shard-1": (1, 2), "shard-2": (2, 3, 3)}, [1, 2, 3], 4) == {"shard-1": (1, 2), "shard-2": (3,)}


def test_a_large_fleet_is_placed_in_no_time() -> None:
    devices = range(1, 20_001)
    began = time.monotonic()
    hosting = place(place({}, devices, 32), devices, 32)
    assert sum(map(len, hosting.values())) == len(devices)
    # A supervisor does this between two heartbeats; quadratic work would take minutes.
    assert time.monotonic() - began < 10
