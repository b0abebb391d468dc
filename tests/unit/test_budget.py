"""The fleet's reconnect budget and the outage breaker: decisions over a clock that the tests turn."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisors.budget import SMALLEST_SHARE, ConnectBudget, OutageBreaker, planned, share_of, weight_of


@given(
    per_second=st.floats(0.5, 100),
    asks=st.lists(st.tuples(st.integers(1, 200), st.floats(0, 5)), min_size=1, max_size=200),
    chances=st.floats(0, 0.999),
)
def test_no_second_holds_more_connects_than_the_budget(
    per_second: float, asks: list[tuple[int, float]], chances: float
) -> None:
    budget = ConnectBudget(per_second)
    now, moments = 0.0, []
    for device_id, later in asks:
        now += later
        if budget.waits_until(device_id) is None:
            moments.append(budget.place_of(device_id, now, chances))
        if moments and budget.waits_until(device_id) is not None and moments[-1] <= now:
            budget.used(device_id)
    moments.sort()
    # Jitter moves a moment by less than half a gap, so any second holds at most the budget and one more.
    for first in range(len(moments)):
        within = sum(1 for moment in moments[first:] if moment - moments[first] < 1.0)
        assert within <= per_second + 2


def test_a_device_that_asks_again_keeps_its_place() -> None:
    budget = ConnectBudget(1.0)
    budget.place_of(1, 0.0, 0.0)
    place = budget.place_of(2, 0.0, 0.0)
    assert budget.place_of(2, 0.9, 0.9) == place


def test_a_device_that_connected_needs_another_place() -> None:
    budget = ConnectBudget(2.0)
    first = budget.place_of(1, 0.0, 0.0)
    budget.used(1)
    assert budget.place_of(1, 0.0, 0.0) >= first + 0.5


@given(devices=st.integers(1, 120), per_second=st.floats(0.5, 20), chance=st.floats(0, 0.999))
def test_devices_that_fell_together_and_ask_at_the_same_moments_never_connect_at_once(
    devices: int, per_second: float, chance: float
) -> None:
    budget = ConnectBudget(per_second)
    waiting, connects, now = set(range(devices)), [], 0.0
    for attempt in range(1, 60):  # the library tries again after 2, 4, 6 … s
        for device_id in sorted(waiting):
            moment = budget.take(device_id, now, chance, patience=6.0)
            if moment is not None:
                connects.append(moment)
                waiting.discard(device_id)
        now += 2.0 * attempt
    assert not waiting
    connects.sort()
    gaps = [later - earlier for earlier, later in itertools.pairwise(connects)]
    assert all(gap >= 0.999 / per_second for gap in gaps)


def test_a_late_device_takes_a_moment_that_nobody_has_taken() -> None:
    budget = ConnectBudget(1.0)
    assert [budget.place_of(device_id, 0.0, 0.0) for device_id in range(4)] == [0.0, 1.0, 2.0, 3.0]
    assert budget.take(3, 2.9, 0.0) == 3.0
    assert budget.take(0, 2.9, 0.0) == 4.0, "the one at 3.0 was first"
    assert budget.take(1, 2.9, 0.0, patience=1.0) is None
    assert budget.waits_until(1) == 5.0
    assert budget.take(1, 5.5, 0.0) == 5.5


def test_shards_that_keep_their_own_time_stay_within_the_budget_in_every_second() -> None:
    shards, fleet = 32, 100.0
    share = share_of(planned(fleet), 94, 94 * shards)
    moments = []
    for shard in range(shards):
        budget = ConnectBudget(share)
        moments += [budget.place_of(device, shard / 37, (device * 0.37) % 1) for device in range(94)]
    moments.sort()
    assert max(sum(first <= each < first + 1.0 for each in moments) for first in moments) <= fleet


def test_shares_add_up_to_the_fleet() -> None:
    assert sum(share_of(60.0, hosted, 100) for hosted in (10, 20, 70)) == 60.0


def test_a_lone_device_does_not_wait_for_ever() -> None:
    assert share_of(1.0, 1, 3000) == SMALLEST_SHARE


def test_a_shard_that_was_started_again_borrows_from_those_that_have_nothing_to_connect() -> None:
    weights = [weight_of(94, hurried=number == 0) for number in range(32)]
    shares = [share_of(60.0, weight, sum(weights)) for weight in weights]
    assert sum(shares) == pytest.approx(60.0)
    assert 94 / shares[0] < 5  # seconds until its last device may connect
    assert min(shares) > SMALLEST_SHARE


def test_when_every_shard_was_started_again_none_borrows() -> None:
    weights = [weight_of(94, hurried=True) for _ in range(32)]
    assert {share_of(64.0, weight, sum(weights)) for weight in weights} == {2.0}


def test_the_breaker_opens_when_half_of_the_devices_fall_at_once() -> None:
    breaker = OutageBreaker()
    opened = [breaker.fell(device_id, hosted=10, now=1.0) for device_id in range(6)]
    assert opened == [False, False, False, False, True, False]
    assert breaker.open


def test_falls_spread_over_time_or_few_are_no_outage() -> None:
    slow, few = OutageBreaker(), OutageBreaker()
    assert not any(slow.fell(device_id, hosted=10, now=20.0 * device_id) for device_id in range(10))
    assert not any(few.fell(device_id, hosted=3, now=1.0) for device_id in range(3))
    assert not any(few.fell(1, hosted=3, now=2.0) for _ in range(20)), "one device falling often is one device"


def test_an_open_breaker_lets_one_probe_through_at_a_time_until_one_comes_online() -> None:
    breaker = OutageBreaker()
    for device_id in range(5):
        breaker.fell(device_id, hosted=5, now=0.0)
    let_through = [breaker.lets_through(0.1 * tick) for tick in range(100)]
    assert 2 <= sum(let_through) <= 4
    assert breaker.came_online(12.0) == 12.0
    assert breaker.lets_through(12.0)
    assert breaker.lets_through(12.0)
