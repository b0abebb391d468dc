"""What this process counts: requests by route and status, and attempts at webhooks.

A route is a pattern, never an address: addresses are endless.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from storage.endpoint_deliveries import Tried

#: What nothing answers to, and methods that nobody uses.
_UNKNOWN = "unknown"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BOUNDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Counts:
    """Counts of one gateway's process: they begin at nothing when it does, which Prometheus bears."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answered = Counter(
            "salamander_gateway_requests",
            "Requests that the gateway answered, by route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "salamander_gateway_request_seconds",
            "How long the gateway took to begin its answer.",
            ("method", "route"),
            buckets=_BOUNDS,
            registry=self.registry,
        )

        self._attempts = Counter(
            "salamander_webhook_attempts",
            "Attempts to deliver webhooks, by endpoint and outcome (delivered, pending: it is tried again, dead).",
            ("endpoint", "outcome"),
            registry=self.registry,
        )

    def attempted(self, tried: Tried) -> None:
        """Count one attempt at a webhook."""
        self._attempts.labels(str(tried.delivery.endpoint_id), tried.state).inc()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._answered.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


class Counting:
    """ASGI middleware, around everything else: what it turns away is counted, too."""

    def __init__(self, app: ASGIApp, *, counts: Counts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status, seconds = 500, 0.0

        async def noted(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.monotonic() - began
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else _UNKNOWN
            route = getattr(scope.get("route"), "path", _UNKNOWN)
            self._counts.answered(method, route, status, seconds or time.monotonic() - began)
