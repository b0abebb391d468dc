"""A loopback WAHA: JSON under an API key, errors in its framework's shape, 500s that repeat the request."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from dataclasses import replace
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

_KINDS = {
    "/api/sendText": "text",
    "/api/sendImage": "image",
    "/api/sendFile": "document",
    "/api/sendVideo": "video",
    "/api/sendVoice": "audio",
}
_ACKS = {"sent": (1, "SERVER"), "delivered": (2, "DEVICE"), "read": (3, "READ")}
_MESSAGE = re.compile(r"/api/(?P<session>[^/]+)/chats/(?P<chat>[^/]+)/messages/(?P<id>[^/]+)")


class WahaStandIn(StandIn):
    """Sends, one message of a chat, and the session."""

    name = "waha"
    base_path = ""
    default_account = MappingProxyType(
        {"api_key": "invented-waha-key", "session": "default", "webhook_key": "invented-webhook-key"}
    )

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""
        key = request.headers.get("x-api-key", "")
        if self.account_with(api_key=key) is None:
            return _error(401, "Unauthorized")
        kind = _KINDS.get(request.path)
        if kind is not None and request.method == "POST":
            return self._send(request, kind, key)
        if request.method == "GET" and request.path.startswith("/api/sessions/"):
            session = unquote(request.path.rpartition("/")[2])
            if self._account(key, session) is None:
                return _error(404, "Session not found")
            return json_answer(200, {"name": session, "status": "WORKING" if connected else "SCAN_QR_CODE"})
        path = _MESSAGE.fullmatch(request.path)
        send = self.send_with_id(unquote(path["id"])) if path and request.method == "GET" else None
        if path and send is not None and unquote(path["chat"]) == _chat_id(send.recipient):
            return json_answer(200, {"id": send.id, "fromMe": True, "ack": 2, "ackName": "DEVICE"})
        return _error(404, "Not Found")

    def refusal(self, fault: str) -> Answer:
        """Return WAHA's failures."""
        if fault == "bad-credential":
            return _error(401, "Unauthorized")
        if fault == "disconnected":
            return json_answer(
                422,
                {
                    "error": "Session status is not as expected. Try again later or restart the session",
                    "session": "default",
                    "status": "SCAN_QR_CODE",
                    "expected": ["WORKING"],
                },
            )
        return _error(422, "The feature is available only in Plus version for 'NOWEB' engine.")

    def callback(self, send: Send, stage: str, url: str) -> Callback | None:
        """Return a ``message.ack`` event, signed where the account has a key for it."""
        del url
        credentials = self.credentials_of(send)
        ack, name = _ACKS[stage]
        payload = {"id": send.id, "from": "620000000004@c.us", "fromMe": True, "ack": ack, "ackName": name}
        event = {"event": "message.ack", "session": credentials.get("session", "default"), "payload": payload}
        callback = json_callback({**event, "engine": "NOWEB"})
        key = credentials.get("webhook_key", "")
        if not key:
            return callback
        signature = hmac.new(key.encode(), callback.body, hashlib.sha512).hexdigest()
        return replace(callback, headers={"X-Webhook-Hmac": signature, "X-Webhook-Hmac-Algorithm": "sha512"})

    def _account(self, key: str, session: object) -> str | None:
        """Return the account with this key whose session this is; one that names none has "default"."""
        for label, known in self.records.accounts(self.name).items():
            if known["api_key"] == key and known.get("session", "default") == session:
                return label
        return None

    def _send(self, request: HttpRequest, kind: str, key: str) -> Answer | Taken:
        fields = json_fields(request)
        if fields is None:
            return _error(400, "Unexpected token in JSON")
        session = fields.get("session", "default")
        account = self._account(key, session)
        if account is None:
            return _error(404, "Session not found")
        content = {"text", "linkPreview"} if kind == "text" else {"file"} | ({"caption"} if kind != "audio" else set())
        if set(fields) - {"session", "chatId", "reply_to"} - content or not texts_in(fields, "chatId"):
            return _error(400, "property should not exist")
        number, _, server = fields["chatId"].partition("@")
        if not (server == "g.us" or (server == "c.us" and is_number(number))):
            return _error(400, "chatId must be a chat id")
        text = fields.get("text" if kind == "text" else "caption", "")
        if (kind == "text" and not texts_in(fields, "text")) or (kind != "text" and not _is_file(fields.get("file"))):
            return _error(400, "text or file is missing")
        recipient = number if server == "c.us" else fields["chatId"]
        send = Send(
            account,
            recipient,
            kind,
            str(text),
            "" if kind == "text" else fields["file"]["url"],
            id=f"true_{fields['chatId']}_{uuid.uuid4().hex.upper()}",
        )
        return Taken((send,), json_answer(201, {"id": send.id, "fromMe": True, "ack": 0, "body": send.text}))


def _chat_id(recipient: str) -> str:
    return recipient if "@" in recipient else f"{recipient}@c.us"


def _is_file(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) - {"mimetype", "filename", "url", "data"}:
        return False
    return texts_in(value, "mimetype", "url") and "/" in value["mimetype"] and is_public_url(value["url"])


def _error(status: int, message: str) -> Answer:
    return json_answer(status, {"message": message, "statusCode": status})


STAND_IN = WahaStandIn
