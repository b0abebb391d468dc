"""What follows from an outcome: the message's state, and whether its lane goes on."""

from __future__ import annotations

import pytest

from actors.platforms.limits import Retrying
from actors.platforms.outcomes import Accepted, Outcome, Rejected, Retryable, Scope, Unknown
from actors.platforms.verdicts import BROKEN_ACCOUNT_SECONDS, Verdict, verdict_on, wait_before

RETRYING = Retrying(longest_seconds=300.0)


def test_what_was_accepted_is_sent_under_the_providers_id_and_the_lane_goes_on() -> None:
    assert verdict_on(Accepted("wamid.1", "queued"), 1, RETRYING) == Verdict("sent", "sent", "queued", "wamid.1")


def test_a_bad_recipient_fails_its_message_and_nothing_else() -> None:
    verdict = verdict_on(Rejected("bad_number", "no such number", Scope.MESSAGE), 1, RETRYING)
    assert verdict == Verdict("failed", "bad_number", "no such number")


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.MESSAGE])
def test_a_refusal_that_concerns_the_account_costs_one_message_and_holds_the_lane(scope: Scope) -> None:
    verdict = verdict_on(Rejected("bad_token", "token invalid", scope), 1, RETRYING)
    assert (verdict.state, verdict.hold_seconds) == ("failed", BROKEN_ACCOUNT_SECONDS)


@pytest.mark.parametrize("scope", list(Scope))
def test_what_was_certainly_not_taken_is_queued_again_and_the_lane_waits(scope: Scope) -> None:
    verdict = verdict_on(Retryable("throttled", "too fast", 5.0, scope), 1, RETRYING)
    assert (verdict.state, verdict.hold_seconds) == ("queued", 5.0)


def test_an_unknown_outcome_is_in_doubt_and_the_lane_goes_on() -> None:
    assert verdict_on(Unknown("no_reply", "no reply"), 1, RETRYING) == Verdict("in_doubt", "no_reply", "no reply")


@pytest.mark.parametrize(
    ("first", "growth", "waits"),
    [
        (5.0, 2.0, [5, 10, 20, 40, 80, 160, 300, 300]),
        (1.0, 4.0, [1, 4, 16, 64, 256, 300, 300]),
        (7.0, 1.0, [7, 7, 7]),
        (600.0, 2.0, [600, 600, 600]),
        (0.0, 2.0, [0, 0, 0]),
        (10.0, 0.0, [10, 10, 10]),
    ],
)
def test_waits_grow_to_the_longest_but_never_cut_short_what_the_provider_asks(
    first: float, growth: float, waits: list[float]
) -> None:
    assert [wait_before(attempt, first, growth, RETRYING) for attempt in range(2, len(waits) + 2)] == waits


@pytest.mark.parametrize("attempt", [1, 10_000])
@pytest.mark.parametrize("outcome", [Retryable("a", "b", 1.0, Scope.SERVICE), Retryable("a", "b", 1e9, Scope.SERVICE)])
def test_no_number_of_attempts_breaks_a_wait(outcome: Outcome, attempt: int) -> None:
    seconds = verdict_on(outcome, attempt, RETRYING).hold_seconds
    assert seconds is not None
    assert 1.0 <= seconds <= 1e9
