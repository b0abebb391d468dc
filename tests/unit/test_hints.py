"""Hints to the actors that send: few, none lost, and a stuck actor is not flooded."""

from __future__ import annotations

import pytest

from actors import router
from actors.router import Hints


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.moment = 1000.0

    def monotonic(self) -> float:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(router, "time", clock)
    return clock


def test_the_first_hint_goes_at_once_with_every_device(clock: Clock) -> None:
    hints = Hints()
    for target, device_id in (("shard-1", 2), ("shard-1", 1), ("shard-1", 2), ("shard-2", 3)):
        hints.add(target, device_id)
    assert sorted(hints.due()) == [("shard-1", (1, 2)), ("shard-2", (3,))]
    assert hints.due() == []


def test_the_next_hint_waits_until_the_last_was_read_and_gathers(clock: Clock) -> None:
    hints = Hints()
    hints.add("shard-1", 1)
    hints.due()
    hints.add("shard-1", 2)
    hints.add("shard-1", 3)
    assert hints.due() == []
    hints.noted("shard-1")
    assert hints.due() == [("shard-1", (2, 3))]
    hints.noted("shard-1")
    hints.noted("shard-1")
    hints.noted("never hinted")
    assert hints.due() == []


def test_a_stuck_actor_delays_no_other(clock: Clock) -> None:
    hints = Hints()
    hints.add("stuck", 1)
    hints.due()
    hints.add("stuck", 1)
    hints.add("well", 2)
    assert hints.due() == [("well", (2,))]


def test_an_actor_that_reads_nothing_is_tried_again_after_a_while_and_not_flooded(clock: Clock) -> None:
    hints = Hints()
    sent = 0
    for device_id in range(1000):
        hints.add("stuck", device_id)
        sent += len(hints.due())
        clock.advance(0.1)
    assert 10 <= sent <= 100_000 / 1000 / router._HINT_PATIENCE_SECONDS + 1
    clock.advance(60)
    hints.add("stuck", 1)
    assert len(hints.due()) == 1
