"""What follows from an outcome: the message's next state, and whether its lane goes on or waits. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.platforms.outcomes import Accepted, Outcome, Rejected, Retryable, Scope, Unknown

if TYPE_CHECKING:
    from actors.platforms.limits import Retrying

#: How long a lane waits when its account cannot be used at all, in seconds.
BROKEN_ACCOUNT_SECONDS = 60.0


@dataclass(frozen=True)
class Verdict:
    """What is to be recorded of one attempt.

    Attributes:
        state: the message's state: sent, failed, queued or in_doubt.
        code, reason: why.
        external_id: the provider's id of the message, if it gave one.
        hold_seconds: how long the lane waits before its next message; None: it goes on at once.
    """

    state: str
    code: str
    reason: str
    external_id: str | None = None
    hold_seconds: float | None = None


def verdict_on(outcome: Outcome, attempt: int, retrying: Retrying) -> Verdict:
    """Return what follows from the outcome of a message's ``attempt``-th attempt."""
    match outcome:
        case Accepted(provider_id, detail):
            return Verdict("sent", "sent", detail, provider_id)
        case Rejected(code, reason, scope):
            # Beyond the message, the next one would fare the same; it waits, so that a wrong token costs one message.
            hold = None if scope is Scope.MESSAGE else BROKEN_ACCOUNT_SECONDS
            return Verdict("failed", code, reason, hold_seconds=hold)
        case Retryable(code, reason, after_seconds, _, growth):
            # The lane waits, whatever it is about: its order stays.
            return Verdict(
                "queued", code, reason, hold_seconds=wait_before(attempt + 1, after_seconds, growth, retrying)
            )
        case Unknown(code, reason, _, provider_id):
            return Verdict("in_doubt", code, reason, provider_id)


def wait_before(attempt: int, first_seconds: float, growth: float, retrying: Retrying) -> float:
    """Return the wait before a message's ``attempt``-th attempt; a provider's own wait is never cut short."""
    longest = max(retrying.longest_seconds, first_seconds)
    if first_seconds <= 0.0:
        return 0.0
    seconds = first_seconds
    for _ in range(attempt - 2):
        seconds *= max(1.0, growth)
        if seconds >= longest:
            return longest
    return seconds
