"""The desk between browsers and the gateway: who is there, what they may do, and how pages are made for them."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import Response
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup
from starlette.exceptions import HTTPException

from config.errors import Refused
from gateway.dashboard.errors import Forbidden, NotSignedIn
from gateway.dashboard.rendering import environment
from gateway.problems import TurnedAway
from storage import dashboard, users
from storage.passwords import token_hash
from storage.users import Expiry, User

if TYPE_CHECKING:
    from fastapi import Request
    from starlette.datastructures import FormData

    from gateway.context import Context

#: A session ends after half a day without a look, and after a week in any case, in seconds.
EXPIRY = Expiry(idle_seconds=12 * 3600.0, longest_seconds=7 * 86_400.0)
#: The field that proves that a form is one of ours.
_PROOF = "form_proof"


@dataclass(frozen=True)
class Visitor:
    """Who sent a request, and the session by which that is known."""

    user: User
    token: str


class Desk:
    """What every page needs."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._key = context.home.credentials_key.read_bytes()
        # Cookies know no ports: two installations on one machine must not take each other's away.
        suffix = self._derived("cookie", "")[:8]
        self.session_cookie = f"salamander_session_{suffix}"
        self.form_cookie = f"salamander_form_{suffix}"
        self._pages = environment()

    # --- who is there ------------------------------------------------------------------------------------

    async def visitor(self, request: Request) -> Visitor:
        """Return who is signed in.

        Raises:
            NotSignedIn: nobody is.
        """
        token = request.cookies.get(self.session_cookie, "")
        found = await self.context.read(lambda connection: users.session(connection, token_hash(token), EXPIRY))
        if found is None:
            raise NotSignedIn
        return Visitor(found, token)

    async def operators_form(self, request: Request) -> tuple[Visitor, FormData]:
        """Return an operator and the form it sent.

        Raises:
            NotSignedIn: nobody is signed in.
            Forbidden: it is a viewer, or the form is not one of ours.
        """
        visitor = await self.visitor(request)
        if not visitor.user.is_operator:
            raise Forbidden(
                "Viewers look; they change nothing.",
                "Ask an operator, or for the role: run.py user add NAME --role operator.",
                code="viewer",
            )
        return visitor, await self.form(request, visitor.token)

    async def form(self, request: Request, token: str) -> FormData:
        """Return a form, once it has proved to be one of ours.

        Args:
            request: the request that brings it.
            token: the session's token, or before a sign-in that of the form's cookie.

        Raises:
            Forbidden: it comes from elsewhere, or is older than the session.
            Refused: it cannot be read, or is too large.
        """
        try:
            form = await request.form(max_files=0, max_fields=100)
        except TurnedAway:
            raise
        except HTTPException:
            sentence = "The form cannot be read, or holds too much."
            raise Refused(sentence, "Open the page again and send less.", code="bad_form") from None
        given = form.get(_PROOF)
        site = request.headers.get("sec-fetch-site", "same-origin")
        genuine = isinstance(given, str) and hmac.compare_digest(given.encode(), self.proof(token).encode())
        if not token or not genuine or site not in {"same-origin", "none"}:
            raise Forbidden("This form is no longer good.", "Open the page again and send it once more.", code="form")
        return form

    def proof(self, token: str) -> str:
        """Return what a form carries to prove that it is ours: nobody else can derive it from the cookie."""
        return self._derived("form", token)

    def _derived(self, purpose: str, value: str) -> str:
        text = f"dashboard/{purpose}/{value}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()

    def set_cookie(self, request: Request, response: Response, name: str, value: str, seconds: float) -> None:
        """Set a cookie that scripts cannot read and other sites cannot send; behind https, never without it."""
        forwarded = request.headers.get("x-forwarded-proto", "").split(",")[0].strip()
        response.set_cookie(
            name,
            value,
            max_age=int(seconds),
            httponly=True,
            samesite="strict",
            secure="https" in {forwarded, request.url.scheme},
        )

    # --- pages -------------------------------------------------------------------------------------------

    async def page(
        self, request: Request, template: str, visitor: Visitor | None = None, status: int = 200, **values: Any
    ) -> Response:
        """Return a whole page; for a visitor it has the navigation with the number of doubts."""
        if visitor is not None and "doubts" not in values:
            values["doubts"] = await self.context.read(dashboard.doubt_count)
        return HTMLResponse(self._render(request, template, visitor, values), status)

    def fragment(self, request: Request, template: str, visitor: Visitor, **values: Any) -> Response:
        """Return a part of a page that is asked for again and again, or 204 when the browser has it already.

        The part carries the mark of what it shows, and asks with it (``?seen=``).
        """
        html, mark = self._marked(request, template, visitor, values)
        return Response(status_code=204) if request.query_params.get("seen") == mark else HTMLResponse(html)

    def part(self, request: Request, template: str, visitor: Visitor, **values: Any) -> Markup:
        """Return the same part, to be put into the whole page."""
        return Markup(self._marked(request, template, visitor, values)[0])  # noqa: S704 - a template escaped it

    def _marked(self, request: Request, template: str, visitor: Visitor, values: dict[str, Any]) -> tuple[str, str]:
        html = self._render(request, template, visitor, {**values, "seen": _SEEN})
        mark = hashlib.sha256(html.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return html.replace(_SEEN, mark), mark

    def _render(self, request: Request, template: str, visitor: Visitor | None, values: dict[str, Any]) -> str:
        proof = self.proof(visitor.token) if visitor is not None else None
        return self._pages.get_template(template).render(
            {
                "path": request.url.path,
                "user": visitor.user if visitor is not None else None,
                "proof": proof,
                "simulator": self.context.loopback,
                **values,
            }
        )


#: Stands for a part's mark while the mark is computed. Whoever writes it into a message only fools himself.
_SEEN = "seen-0123456789abcdef"


def go_to(path: str) -> Response:
    """Return the answer to a form that was carried out: look at this page."""
    return RedirectResponse(path, 303)
