"""How the dashboard says no: as a page, with what happened and what to do next; and what every answer carries."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import HTTPException, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from config.errors import NotFound, Refused, SalamanderError
from config.logging import logger
from gateway.problems import TurnedAway, status_of
from storage.text import is_storable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from fastapi import Request

    from gateway.dashboard.desk import Desk

#: Nothing but our own files, no inline scripts or styles, no frames, no forms to elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class NotSignedIn(SalamanderError):
    """Nobody is signed in."""

    code = "not_signed_in"

    def __init__(self) -> None:
        super().__init__("Nobody is signed in.", "Sign in first.")


class Forbidden(Refused):
    """Somebody is signed in but may not do that."""

    code = "forbidden"


def page_route(desk: Desk) -> type[APIRoute]:
    """Return the class of the dashboard's routes: they tell errors as pages, and their answers carry its headers."""

    class PageRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_and_tell(request: Request) -> Response:
                try:
                    _check_query(request)
                    response = await handle(request)
                except NotSignedIn:
                    response = _sign_in_first(request)
                except TurnedAway as error:
                    response = await _tell(desk, request, error.error)
                except SalamanderError as error:
                    response = await _tell(desk, request, error)
                except (RequestValidationError, HTTPException):
                    response = await _tell(desk, request, NotFound("There is no such page.", "Begin at the fleet."))
                except Exception as error:  # noqa: BLE001 - whoever asked is told, and the log knows more
                    logger().error("A page failed unexpectedly", path=request.url.path, exc_info=error)
                    words = SalamanderError("The page could not be made.", "See run.py logs.", code="internal")
                    response = await _tell(desk, request, words)
                for name, value in _HEADERS.items():
                    response.headers[name] = value
                response.headers.setdefault("Cache-Control", "no-store")
                return response

            return handle_and_tell

    return PageRoute


def _check_query(request: Request) -> None:
    """Refuse a query that PostgreSQL cannot be asked with.

    Raises:
        NotFound: there is such text in it.
    """
    if not all(is_storable(value) for value in request.query_params.values()):
        raise NotFound("There is no such page.", "Begin at the fleet.")


def _sign_in_first(request: Request) -> Response:
    target = "/sign-in"
    if request.method == "GET" and "hx-request" not in request.headers and request.url.path != "/":
        query = f"?{request.url.query}" if request.url.query else ""
        target += f"?next={quote(request.url.path + query, safe='/')}"
    if "hx-request" in request.headers:  # a part of a page that is open in a browser whose session ended
        return Response(status_code=HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": "/sign-in"})
    return Response(status_code=HTTPStatus.SEE_OTHER, headers={"Location": target})


async def _tell(desk: Desk, request: Request, error: SalamanderError) -> Response:
    status = HTTPStatus.FORBIDDEN if isinstance(error, Forbidden) else status_of(error)
    if "hx-request" in request.headers:
        return Response(status_code=status)  # the page keeps what it shows, and asks again
    try:
        visitor = await desk.visitor(request)
    except SalamanderError:
        visitor = None
    return await desk.page(request, "error.html", visitor, status, error=error, doubts=0)
