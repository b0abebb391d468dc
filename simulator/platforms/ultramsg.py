"""A loopback UltraMsg: form-encoded, errors under HTTP 200, messages found by their ``referenceId``."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from simulator.platforms.http import Answer, form_fields, json_answer
from simulator.platforms.records import Send
from simulator.platforms.stand_in import (
    Callback,
    StandIn,
    Taken,
    fresh_number,
    is_number,
    is_public_url,
    json_callback,
)

if TYPE_CHECKING:
    from simulator.platforms.http import HttpRequest

_PATH = re.compile(r"/(?P<instance>[^/]+)/(?P<action>messages|instance/status|messages/(?P<kind>[a-z]+))")
_KINDS = {"chat": "text", "image": "image", "document": "document", "video": "video", "audio": "audio"}
_ACKS = {"sent": "server", "delivered": "device", "read": "read"}


class UltraMsgStandIn(StandIn):
    """Sends, the list of messages, and the instance's status."""

    name = "ultramsg"
    base_path = ""
    default_account = MappingProxyType({"instance_id": "instance1150", "token": "invented-ultramsg-token"})

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""
        path = _PATH.fullmatch(request.path)
        if path is None:
            return _error("Path not found", 404)
        kind = _KINDS.get(path["kind"] or "")
        wanted = "POST" if path["kind"] else "GET"
        if request.method != wanted or (path["kind"] and kind is None):
            return _error("Path not found", 404)
        is_form = request.content_type == "application/x-www-form-urlencoded"
        fields = form_fields(request.body.decode("latin-1") if is_form else request.query)
        if fields is None or (kind and not is_form):
            return _error("Wrong request encoding")
        account = self.account_with(instance_id=path["instance"], token=fields.get("token", ""))
        if account is None:
            return self._wrong_token()
        if kind:
            return _send(account, fields, kind)
        if path["action"] == "messages":
            return self._list(fields)
        state = {"status": "authenticated", "substatus": "connected"} if connected else {"status": "qr"}
        return json_answer(200, {"status": {"accountStatus": state}})

    def refusal(self, fault: str) -> Answer | None:
        """Return UltraMsg's failures. An unlinked instance queues."""
        if fault == "disconnected":
            return None
        return self._wrong_token() if fault == "bad-credential" else _error([{"to": "is not a valid number"}])

    def callback(self, send: Send, stage: str, url: str) -> Callback | None:
        """Return a ``message_ack``."""
        del url
        return json_callback(
            {
                "event_type": "message_ack",
                "instanceId": "1150",
                "id": send.id,
                "referenceId": send.reference,
                "data": {"id": f"true_{send.recipient}@c.us_{send.id}", "ack": _ACKS[stage]},
            }
        )

    def _wrong_token(self) -> Answer:
        return _error("Wrong token. Please provide token as a GET parameter.")

    def _list(self, fields: dict[str, str]) -> Answer:
        sends = self.records.sends(self.name, reference=fields.get("referenceId"))
        rows: list[dict[str, Any]] = [
            {
                "id": int(send.id),
                "referenceId": send.reference,
                "to": f"{send.recipient}@c.us",
                "body": send.text,
                "status": "sent",
                "ack": "device",
            }
            for send in sends
            if fields.get("id", send.id) == send.id
        ]
        return json_answer(200, {"total": len(rows), "pages": 1, "limit": 100, "messages": rows})


def _send(account: str, fields: dict[str, str], kind: str) -> Answer | Taken:
    content = "body" if kind == "text" else kind
    optional = {"priority", "referenceId", "msgId"}
    if kind != "text":
        optional |= {"nocache"} | ({"caption"} if kind != "audio" else set())
    if kind == "document":
        optional.add("filename")
    if set(fields) - optional - {"token", "to", content}:
        return _error([{"field": "is not known"}])
    to = fields.get("to", "")
    if not (to.endswith(("@c.us", "@g.us")) or (to.startswith("+") and is_number(to[1:]))):
        return _error([{"to": "is not a valid number"}])
    text = fields.get("body" if kind == "text" else "caption", "")
    if not fields.get(content) or len(text) > (4096 if kind == "text" else 1024):
        return _error([{content: "is required"}])
    if kind == "document" and not fields.get("filename"):
        return _error([{"filename": "is required"}])
    if kind != "text" and not is_public_url(fields[content]):
        return _error([{content: "is not a valid url"}])
    send = Send(
        account,
        to.removeprefix("+").removesuffix("@c.us"),
        kind,
        text,
        "" if kind == "text" else fields[content],
        fields.get("referenceId", ""),
        id=fresh_number(),
    )
    return Taken((send,), json_answer(200, {"sent": "true", "message": "ok", "id": int(send.id)}))


def _error(error: Any, status: int = 200) -> Answer:
    return json_answer(status, {"error": error})


STAND_IN = UltraMsgStandIn
