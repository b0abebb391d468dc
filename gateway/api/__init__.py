"""The HTTP API under /v1: one module for each kind of thing, each with ``router(context)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.context import Context

#: The parts of the API; each gives its addresses below /v1.
_PARTS: tuple[Callable[[Context], APIRouter], ...] = ()


def router(context: Context) -> APIRouter:
    """Return every address of the API, below /v1."""
    routes = APIRouter(prefix="/v1")
    for part in _PARTS:
        routes.include_router(part(context))
    return routes
