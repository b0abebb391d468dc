"""How the gateway says no: application/problem+json (RFC 9457) with a stable code and the next step."""

from __future__ import annotations

import json
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as AnyHttpException

from config.errors import DaemonNotRunning, NoAnswer, NotFound, Refused, SalamanderError, StorageUnavailable
from config.logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastapi import FastAPI

MEDIA_TYPE = "application/problem+json"
#: When to try again while PostgreSQL or the router is away, in seconds.
_LATER_SECONDS = 5

_BY_CODE: Mapping[str, HTTPStatus] = MappingProxyType(
    {
        "unknown_device": HTTPStatus.NOT_FOUND,
        "unknown_message": HTTPStatus.NOT_FOUND,
        "unknown_platform": HTTPStatus.NOT_FOUND,
        "unknown_endpoint": HTTPStatus.NOT_FOUND,
        "unknown_delivery": HTTPStatus.NOT_FOUND,
        "not_found": HTTPStatus.NOT_FOUND,
        "no_key": HTTPStatus.UNAUTHORIZED,
        "scope_missing": HTTPStatus.FORBIDDEN,
        "bound_key": HTTPStatus.FORBIDDEN,
        "too_many_requests": HTTPStatus.TOO_MANY_REQUESTS,
        "batch_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "no_room": HTTPStatus.INSUFFICIENT_STORAGE,
        "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body_too_slow": HTTPStatus.REQUEST_TIMEOUT,
        "host_unknown": HTTPStatus.MISDIRECTED_REQUEST,
        "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
        **dict.fromkeys(
            (
                "already_linked",
                "endpoint_off",
                "not_over",
                "too_many_endpoints",
                "not_online",
                "key_conflict",
                "name_taken",
                "needs_pairing",
                "not_in_doubt",
                "not_queued",
                "paused",
                "platform_device",
            ),
            HTTPStatus.CONFLICT,
        ),
    }
)
_BY_KIND: Mapping[type[SalamanderError], HTTPStatus] = MappingProxyType(
    {
        NotFound: HTTPStatus.NOT_FOUND,
        Refused: HTTPStatus.UNPROCESSABLE_ENTITY,
        StorageUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        DaemonNotRunning: HTTPStatus.SERVICE_UNAVAILABLE,
        NoAnswer: HTTPStatus.GATEWAY_TIMEOUT,
    }
)


class TurnedAway(HTTPException):
    """An error of ours as an exception that FastAPI lets through while it reads a body."""

    def __init__(self, error: SalamanderError) -> None:
        super().__init__(status_of(error), error.sentence)
        self.error = error


def status_of(error: SalamanderError) -> HTTPStatus:
    """Return the status an error is answered with."""
    kinds = (status for kind, status in _BY_KIND.items() if isinstance(error, kind))
    return _BY_CODE.get(error.code) or next(kinds, HTTPStatus.INTERNAL_SERVER_ERROR)


def problem(
    status: HTTPStatus,
    code: str,
    detail: str,
    next_step: str = "",
    *,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem as the answer to a request.

    Args:
        status: the HTTP status.
        code: a stable machine name.
        detail: what happened, in a sentence.
        next_step: what the caller can do about it.
        errors: for a request that is not as it must be: each field with what is wrong with it.
        headers: more headers of the answer.
    """
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "code": code,
        "detail": detail,
        "next_step": next_step,
    }
    if errors:
        body["errors"] = list(errors)
    more = dict(headers or {})
    if status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}:
        more.setdefault("Retry-After", str(_LATER_SECONDS))
    return Response(json.dumps(body), status, more, MEDIA_TYPE)


def problem_of(error: SalamanderError, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error of ours as the answer to a request."""
    return problem(status_of(error), error.code, error.sentence, error.next_step, headers=headers)


def tell_problems(app: FastAPI, allowed_methods: Callable[[str], str]) -> None:
    """Let every failure of ``app`` be told as a problem: ours, FastAPI's, and unexpected ones.

    ``allowed_methods`` gives the methods that an address takes.
    """

    @app.exception_handler(SalamanderError)
    async def expected(_request: Request, error: SalamanderError) -> Response:
        return problem_of(error, headers=getattr(error, "headers", None))

    @app.exception_handler(RequestValidationError)
    async def not_valid(_request: Request, error: RequestValidationError) -> Response:
        errors = [
            {"field": ".".join(str(part) for part in each["loc"]), "problem": str(each["msg"])}
            for each in error.errors()
        ]
        first = errors[0] if errors else {"field": "request", "problem": "It cannot be read."}
        return problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "invalid_request",
            f"{first['field']}: {first['problem']}",
            "See /openapi.json for what the request must be.",
            errors=errors,
        )

    @app.exception_handler(AnyHttpException)
    async def of_http(request: Request, error: AnyHttpException) -> Response:
        if isinstance(error, TurnedAway):
            return problem_of(error.error, headers={"Connection": "close"})
        status = HTTPStatus(error.status_code)
        headers = dict(error.headers or {})
        if status is HTTPStatus.METHOD_NOT_ALLOWED and (methods := allowed_methods(request.url.path)):
            headers["Allow"] = methods
        return problem(status, status.name.lower(), status.description or status.phrase, headers=headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        # Its words may quote the request; the traceback does not.
        logger().error("A request failed unexpectedly", method=request.method, path=request.url.path, exc_info=error)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The gateway failed at this request.", "See run.py logs."
        )
