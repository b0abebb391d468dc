"""/healthz: the process serves. /readyz: it can do its work, or what is missing for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from config.errors import StorageUnavailable

if TYPE_CHECKING:
    from gateway.context import Context
    from storage.database import Connection


def router(context: Context) -> APIRouter:
    """Return the addresses that a load balancer or a container asks."""
    routes = APIRouter()

    @routes.get("/healthz", include_in_schema=False)
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        missing = []
        try:
            await context.read(_answers)
        except StorageUnavailable as error:
            missing.append(error.sentence)
        if not await context.router.answers():
            missing.append("The router does not answer; it is started again by itself.")
        return JSONResponse({"ready": not missing, "missing": missing}, 503 if missing else 200)

    return routes


def _answers(connection: Connection) -> None:
    connection.execute("select 1 from device limit 1")
