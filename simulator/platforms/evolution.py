"""A loopback Evolution API: JSON under the instance's key; its webhooks carry that key, as the real ones do."""

from __future__ import annotations

import uuid
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

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

_TEXT = {"number", "text", "delay", "linkPreview", "quoted", "mentioned", "mentionsEveryOne"}
_MEDIA = {"number", "mediatype", "mimetype", "caption", "fileName", "media", "delay", "quoted", "mentioned"}
_STATES = {"sent": "SERVER_ACK", "delivered": "DELIVERY_ACK", "read": "READ"}


class EvolutionStandIn(StandIn):
    """Sends and the instance's connection."""

    name = "evolution"
    base_path = ""
    default_account = MappingProxyType({"api_key": "invented-evolution-key", "instance": "fleet"})

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""
        action, _, name = request.path.rpartition("/")
        instance = unquote(name)
        if self.account_with(instance=instance) is None:
            return _error(404, "Not Found", [f'The "{instance}" instance does not exist'])
        account = self.account_with(instance=instance, api_key=request.headers.get("apikey", ""))
        if account is None:
            return self.refusal("bad-credential")
        if action == "/instance/connectionState" and request.method == "GET":
            state = "open" if connected else "close"
            return json_answer(200, {"instance": {"instanceName": instance, "state": state}})
        if action in {"/message/sendText", "/message/sendMedia"} and request.method == "POST":
            return self._send(request, account, is_media=action.endswith("Media"))
        return _error(404, "Not Found", [f"Cannot {request.method} {action}"])

    def refusal(self, fault: str) -> Answer:
        """Return Evolution's failures."""
        if fault == "bad-credential":
            return _error(401, "Unauthorized", "Unauthorized")
        if fault == "disconnected":
            return _error(400, "Bad Request", ["Error: Connection Closed"])
        unknown = {"jid": "6281234567890@s.whatsapp.net", "exists": False, "number": "6281234567890"}
        return _error(400, "Bad Request", [unknown])

    def callback(self, send: Send, stage: str, url: str) -> Callback | None:
        """Return a ``messages.update`` event."""
        del url
        credentials = self.credentials_of(send)
        data = {"keyId": send.id, "fromMe": True, "status": _STATES[stage], "messageId": "row-1"}
        return json_callback(
            {
                "event": "messages.update",
                "instance": credentials.get("instance"),
                "data": data,
                "apikey": credentials.get("api_key"),
            }
        )

    def _send(self, request: HttpRequest, account: str, *, is_media: bool) -> Answer | Taken:
        fields = json_fields(request)
        if fields is None or set(fields) - (_MEDIA if is_media else _TEXT):
            return _error(400, "Bad Request", [["instance is not allowed to have the additional property"]])
        if not texts_in(fields, "number", *(("mediatype", "media") if is_media else ("text",))):
            return _error(400, "Bad Request", [["instance requires property"]])
        number = fields["number"]
        if not (is_number(number) or number.endswith("@g.us")):
            return self.refusal("failure-body")
        kind = fields["mediatype"] if is_media else "text"
        if is_media and (kind not in {"image", "document", "video", "audio"} or not is_public_url(fields["media"])):
            return _error(400, "Bad Request", ["Owned media must be a url or base64"])
        text = str(fields.get("caption" if is_media else "text", ""))
        identity = uuid.uuid4().hex.upper()
        send = Send(account, number, kind, text, fields["media"] if is_media else "", id=identity)
        reply = {
            "key": {"remoteJid": f"{number}@s.whatsapp.net", "fromMe": True, "id": send.id},
            "status": "PENDING",
            "message": {},
            "messageType": "conversation",
            "messageTimestamp": 1,
            "instanceId": "i-1",
        }
        return Taken((send,), json_answer(201, reply))


def _error(status: int, error: str, message: Any) -> Answer:
    return json_answer(status, {"status": status, "error": error, "response": {"message": message}})


STAND_IN = EvolutionStandIn
