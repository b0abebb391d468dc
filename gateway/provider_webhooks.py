"""Where platforms report delivery. Whoever does not know a secret learns nothing, not even that there is a device."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from config.errors import StorageUnavailable
from gateway.receiving import Receiver, Webhook

#: The largest body taken, in bytes; Meta, whose webhooks tell of many messages at once, sends at most 3 MB.
LONGEST_BODY = 3 * 1024 * 1024
#: How long a body may take to arrive, in seconds.
_BODY_SECONDS = 20.0
#: When a provider shall try again while PostgreSQL is away, in seconds.
_LATER = {"Retry-After": "5"}

_ADDRESS = "/webhooks/{secret}/{device}"


def create_app(receiver: Receiver) -> FastAPI:
    """Return the application that hands webhooks to ``receiver``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)

    @app.post(_ADDRESS)
    async def take(secret: str, device: str, request: Request) -> Response:
        if not receiver.knows(device, secret):
            return _bare(HTTPStatus.NOT_FOUND)
        body = await _body_of(request)
        if isinstance(body, HTTPStatus):
            return _bare(body)
        webhook = Webhook(device, dict(request.headers), body, request.url.query)
        # The body of the answer is empty: Wablas would send any text on to the person.
        return _bare(await run_in_threadpool(receiver.take, webhook))

    @app.get(_ADDRESS)
    async def try_address(secret: str, device: str, request: Request) -> Response:
        if not receiver.knows(device, secret):
            return _bare(HTTPStatus.NOT_FOUND)
        try:
            answer = await run_in_threadpool(receiver.challenge, device, dict(request.query_params))
        except StorageUnavailable:
            return _bare(HTTPStatus.SERVICE_UNAVAILABLE)
        if answer is None:
            return _bare(HTTPStatus.FORBIDDEN)
        return PlainTextResponse(answer, headers={"X-Content-Type-Options": "nosniff"})

    @app.exception_handler(HTTPException)
    async def refuse(_request: Request, error: HTTPException) -> Response:
        return _bare(HTTPStatus(error.status_code))

    return app


def _bare(status: HTTPStatus) -> Response:
    return Response(status_code=status, headers=_LATER if status is HTTPStatus.SERVICE_UNAVAILABLE else None)


async def _body_of(request: Request) -> bytes | HTTPStatus:
    """Return a request's body as it came, or the status that refuses it."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > LONGEST_BODY:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > LONGEST_BODY:
                    return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    except TimeoutError:
        return HTTPStatus.REQUEST_TIMEOUT
    except ClientDisconnect:
        return HTTPStatus.BAD_REQUEST
    return bytes(body)
