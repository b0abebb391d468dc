"""Paces, by turning a clock: what goes at once, what waits, for how long, and what is forgotten."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.platforms import contract_of, contracts
from actors.platforms.limits import Limits
from actors.platforms.pace import Pace

ALICE, BOB = "601", "602"


def pace_of(**limits: float | None) -> Pace:
    pace = Pace.of(Limits(frozenset({"text"}), **limits))  # type: ignore[arg-type]  # the names are the caller's
    assert pace is not None
    return pace


def departures(pace: Pace, recipients: list[str], now: float = 0.0) -> list[float]:
    """Return when each message leaves when each goes as soon as it may."""
    left = []
    for recipient in recipients:
        now += pace.seconds_to_wait(now, recipient)
        pace.note(now, recipient)
        left.append(now)
    return left


def test_a_platform_without_a_documented_rate_has_no_pace() -> None:
    assert Pace.of(Limits(frozenset({"text"}))) is None
    assert Pace.of(contract_of("wablas").limits) is None


def test_every_documented_rate_makes_a_pace() -> None:
    paced = {name for name, contract in contracts().items() if Pace.of(contract.limits)}
    assert {"meta_cloud", "dialog360", "green_api", "twilio"} <= paced


def test_the_first_message_goes_at_once_and_the_next_ones_are_spread_evenly() -> None:
    pace = pace_of(messages_per_second=10.0)
    assert departures(pace, [ALICE] * 4, now=100.0) == pytest.approx([100.0, 100.1, 100.2, 100.3])


def test_time_that_was_not_used_is_not_made_up_for() -> None:
    pace = pace_of(messages_per_second=10.0)
    pace.note(0.0, ALICE)
    assert departures(pace, [ALICE] * 3, now=60.0) == pytest.approx([60.0, 60.1, 60.2])


def test_a_recipient_gets_a_burst_and_then_one_message_each_interval() -> None:
    pace = pace_of(seconds_per_recipient=6.0, recipient_burst=3)
    assert departures(pace, [ALICE] * 5) == pytest.approx([0.0, 0.0, 0.0, 6.0, 12.0])


def test_another_recipient_does_not_wait() -> None:
    pace = pace_of(seconds_per_recipient=6.0)
    pace.note(0.0, ALICE)
    assert pace.seconds_to_wait(1.0, ALICE) == 5.0
    assert pace.seconds_to_wait(1.0, BOB) == 0.0
    assert pace.seconds_to_wait(1.0) == 0.0, "whom it goes to is not known yet"


def test_a_burst_comes_back_after_a_pause() -> None:
    pace = pace_of(seconds_per_recipient=6.0, recipient_burst=2)
    assert departures(pace, [ALICE] * 3) == pytest.approx([0.0, 0.0, 6.0])
    assert departures(pace, [ALICE] * 3, now=100.0) == pytest.approx([100.0, 100.0, 106.0])


def test_both_rates_hold_together() -> None:
    pace = pace_of(messages_per_second=2.0, seconds_per_recipient=3.0)
    assert departures(pace, [ALICE, BOB, ALICE]) == pytest.approx([0.0, 0.5, 3.0])


def test_recipients_whose_pace_is_over_are_forgotten() -> None:
    pace = pace_of(seconds_per_recipient=6.0)
    for number in range(50_000):
        pace.note(number * 0.1, str(number))
    assert len(pace._empty_at) <= 1000


def test_recipients_whose_pace_still_runs_are_remembered_however_many_they_are() -> None:
    pace = pace_of(seconds_per_recipient=6.0)
    for number in range(5000):
        pace.note(0.0, str(number))
    assert all(pace.seconds_to_wait(1.0, str(number)) == 5.0 for number in range(5000))


@given(
    rate=st.floats(0.5, 100.0),
    interval=st.floats(0.1, 10.0),
    burst=st.integers(1, 10),
    steps=st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.floats(0.0, 3.0)), min_size=2, max_size=60),
)
def test_no_rate_is_ever_exceeded(rate: float, interval: float, burst: int, steps: list[tuple[str, float]]) -> None:
    pace = pace_of(messages_per_second=rate, seconds_per_recipient=interval, recipient_burst=burst)
    now, left = 0.0, []
    for recipient, pause in steps:
        now += pause
        now += pace.seconds_to_wait(now, recipient)
        assert pace.seconds_to_wait(now, recipient) == pytest.approx(0.0, abs=1e-6)
        pace.note(now, recipient)
        left.append((now, recipient))
    moments = [moment for moment, _ in left]
    assert all(later - earlier >= 1.0 / rate - 1e-6 for earlier, later in pairwise(moments))
    for whom in (ALICE, BOB):
        own = [moment for moment, recipient in left if recipient == whom]
        gaps = [later - earlier for earlier, later in zip(own, own[burst:], strict=False)]
        assert all(gap >= interval - 1e-6 for gap in gaps)
