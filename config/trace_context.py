"""Where a request or a message belongs in a trace: the W3C trace context (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import random
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Self

#: Version, trace, the caller's span, flags. A later version may say more behind them; ``ff`` is none.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED = 0x01


@dataclass(frozen=True)
class TracedRequest:
    """The HTTP request that brought a message; its span is the one that the context names.

    Attributes:
        name: its method and route, as ``POST /v1/messages``.
        caller_id: the caller's span, when it sent one.
        began_at: when it arrived.
    """

    name: str
    caller_id: bytes | None
    began_at: datetime


@dataclass(frozen=True)
class TraceContext:
    """A place in a trace.

    Attributes:
        trace_id: 16 bytes.
        span_id: 8 bytes, the span that led here; None: the trace begins here.
        sampled: whether the trace is recorded at all.
        request: the HTTP request whose span it is; None: it came another way.
    """

    trace_id: bytes
    span_id: bytes | None = None
    sampled: bool = True
    request: TracedRequest | None = None

    @classmethod
    def begin(cls, share: float) -> Self:
        """Begin a trace; ``share`` of those (0 to 1) are recorded."""
        return cls(secrets.token_bytes(16), sampled=random.random() < share)  # noqa: S311 - nobody gains by guessing

    @classmethod
    def parse(cls, traceparent: str) -> Self | None:
        """Return what a ``traceparent`` says, or None when it cannot be understood; the standard ignores it then."""
        found = _TRACEPARENT.fullmatch(traceparent)
        if found is None:
            return None
        version, trace, span, flags, more = found.groups()
        trace_id, span_id = bytes.fromhex(trace), bytes.fromhex(span)
        if not any(trace_id) or not any(span_id) or (version == "00" and more is not None):
            return None
        return cls(trace_id, span_id, sampled=bool(int(flags, 16) & _SAMPLED))

    def within(self, request: TracedRequest) -> TraceContext:
        """Return the place below an HTTP request that came with this one: a new span of its own."""
        return TraceContext(self.trace_id, secrets.token_bytes(8), self.sampled, request)
