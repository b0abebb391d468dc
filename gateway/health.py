"""/healthz: the process serves. /readyz: it can do its work, or what is missing for that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from config.errors import StorageUnavailable

if TYPE_CHECKING:
    from gateway.context import Context
    from storage.database import Connection

#: How long PostgreSQL may take to answer before it counts as missing, in seconds.
_PATIENCE_SECONDS = 3.0


def router(context: Context) -> APIRouter:
    """Return the addresses that a load balancer or a container asks."""
    routes = APIRouter()
    storage = _Storage(context)

    @routes.get("/healthz", include_in_schema=False)
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        missing = []
        problem = await storage.problem()
        if problem is not None:
            missing.append(problem)
        if not await context.router.answers():
            missing.append("The router does not answer; it is started again by itself.")
        return JSONResponse({"ready": not missing, "missing": missing}, 503 if missing else 200)

    return routes


class _Storage:
    """Whether PostgreSQL answers: asked once for all who want to know, since a frozen one holds a question for long."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._question: asyncio.Task[str | None] | None = None

    async def problem(self) -> str | None:
        """Return what is wrong with PostgreSQL, or None."""
        if self._question is None or self._question.done():
            self._question = asyncio.ensure_future(self._ask())
        question = self._question
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await asyncio.shield(question)
        except TimeoutError:
            return "PostgreSQL does not answer."

    async def _ask(self) -> str | None:
        try:
            await self._context.read(_answers)
        except StorageUnavailable as error:
            return error.sentence
        return None


def _answers(connection: Connection) -> None:
    connection.execute("select 1 from device limit 1")
