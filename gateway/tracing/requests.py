"""The HTTP requests that send messages: where each belongs in a trace, and how it was answered."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from config.trace_context import TraceContext, TracedRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: The requests that are traced.
_TRACED = frozenset({"/v1/messages", "/v1/messages/batch"})
#: Answers that are kept until they are exported, at most; of older ones only what the database knows is told.
_KEPT = 10_000

#: Where the request that is being carried out belongs; None: nobody asked.
current: ContextVar[TraceContext | None] = ContextVar("trace", default=None)


@dataclass(frozen=True)
class AnsweredRequest:
    """A traced request, how it was answered, and when."""

    context: TraceContext
    request: TracedRequest
    status: int
    ended_at: datetime


class AnsweredRequests:
    """Requests that were answered and are not exported yet: from the servers' thread to the exporter's.

    Make it before requests are taken: of those that came ``since`` then, this process knows the answers.
    """

    def __init__(self) -> None:
        self.since = datetime.now(UTC)
        self._kept: deque[AnsweredRequest] = deque(maxlen=_KEPT)

    def add(self, answered: AnsweredRequest) -> None:
        """Keep one; when there are too many, the oldest goes."""
        self._kept.append(answered)

    def take(self) -> list[AnsweredRequest]:
        """Return all of them, and keep them no more."""
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._kept.popleft())
        return taken

    def put_back(self, taken: Sequence[AnsweredRequest]) -> None:
        """Keep them again: they could not be exported."""
        for each in reversed(taken):
            if len(self._kept) < _KEPT:
                self._kept.appendleft(each)


class Tracing:
    """ASGI middleware behind the check of keys: strangers begin no traces.

    Args:
        app: what comes next.
        answered: takes what was traced.
        share: how many of the traces that begin here are recorded, from 0 to 1.
    """

    def __init__(self, app: ASGIApp, *, answered: AnsweredRequests, share: float) -> None:
        self._app = app
        self._answered = answered
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, with its place in a trace."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in _TRACED:
            await self._app(scope, receive, send)
            return
        caller = _caller_of(scope) or TraceContext.begin(self._share)
        request = TracedRequest(f"POST {scope['path']}", caller.span_id, datetime.now(UTC))
        context = caller.within(request)
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        token = current.set(context)
        try:
            await self._app(scope, receive, noted)
        finally:
            current.reset(token)
            if context.sampled:
                self._answered.add(AnsweredRequest(context, request, status, datetime.now(UTC)))


def _caller_of(scope: Scope) -> TraceContext | None:
    """Return where the caller is in a trace, when it says so: once, and in the standard's form."""
    said = [value for name, value in scope["headers"] if name == b"traceparent"]
    return TraceContext.parse(said[0].decode("latin-1").strip()) if len(said) == 1 else None
