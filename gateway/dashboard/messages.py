"""Messages: the list, those in doubt with their two answers, one message's story, and a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import Request, Response

from actors.messages import CancelMessage, ResolveMessage
from config.errors import NotFound, Refused, SalamanderError
from gateway.dashboard.compose import message_of, new_form_key
from gateway.dashboard.desk import Desk, Visitor, go_to
from gateway.dashboard.states import MESSAGE_STATES
from gateway.problems import status_of
from storage import dashboard, devices, outbox
from storage.dashboard import MessageFilter
from storage.outbox import FINAL_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import APIRouter

    from storage.database import Connection

_PAGE = 50
#: Ids are 64 bits wide; what is larger is nobody's.
_LARGEST_ID = 2**63 - 1


def add_routes(routes: APIRouter, desk: Desk) -> None:
    """Add the addresses of messages."""
    context = desk.context

    # --- lists -------------------------------------------------------------------------------------------

    @routes.get("/messages")
    async def message_list(request: Request) -> Response:
        visitor = await desk.visitor(request)
        query = request.query_params
        asked = {
            "device": query.get("device", "").strip(),
            "state": query.get("state", ""),
            "to": query.get("to", "").strip(),
        }
        before = _number(query.get("before"))

        def look(connection: Connection) -> dashboard.MessagePage:
            device_id = devices.by_name(connection, asked["device"]).id if asked["device"] else None
            state = asked["state"] if asked["state"] in MESSAGE_STATES else None
            recipient = _recipient(asked["to"])
            wanted = MessageFilter(device_id, state, recipient)
            return dashboard.message_page(connection, wanted, before=before, limit=_PAGE)

        problem = None
        try:
            page = await context.read(look)
        except NotFound as error:
            page, problem = dashboard.MessagePage([], None), error
        kept = {name: value for name, value in asked.items() if value}
        older = f"/messages?{urlencode({**kept, 'before': page.before})}" if page.before is not None else None
        return await desk.page(
            request, "messages/list.html", visitor, page=page, asked=asked, older=older, before=before, problem=problem
        )

    @routes.get("/messages/in-doubt")
    async def doubts(request: Request) -> Response:
        visitor = await desk.visitor(request)
        after = _number(request.query_params.get("after")) or 0
        rows = await context.read(lambda connection: dashboard.doubts(connection, after=after, limit=_PAGE + 1))
        return await desk.page(
            request, "messages/doubts.html", visitor, rows=rows[:_PAGE], more=len(rows) > _PAGE, after=after
        )

    # --- a new one ---------------------------------------------------------------------------------------

    async def show_form(request: Request, visitor: Visitor, status: int = 200, **values: Any) -> Response:
        given = {"device": "", "to": "", "text": "", "media": "", "kind": "", "error": None, "key": new_form_key()}
        return await desk.page(request, "messages/new.html", visitor, status, **{**given, **values})

    @routes.get("/messages/new")
    async def new_message(request: Request) -> Response:
        visitor = await desk.visitor(request)
        query = request.query_params
        return await show_form(request, visitor, device=query.get("device", ""), to=query.get("to", ""))

    @routes.post("/messages/new")
    async def send(request: Request) -> Response:
        visitor, form = await desk.operators_form(request)
        message = message_of(form)
        try:
            accepted = await context.router.send(message)
        except SalamanderError as error:
            typed = {
                "device": message.device,
                "to": message.to,
                "text": message.text,
                "media": message.media.url if message.media else "",
                "kind": message.media.kind if message.media else "",
            }
            # After a refusal the corrected form is another message; when nobody can tell, it must stay the same one.
            key = new_form_key() if isinstance(error, Refused) else message.idempotency_key
            return await show_form(request, visitor, status_of(error), **typed, key=key, error=error)
        return go_to(f"/messages/{accepted.id}")

    # --- one message -------------------------------------------------------------------------------------

    async def found(message_id: str) -> Mapping[str, Any]:
        number = _number(message_id)
        row = None
        if number is not None:
            row = await context.read(lambda connection: outbox.message(connection, number))
        if row is None:
            raise NotFound("There is no such message.", "See the list of messages.", code="unknown_message")
        return row

    def values_of(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"message": row, "final": row["state"] in FINAL_STATES - {"sent", "delivered"}}

    @routes.get("/messages/{message_id}")
    async def message_page(request: Request, message_id: str) -> Response:
        visitor = await desk.visitor(request)
        values = values_of(await found(message_id))
        live = desk.part(request, "messages/live.html", visitor, **values)
        return await desk.page(request, "messages/page.html", visitor, live=live, **values)

    @routes.get("/messages/{message_id}/live")
    async def message_live(request: Request, message_id: str) -> Response:
        visitor = await desk.visitor(request)
        return desk.fragment(request, "messages/live.html", visitor, **values_of(await found(message_id)))

    @routes.post("/messages/{message_id}/cancel")
    async def cancel(request: Request, message_id: str) -> Response:
        await desk.operators_form(request)
        number = (await found(message_id))["id"]
        await context.router.request(CancelMessage(number))
        return go_to(f"/messages/{number}")

    @routes.post("/messages/{message_id}/resolve")
    async def resolve(request: Request, message_id: str) -> Response:
        _, form = await desk.operators_form(request)
        number = (await found(message_id))["id"]
        answer = form.get("answer")
        if answer not in {"sent", "resend"}:
            raise Refused("Say whether it arrived.", "Choose one of the two answers.", code="no_answer_given")
        if answer == "resend" and form.get("asked") != "yes":
            raise Refused(
                "A message in doubt is sent again only once you made sure that it did not arrive.",
                "Ask the recipient, and say so in the form.",
                code="not_asked",
            )
        await context.router.request(ResolveMessage(number, sent=answer == "sent"))
        return go_to("/messages/in-doubt" if form.get("back") == "list" else f"/messages/{number}")


def _number(text: str | None) -> int | None:
    """Return an id that somebody typed, or None."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    return min(int(text), _LARGEST_ID)


def _recipient(text: str) -> str | None:
    """Return a recipient as it is stored: digits, or a group's address."""
    if not text:
        return None
    return text if "@" in text else "".join(character for character in text if character.isdigit()) or text
