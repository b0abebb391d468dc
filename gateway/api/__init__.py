"""The HTTP API under /v1: one module for each kind of thing, each with ``router(context)``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi

from gateway.api import devices, events, key, messages, pairing, platforms, recipients, restarts, uploads, webhooks
from gateway.api.description import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from gateway.context import Context

#: The parts of the API; each gives its addresses below /v1. Of two that fit an address, the first one takes it.
_PARTS: tuple[Callable[[Context], APIRouter], ...] = (
    messages.router,  # first, as it is asked most
    key.router,
    uploads.router,
    pairing.router,
    devices.router,
    recipients.router,
    events.router,
    restarts.router,
    platforms.router,
    webhooks.router,
)
_ABOUT = """\
Send WhatsApp messages through a fleet of devices, and look after the fleet.

Every request needs a key (`run.py key create --scope send`): `Authorization: Bearer KEY`. Errors are
`application/problem+json` with a stable `code` and the next step. Lists are read page by page: give `next` as `after`.
"""


def router(context: Context) -> APIRouter:
    """Return every address of the API, below /v1."""
    routes = APIRouter(prefix="/v1")
    for part in _PARTS:
        routes.include_router(part(context))
    return routes


def describe(app: FastAPI) -> None:
    """Let ``app`` describe the API (OpenAPI) with its keys and problems."""

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            told = get_openapi(title="Salamander", version="1", description=_ABOUT, routes=app.routes)
            parts = told.setdefault("components", {})
            schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            parts.setdefault("schemas", {}).update({**schema.pop("$defs", {}), "Problem": schema})
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            told["security"] = [{"key": []}]
            app.openapi_schema = told
        return app.openapi_schema

    app.openapi = description  # type: ignore[method-assign]  # FastAPI's own way to change it


def allowed_methods(app: FastAPI, path: str) -> str:
    """Return the methods that an address takes, as the header ``Allow`` names them; empty: the API has no such address.

    (Starlette names those of one route alone.)
    """
    fitting = [
        (template.count("{"), operations)
        for template, operations in app.openapi()["paths"].items()
        if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), path)
    ]
    if not fitting:
        return ""
    closest = min(variables for variables, _ in fitting)
    methods = {method.upper() for variables, operations in fitting if variables == closest for method in operations}
    return ", ".join(sorted(methods))
