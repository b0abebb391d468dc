"""/v1/key: what the key of the request may do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gateway.api.description import problems
from gateway.callers import Reader
from gateway.context import Context

_routes = APIRouter(tags=["key"])


class OwnKey(BaseModel):
    """A key, without its secret."""

    id: str
    scope: str
    devices: list[str] | None = Field(description="The devices it is bound to; null: it sees every device.")


def router(_context: Context) -> APIRouter:
    """Return the address of the key."""
    return _routes


@_routes.get("/key", response_model=OwnKey, responses=problems())
async def show_key(caller: Reader) -> Any:
    """Show what the key of this request may do."""
    devices = None if caller.devices is None else sorted(caller.devices.values())
    return {"id": caller.key_id, "scope": caller.scope, "devices": devices}
