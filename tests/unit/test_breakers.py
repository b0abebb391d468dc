"""Circuit breakers: when they open, how they probe, and what leaves them alone."""

from __future__ import annotations

import pytest

from actors.platforms.breakers import ACCOUNT_SCOPES, PROVIDER_SCOPES, BreakerState, CircuitBreaker
from actors.platforms.outcomes import Accepted, Outcome, Rejected, Retryable, Scope, Unknown

TAKEN = Accepted("1")
BAD_NUMBER = Rejected("bad_number", "no such number", Scope.MESSAGE)
BAD_TOKEN = Rejected("bad_token", "token invalid", Scope.CREDENTIAL)
UNLINKED = Retryable("unlinked", "scan again", 60.0, Scope.DEVICE)
NOT_REACHED = Retryable("refused", "not reached", 10.0, Scope.SERVICE)
NO_REPLY = Unknown("timeout", "no reply")


def opened(scopes: frozenset[Scope], outcome: Outcome, times: int = 5) -> CircuitBreaker:
    breaker = CircuitBreaker(scopes)
    for moment in range(times):
        breaker.note(outcome, float(moment))
    return breaker


@pytest.mark.parametrize("outcome", [NOT_REACHED, NO_REPLY])
def test_a_provider_that_fails_five_times_in_a_row_is_left_alone(outcome: Outcome) -> None:
    assert opened(PROVIDER_SCOPES, outcome, 4).state is BreakerState.CLOSED
    breaker = opened(PROVIDER_SCOPES, outcome)
    assert breaker.state is BreakerState.OPEN
    assert breaker.seconds_to_wait(4.0) == 10.0


@pytest.mark.parametrize("outcome", [BAD_TOKEN, UNLINKED])
def test_an_account_that_cannot_send_opens_its_own_breaker_and_not_the_providers(outcome: Outcome) -> None:
    assert opened(ACCOUNT_SCOPES, outcome).state is BreakerState.OPEN
    assert opened(PROVIDER_SCOPES, outcome).state is BreakerState.CLOSED


@pytest.mark.parametrize("scopes", [ACCOUNT_SCOPES, PROVIDER_SCOPES])
def test_bad_recipients_never_open_a_breaker(scopes: frozenset[Scope]) -> None:
    assert opened(scopes, BAD_NUMBER, 1000).state is BreakerState.CLOSED


def test_a_success_in_between_starts_the_count_afresh() -> None:
    breaker = opened(PROVIDER_SCOPES, NO_REPLY, 4)
    breaker.note(TAKEN, 4.0)
    for moment in range(4):
        assert not breaker.note(NO_REPLY, 5.0 + moment)


def test_one_probe_goes_and_closes_the_breaker_when_it_succeeds() -> None:
    breaker = opened(PROVIDER_SCOPES, NO_REPLY)
    assert breaker.seconds_to_wait(14.0) == 0.0
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.seconds_to_wait(14.1) > 0.0, "only one probe"
    assert breaker.note(TAKEN, 14.2)
    assert breaker.seconds_to_wait(14.3) == 0.0


def test_a_failed_probe_doubles_the_wait_up_to_five_minutes() -> None:
    breaker = opened(PROVIDER_SCOPES, NO_REPLY)
    now, waits = 4.0, []
    for _ in range(8):
        waits.append(breaker.seconds_to_wait(now))
        now += waits[-1]
        assert breaker.seconds_to_wait(now) == 0.0
        breaker.note(NO_REPLY, now)
    assert waits == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]


def test_a_probe_that_never_answers_is_followed_by_another() -> None:
    breaker = opened(PROVIDER_SCOPES, NO_REPLY)
    assert breaker.seconds_to_wait(14.0) == 0.0
    breaker.release_lost_probe(23.9)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.release_lost_probe(24.1)
    assert breaker.seconds_to_wait(24.1) == 0.0
