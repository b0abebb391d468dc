"""/v1/restarts: what fell, why, what was tried, how long it took."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.api.description import PAGE, AfterId, Limit, OfDevice, Page, page, problems
from gateway.callers import Reader
from gateway.context import Context, Here
from storage import pages

_routes = APIRouter(prefix="/restarts", tags=["restarts"])


class Restart(BaseModel):
    """A restart or refresh."""

    id: int
    at: datetime
    what: str = Field(description="device, shard, router, platform, gateway, fleet, system or postgres.")
    name: str
    cause_code: str
    cause: str
    attempt: int
    tried: str
    outcome: str = Field(description="`ok`, or what went wrong.")
    seconds: float
    request: str = Field(description="The request that asked for it, if one did.")


def router(_context: Context) -> APIRouter:
    """Return the address of restarts."""
    return _routes


@_routes.get("", response_model=Page[Restart], responses=problems())
async def list_restarts(
    here: Here,
    caller: Reader,
    device: OfDevice = None,
    request: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$", description="What came of this request.")] = None,
    after: AfterId = None,
    limit: Limit = PAGE,
) -> Any:
    """List restarts, newest first."""
    rows = await here.read(
        lambda connection: pages.restarts(
            connection,
            before=pages.NEWEST if after is None else after,
            limit=limit + 1,
            device_ids=caller.device_ids,
            device=device,
            request=request,
        )
    )
    return page(rows, limit)
