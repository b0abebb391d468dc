"""The application that the gateway serves: the API, the dashboard, the metrics and the health checks, in one."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI

from gateway import api, dashboard, health
from gateway.api.uploads import tidy_uploads
from gateway.callers import Authentication
from gateway.guard import Guard
from gateway.metrics import endpoint as metrics
from gateway.metrics.counts import Counting
from gateway.problems import tell_problems
from gateway.tracing.requests import Tracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fastapi import APIRouter

    from gateway.context import Context

#: The parts of the gateway; each gives its addresses.
_PARTS: tuple[Callable[[Context], APIRouter], ...] = (api.router, health.router, dashboard.router, metrics.router)
#: What runs as long as the gateway serves: each is started once and cancelled at the end.
_TASKS: tuple[Callable[[Context], Awaitable[None]], ...] = (
    tidy_uploads,
    dashboard.count_traffic,
    metrics.keep_summing,
)


def create_app(context: Context) -> FastAPI:
    """Return the application."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(task(context)) for task in _TASKS]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(
        title="Salamander",
        version="1",
        summary="Send WhatsApp messages through a fleet of devices, and look after the fleet.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        lifespan=lifespan,
    )
    tell_problems(app, partial(api.allowed_methods, app))
    for part in _PARTS:
        app.include_router(part(context))
    # The last one added is the first to look: what counts, the guard, then who calls, and where it belongs in a trace.
    if context.answered is not None:
        app.add_middleware(Tracing, answered=context.answered, share=context.settings.traces_share)
    app.add_middleware(Authentication, context=context)
    app.add_middleware(Guard, context=context)
    app.add_middleware(Counting, counts=context.counts)
    app.state.context = context
    api.describe(app)
    return app
