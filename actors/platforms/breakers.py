"""Circuit breakers: stop knocking at a door that does not open, and notice by itself when it does again.

One stands before each account and one before each provider: each base URL, since software that people run themselves,
and a provider's several servers, fail one by one. They open on what is wrong with the service, the device or the
account, never on a bad recipient. Pure: the caller reads the clock and applies the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from actors.platforms.outcomes import Accepted, Outcome, Rejected, Retryable, Scope, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable

#: This many failures in a row open a breaker; one is enough where the provider refuses the account as such, since
#: each further message would only be refused, too.
_FAILURES = 5
#: How long an open breaker waits before its first probe, and at the most; each failed probe doubles it, in seconds.
_FIRST_WAIT = 10.0
_LONGEST_WAIT = 300.0
#: How soon those that wait behind a probe ask again, in seconds: its outcome frees them all.
_PROBE_SECONDS = 2.0

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
        """Return how long the next message must wait; 0: it may go (see :meth:`let_through`)."""
        if self.state is BreakerState.CLOSED:
            return 0.0
        left = max(0.0, self._opens_at - now)
        # Should the probe's outcome never come (its process died), another goes after as long again.
        return min(_PROBE_SECONDS, left) if self.state is BreakerState.HALF_OPEN else left

    def let_through(self, now: float) -> bool:
        """Note that a message goes that need not wait; return whether it is the probe of a breaker that was open."""
        if self.state is not BreakerState.OPEN:
            return False
        self.state = BreakerState.HALF_OPEN
        self._opens_at = now + self._wait
        return True

    def note(self, outcome: Outcome, now: float) -> bool:
        """Note the outcome of a message that was let through; return whether the breaker's state changed."""
        before = self.state
        if scope_of(outcome) in self.scopes:
            self.failures += 1
            self.reason = "" if isinstance(outcome, Accepted) else outcome.reason
            if self.state is BreakerState.HALF_OPEN:
                self._wait = min(_LONGEST_WAIT, 2 * self._wait)
            is_final = isinstance(outcome, Rejected)
            if self.state is BreakerState.HALF_OPEN or is_final or self.failures >= _FAILURES:
                self._open(now)
        elif self._answered(outcome):
            self.state, self.failures, self.reason, self._wait = BreakerState.CLOSED, 0, "", _FIRST_WAIT
        return self.state is not before

    def trip(self, reason: str, now: float) -> bool:
        """Open, as somebody else learned that nothing goes; return whether it was closed."""
        if self.state is not BreakerState.CLOSED:
            return False
        self.reason = reason
        self._open(now)
        return True

    def _open(self, now: float) -> None:
        self.state = BreakerState.OPEN
        self._opens_at = now + self._wait

    def release_lost_probe(self, now: float) -> bool:
        """Let another probe go when the last one's outcome is overdue; return whether it was."""
        if self.state is not BreakerState.HALF_OPEN or now < self._opens_at:
            return False
        self.state = BreakerState.OPEN
        return True

    def give_back(self) -> bool:
        """Let the next message be the probe, as this one found nothing to try; return whether it was one."""
        if self.state is not BreakerState.HALF_OPEN:
            return False
        self.state, self._opens_at = BreakerState.OPEN, 0.0
        return True

    def _answered(self, outcome: Outcome) -> bool:
        """Return whether an outcome shows that what this guards works: a provider that refuses an account does."""
        return isinstance(outcome, Accepted) or scope_of(outcome) is None or Scope.SERVICE in self.scopes


@dataclass(frozen=True)
class BreakerChange:
    """A breaker's new state.

    Attributes:
        account: the device, or the provider's base URL (empty: the platform's own address).
        state, reason, failures: as the breaker has them.
        is_provider: it stands before the provider, not before one account.
    """

    account: str
    state: str
    reason: str
    failures: int
    is_provider: bool = False


class Breakers:
    """The breakers of one platform: one for each provider, and one for each account. For one thread."""

    def __init__(self) -> None:
        self._providers: dict[str, CircuitBreaker] = {}
        self._accounts: dict[str, CircuitBreaker] = {}

    def let_through(self, account: str, provider: str, now: float) -> tuple[float, str, list[BreakerChange]]:
        """Let the account's next message go unless it must wait.

        Args:
            account: the device.
            provider: where its requests go: a base URL, or "" for the platform's own.
            now: the monotonic clock, in seconds.

        Returns:
            How long it must wait (0: it goes), why, and the breakers whose state changed.
        """
        changes = self._each(account, provider, lambda breaker: breaker.release_lost_probe(now))
        waits = [(breaker.seconds_to_wait(now), breaker, whose) for _, breaker, whose in self._of(account, provider)]
        seconds, breaker, whose = max(waits, key=lambda wait: wait[0])
        if seconds > 0.0:
            return seconds, f"The breaker of {whose} is open: {breaker.reason}", changes
        # Both together: a message that one of them holds must not use up the other's probe.
        return 0.0, "", self._each(account, provider, lambda breaker: breaker.let_through(now))

    def note(self, account: str, provider: str, outcome: Outcome, now: float) -> list[BreakerChange]:
        """Note an outcome; return the breakers whose state changed."""
        return self._each(account, provider, lambda breaker: breaker.note(outcome, now))

    def trip(self, account: str, reason: str, now: float) -> bool:
        """Open an account's breaker, as its webhook told of trouble; return whether it was closed."""
        return self._accounts.setdefault(account, CircuitBreaker(ACCOUNT_SCOPES)).trip(reason, now)

    def forget(self, account: str) -> list[BreakerChange]:
        """Begin anew for an account that was opened for the first time: what failed was another one of its name.

        Trouble that was only reported stays. Returns the breaker whose state changed.
        """
        own = self._accounts.get(account)
        if own is None or not own.failures:
            return []
        del self._accounts[account]
        if own.state is BreakerState.CLOSED:
            return []
        return [BreakerChange(account, BreakerState.CLOSED.value, "", 0)]

    def give_back(self, account: str, provider: str) -> list[BreakerChange]:
        """Give back the turn of a message that was not there; return the breakers whose state changed."""
        return self._each(account, provider, CircuitBreaker.give_back)

    def _of(self, account: str, provider: str) -> tuple[tuple[str, CircuitBreaker, str], ...]:
        own = self._accounts.setdefault(account, CircuitBreaker(ACCOUNT_SCOPES))
        shared = self._providers.setdefault(provider, CircuitBreaker(PROVIDER_SCOPES))
        return (account, own, "this account"), (provider, shared, "the provider")

    def _each(self, account: str, provider: str, change: Callable[[CircuitBreaker], bool]) -> list[BreakerChange]:
        return [
            BreakerChange(
                name, breaker.state.value, breaker.reason, breaker.failures, breaker.scopes is PROVIDER_SCOPES
            )
            for name, breaker, _ in self._of(account, provider)
            if change(breaker)
        ]
