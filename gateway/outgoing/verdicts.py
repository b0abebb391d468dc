"""What an endpoint's answer means for a delivery: it is over, tried again after a while, or a dead letter. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from storage.endpoint_deliveries import Delivery, Tried

#: The waits between attempts: the first, and the longest, in seconds; each is up to twice as long as the one before.
#: They begin short, since the events behind this one wait, too.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 3600.0
#: How much of an answer is kept, in characters.
_ANSWER_LIMIT = 500


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered: the status, the beginning of the body, and when it wants to be asked again (s)."""

    status: int
    body: bytes = b""
    retry_after: float | None = None


@dataclass(frozen=True)
class NoAnswer:
    """Why there was no answer, in words."""

    problem: str


def wait_after(attempts: int, jitter: float) -> float:
    """Return the wait after so many failed attempts, in seconds; ``jitter`` (0 to 1) takes away up to half of it."""
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempts - 1, 30))
    return longest * (1.0 - jitter / 2.0)


def judge(delivery: Delivery, outcome: Answer | NoAnswer, jitter: float) -> Tried:
    """Return what came of an attempt at ``delivery``."""
    if isinstance(outcome, NoAnswer):
        status, answer, problem, asked_for = None, "", outcome.problem, None
    else:
        status, asked_for = outcome.status, outcome.retry_after
        answer = outcome.body.decode("utf-8", "replace")[:_ANSWER_LIMIT]
        if 200 <= outcome.status < 300:
            return Tried(delivery, "delivered", status, answer)
        problem = _words(outcome.status)
    gone = status == HTTPStatus.GONE
    if gone or delivery.late:
        return Tried(delivery, "dead", status, answer, problem, gone=gone)
    wait = max(wait_after(delivery.attempts + 1, jitter), min(asked_for or 0.0, _LONGEST_WAIT))
    return Tried(delivery, "pending", status, answer, problem, wait)


def _words(status: int) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "unknown status"
    if 300 <= status < 400:
        return f"It answered {status} ({phrase}); redirects are not followed."
    return f"It answered {status} ({phrase})."
