"""The simulator's counters: a connect belongs to the second in which it came, whenever the simulator gets to it."""

from __future__ import annotations

from simulator.whatsapp.statistics import PEAK_CONNECTS, Statistics


def test_connects_are_counted_in_the_seconds_in_which_they_came_in_any_order() -> None:
    statistics = Statistics({})
    for moment in (100.2, 103.0, 101.9, 100.9, 101.0, 100.0):
        statistics.connected(moment)
    assert statistics.timeline()["connects"] == [[100, 3], [101, 2], [103, 1]]
    assert statistics.report()[PEAK_CONNECTS] == 3


def test_only_the_latest_seconds_are_kept() -> None:
    statistics = Statistics({})
    for second in range(2000):
        statistics.connected(float(second))
    connects = statistics.timeline()["connects"]
    assert isinstance(connects, list)
    assert connects[0][0] > 1000
    assert connects[-1] == [1999, 1]
