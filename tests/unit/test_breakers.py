"""Circuit breakers: when they open, how they probe, and what leaves them alone."""

from __future__ import annotations

import pytest

from actors.platforms.breakers import ACCOUNT_SCOPES, PROVIDER_SCOPES, Breakers, BreakerState, CircuitBreaker
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


@pytest.mark.parametrize(
    "scope", [scope for scope in Scope if scope in {Scope.CREDENTIAL, Scope.ACCOUNT, Scope.DEVICE, Scope.CONFIG}]
)
def test_a_refusal_of_the_account_itself_opens_at_once_and_a_wait_does_not(scope: Scope) -> None:
    assert opened(ACCOUNT_SCOPES, Rejected("blocked", "blocked by policy", scope), 1).state is BreakerState.OPEN
    assert opened(ACCOUNT_SCOPES, Retryable("busy", "busy", 5.0, scope), 4).state is BreakerState.CLOSED


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
    assert breaker.let_through(14.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert 0.0 < breaker.seconds_to_wait(14.1) <= 2.0, "only one probe, and soon after it the others"
    assert breaker.note(TAKEN, 14.2)
    assert breaker.seconds_to_wait(14.3) == 0.0


def test_a_failed_probe_doubles_the_wait_up_to_five_minutes() -> None:
    breaker = opened(PROVIDER_SCOPES, NO_REPLY)
    now, waits = 4.0, []
    for _ in range(8):
        waits.append(breaker.seconds_to_wait(now))
        now += waits[-1]
        assert breaker.seconds_to_wait(now) == 0.0
        breaker.let_through(now)
        breaker.note(NO_REPLY, now)
    assert waits == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]


def test_a_probe_that_never_answers_is_followed_by_another() -> None:
    breaker = opened(PROVIDER_SCOPES, NO_REPLY)
    breaker.let_through(14.0)
    assert not breaker.release_lost_probe(23.9)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.release_lost_probe(24.1)
    assert breaker.seconds_to_wait(24.1) == 0.0


# --- the breakers of a platform --------------------------------------------------------------------------


def failing(breakers: Breakers, account: str, provider: str, outcome: Outcome, times: int = 5) -> None:
    for _ in range(times):
        breakers.note(account, provider, outcome, 0.0)


def wait_of(breakers: Breakers, account: str, provider: str, now: float = 1.0) -> float:
    return breakers.let_through(account, provider, now)[0]


def test_a_provider_that_fails_holds_its_own_accounts_and_no_others_of_its_platform() -> None:
    breakers = Breakers()
    failing(breakers, "a", "https://one.example", NO_REPLY)
    assert wait_of(breakers, "a", "https://one.example") > 0.0
    assert wait_of(breakers, "b", "https://one.example") > 0.0
    assert wait_of(breakers, "c", "https://two.example") == 0.0


def test_an_account_that_fails_holds_nobody_else() -> None:
    breakers = Breakers()
    failing(breakers, "a", "", BAD_TOKEN, 1)
    assert wait_of(breakers, "a", "") > 0.0
    assert wait_of(breakers, "b", "") == 0.0


def test_a_breakers_turns_are_told_in_order_with_one_probe_among_all_accounts() -> None:
    breakers = Breakers()
    told = [change for _ in range(5) for change in breakers.note("a", "https://one.example", NO_REPLY, 0.0)]
    seconds, _, changes = breakers.let_through("a", "https://one.example", 10.0)
    assert seconds == 0.0
    told += changes
    seconds, reason, changes = breakers.let_through("b", "https://one.example", 10.0)
    assert 0.0 < seconds <= 2.0
    assert "provider" in reason
    assert not changes
    told += breakers.note("a", "https://one.example", TAKEN, 10.1)
    assert [(each.account, each.state, each.is_provider) for each in told] == [
        ("https://one.example", state, True) for state in ("open", "half_open", "closed")
    ]
    assert wait_of(breakers, "b", "https://one.example", 10.2) == 0.0


def test_a_message_that_one_breaker_holds_does_not_use_up_the_others_probe() -> None:
    breakers = Breakers()
    failing(breakers, "a", "p", BAD_TOKEN, 1)
    for _ in range(5):
        breakers.note("b", "p", NO_REPLY, 9.0)
    assert wait_of(breakers, "a", "p", 11.0) > 0.0, "its own would let it through, the provider's does not"
    assert wait_of(breakers, "b", "p", 19.0) == 0.0
    breakers.note("b", "p", TAKEN, 19.1)
    assert wait_of(breakers, "a", "p", 19.2) == 0.0


def test_a_probe_that_found_nothing_to_try_is_given_back() -> None:
    breakers = Breakers()
    failing(breakers, "a", "p", BAD_TOKEN, 1)
    assert wait_of(breakers, "a", "p", 10.0) == 0.0
    assert [change.state for change in breakers.give_back("a", "p")] == ["open"]
    assert wait_of(breakers, "a", "p", 10.1) == 0.0


def test_trouble_that_was_reported_opens_an_accounts_breaker_once() -> None:
    breakers = Breakers()
    assert breakers.trip("a", "suspended for spam", 0.0)
    assert not breakers.trip("a", "suspended for spam", 1.0)
    seconds, reason, _ = breakers.let_through("a", "p", 1.0)
    assert seconds > 0.0
    assert "suspended for spam" in reason
    assert wait_of(breakers, "a", "p", 10.0) == 0.0, "the probe"


def test_an_account_that_is_added_anew_owes_nothing_for_the_one_of_its_name() -> None:
    breakers = Breakers()
    failing(breakers, "a", "p", BAD_TOKEN, 1)
    assert [(change.account, change.state) for change in breakers.forget("a")] == [("a", "closed")]
    assert wait_of(breakers, "a", "p") == 0.0
    assert breakers.forget("a") == []
    breakers.trip("a", "suspended for spam", 0.0)
    assert breakers.forget("a") == []
    assert wait_of(breakers, "a", "p") > 0.0
