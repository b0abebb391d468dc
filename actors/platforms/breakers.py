"""Circuit breakers: stop knocking at a door that does not open, and notice by itself when it does again.

One stands before each account and one before each provider. They open on what is wrong with the service, the device
or the account, never on a bad recipient. Pure: the caller reads the clock and applies the verdict.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum

from actors.platforms.outcomes import Accepted, Outcome, Rejected, Retryable, Scope, Unknown

#: This many failures in a row open a breaker.
_FAILURES = 5
#: How long an open breaker waits before its first probe, and at the most; each failed probe doubles it, in seconds.
_FIRST_WAIT = 10.0
_LONGEST_WAIT = 300.0

#: What an account's breaker and a provider's breaker listen to.
ACCOUNT_SCOPES = frozenset({Scope.DEVICE, Scope.ACCOUNT, Scope.CREDENTIAL, Scope.CONFIG})
PROVIDER_SCOPES = frozenset({Scope.SERVICE})


class BreakerState(StrEnum):
    """What a breaker does with the next message."""

    CLOSED = "closed"  #: lets it through
    OPEN = "open"  #: holds it
    HALF_OPEN = "half_open"  #: one probe is under way; holds the others


def scope_of(outcome: Outcome) -> Scope | None:
    """Return what a failure is about; None for a success or a fault of the message alone.

    An unknown outcome (no reply, a broken one) speaks against the service.
    """
    match outcome:
        case Accepted():
            return None
        case Unknown():
            return Scope.SERVICE
        case Rejected(scope=scope) | Retryable(scope=scope):
            return None if scope is Scope.MESSAGE else scope


@dataclass
class CircuitBreaker:
    """Opens after failures in a row, waits, lets one probe through, closes when it succeeds.

    Attributes:
        scopes: the failures it listens to; others are none of its business and prove the door open.
    """

    scopes: frozenset[Scope]
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    reason: str = ""
    _wait: float = _FIRST_WAIT
    _opens_at: float = 0.0

    def seconds_to_wait(self, now: float) -> float:
        """Return how long the next message must wait; 0: it may go (and is the probe of an open breaker)."""
        if self.state is BreakerState.CLOSED:
            return 0.0
        if self.state is BreakerState.HALF_OPEN:
            return max(1.0, self._opens_at - now)
        if now < self._opens_at:
            return self._opens_at - now
        self.state = BreakerState.HALF_OPEN
        # Should the probe's outcome never come (its process died), another goes after as long again.
        self._opens_at = now + self._wait
        return 0.0

    def note(self, outcome: Outcome, now: float) -> bool:
        """Note the outcome of a message that was let through; return whether the breaker's state changed."""
        before = self.state
        if scope_of(outcome) in self.scopes:
            self.failures += 1
            self.reason = "" if isinstance(outcome, Accepted) else outcome.reason
            if self.state is BreakerState.HALF_OPEN:
                self._wait = min(_LONGEST_WAIT, 2 * self._wait)
            if self.state is BreakerState.HALF_OPEN or self.failures >= _FAILURES:
                self.state = BreakerState.OPEN
                self._opens_at = now + self._wait
        elif self._answered(outcome):
            self.state, self.failures, self.reason, self._wait = BreakerState.CLOSED, 0, "", _FIRST_WAIT
        return self.state is not before

    def release_lost_probe(self, now: float) -> None:
        """Let another probe go when the last one's outcome is overdue."""
        if self.state is BreakerState.HALF_OPEN and now >= self._opens_at:
            self.state = BreakerState.OPEN

    def _answered(self, outcome: Outcome) -> bool:
        """Return whether an outcome shows that what this guards works: a provider that refuses an account does."""
        return isinstance(outcome, Accepted) or scope_of(outcome) is None or Scope.SERVICE in self.scopes


@dataclass(frozen=True)
class BreakerChange:
    """A breaker's new state; ``account`` is empty for the whole provider."""

    account: str
    state: str
    reason: str
    failures: int


class Breakers:
    """The breakers of one platform: the provider's, and one for each account. Safe for the workers' threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._provider = CircuitBreaker(PROVIDER_SCOPES)
        self._accounts: dict[str, CircuitBreaker] = {}

    def seconds_to_wait(self, account: str, now: float) -> tuple[float, str]:
        """Return how long the account's next message must wait (0: it may go) and why."""
        with self._lock:
            own = self._account(account)
            for breaker in (own, self._provider):
                breaker.release_lost_probe(now)
            # The account's first: a held account must not use up the provider's probe.
            for breaker, whose in ((own, "this account"), (self._provider, "the provider")):
                seconds = breaker.seconds_to_wait(now)
                if seconds > 0.0:
                    return seconds, f"The breaker of {whose} is open: {breaker.reason}"
            return 0.0, ""

    def note(self, account: str, outcome: Outcome, now: float) -> list[BreakerChange]:
        """Note an outcome; return the breakers whose state changed."""
        with self._lock:
            changed = []
            for name, breaker in ((account, self._account(account)), ("", self._provider)):
                if breaker.note(outcome, now):
                    changed.append(BreakerChange(name, breaker.state.value, breaker.reason, breaker.failures))
            return changed

    def release_probe(self, account: str) -> None:
        """Give back a probe that found no message to try."""
        with self._lock:
            for breaker in (self._account(account), self._provider):
                breaker.release_lost_probe(float("inf"))

    def _account(self, name: str) -> CircuitBreaker:
        return self._accounts.setdefault(name, CircuitBreaker(ACCOUNT_SCOPES))
