"""What is told of traced messages: spans, made of rows alone. Pure.

Spans have ids that follow from what they tell, so that one that is exported twice stays one. They hold no text, no
telephone number and no words that might quote one: names of devices, ids, states and codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.tracing.requests import AnsweredRequest
    from storage.traces import Request, Step

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: What a message was in, as a span; what is not here tells nothing that a span before it does not.
_NAMES = {"queued": "outbox wait", "sending": "send attempt", "in_doubt": "in doubt", "sent": "delivery"}
_SUCCESSES = frozenset({"sent", "delivered", "read"})
_FAILURES = frozenset({"failed", "expired", "in_doubt"})

Attributes = Mapping[str, str | int]


class Kind(Enum):
    """What a span is to others, by the names of the specification."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


@dataclass(frozen=True)
class Span:
    """A span. ``error``: a code when it failed; empty: it failed without one; None: it did not."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    name: str
    kind: Kind
    began_ns: int
    ended_ns: int
    attributes: Attributes = field(default_factory=dict)
    error: str | None = None


def of_step(step: Step) -> Span | None:
    """Return the span that a transition ends; None: it ends nothing that is told."""
    accepted = _id(step.trace_id, "message", step.message_id)
    told: dict[str, str | int] = {
        "salamander.message.id": step.message_id,
        "salamander.device": step.device,
        "salamander.platform": step.platform,
    }
    times = _times(step.former_at or step.taken_at, step.at)
    if step.former is None:
        return Span(step.trace_id, accepted, step.parent_id, "router accept", Kind.INTERNAL, *times, told)
    if step.former not in _NAMES:
        return None
    told["salamander.outcome"] = step.state
    if step.code and step.code != step.state:
        told["salamander.code"] = step.code
    tried = step.former == "sending"
    if step.attempt is not None:
        told["salamander.attempt"] = step.attempt
    failed = step.state in _FAILURES or (tried and step.state not in _SUCCESSES)
    return Span(
        step.trace_id,
        _id(step.trace_id, "step", step.id),
        accepted,
        _NAMES[step.former],
        Kind.CLIENT if tried else Kind.INTERNAL,
        *times,
        told,
        error=step.code if failed else None,
    )


def of_answered(answered: AnsweredRequest) -> Span:
    """Return the span of an HTTP request that was answered."""
    context, request = answered.context, answered.request
    method, _, route = request.name.partition(" ")
    told: Attributes = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": answered.status,
    }
    return Span(
        context.trace_id,
        context.span_id or b"",
        request.caller_id,
        request.name,
        Kind.SERVER,
        *_times(request.began_at, answered.ended_at),
        told,
        error=str(answered.status) if answered.status >= 500 else None,
    )


def of_unanswered(request: Request) -> Span:
    """Return the span of an HTTP request of which nobody knows any more how it was answered.

    It ends when its message was accepted.
    """
    method, _, route = request.name.partition(" ")
    told = {"http.request.method": method, "http.route": route, "salamander.outcome": "unknown"}
    times = _times(request.began_at, request.recorded_at)
    return Span(request.trace_id, request.span_id, request.parent_id, request.name, Kind.SERVER, *times, told)


def _id(trace_id: bytes, kind: str, number: int) -> bytes:
    return blake2b(trace_id + f"{kind} {number}".encode(), digest_size=8).digest()


def _times(began: datetime, ended: datetime) -> tuple[int, int]:
    """Return both in nanoseconds; the clocks of two machines may put the end before the beginning."""
    return _nanoseconds(began), _nanoseconds(max(began, ended))


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
