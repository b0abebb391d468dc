"""A loopback gateway as the example description of the ``http`` platform describes one."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from actors.platforms.http import EXAMPLE
from simulator.platforms.http import Answer, json_answer
from simulator.platforms.records import Send
from simulator.platforms.stand_in import (
    Callback,
    StandIn,
    Taken,
    is_number,
    is_public_url,
    json_callback,
    json_fields,
    texts_in,
)

if TYPE_CHECKING:
    from simulator.platforms.http import HttpRequest


class HttpGatewayStandIn(StandIn):
    """Sends and the device's state."""

    name = "http"
    base_path = ""
    default_account = MappingProxyType({"description": EXAMPLE, "token": "invented-gateway-token"})

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        account = self.account_with(token=token) if scheme == "Bearer" else None
        if account is None:
            return self.refusal("bad-credential")
        if request.path == "/v1/device" and request.method == "GET":
            return json_answer(200, {"device": "online" if connected else "offline"})
        if request.path not in {"/v1/send", "/v1/send-media"} or request.method != "POST":
            return _failure("no such path", 404)
        fields = json_fields(request)
        is_media = request.path == "/v1/send-media"
        needed = ("to", "url", "type") if is_media else ("to", "text")
        optional = {"ref", "caption"} if is_media else {"ref"}
        if fields is None or set(fields) - {*needed} - optional or not texts_in(fields, *needed):
            return _failure("a field is missing or unknown")
        if not is_number(fields["to"]) or (is_media and not is_public_url(fields["url"])):
            return _failure("to or url is wrong")
        send = Send(
            account,
            fields["to"],
            fields["type"] if is_media else "text",
            str(fields.get("caption" if is_media else "text", "")),
            fields["url"] if is_media else "",
            str(fields.get("ref", "")),
        )
        return Taken((send,), json_answer(200, {"ok": True, "message": {"id": send.id}}))

    def refusal(self, fault: str) -> Answer:
        """Return the gateway's failures."""
        if fault == "bad-credential":
            return _failure("token is wrong", 401)
        return _failure("phone is offline" if fault == "disconnected" else "to is wrong")

    def callback(self, send: Send, stage: str, url: str) -> Callback | None:
        """Return a report."""
        del url
        return json_callback({"id": send.id, "ref": send.reference, "status": stage})


def _failure(error: str, status: int = 200) -> Answer:
    return json_answer(status, {"ok": False, "error": error})


STAND_IN = HttpGatewayStandIn
