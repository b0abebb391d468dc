"""What the loopback doors to Meta's Cloud API share: messages in, errors and status webhooks out."""

from __future__ import annotations

import secrets
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from simulator.platforms.http import Answer, json_answer
from simulator.platforms.rates import Rates
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
    from collections.abc import Mapping

    from simulator.platforms.http import HttpRequest
    from simulator.platforms.records import Records

_COMMON = {"messaging_product", "recipient_type", "to", "type", "biz_opaque_callback_data", "context"}
_CONTENT = {
    "text": {"body", "preview_url"},
    "image": {"id", "link", "caption"},
    "video": {"id", "link", "caption"},
    "audio": {"id", "link"},
    "document": {"id", "link", "caption", "filename"},
    "template": {"name", "language", "components"},
}


class CloudApiStandIn(StandIn):
    """Takes messages as the Cloud API documents them."""

    def __init__(self, records: Records) -> None:
        super().__init__(records)
        self.rates = Rates(per_second=80.0, seconds_per_recipient=6.0, recipient_burst=45)

    @abstractmethod
    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""

    def refusal(self, fault: str) -> Answer | None:
        """Return Meta's failures. There is no phone that could be unlinked."""
        if fault == "disconnected":
            return None
        if fault == "bad-credential":
            return error_answer(401, 190, "Invalid OAuth access token")
        return error_answer(400, 131026, "Message undeliverable")

    def throttle(self) -> Answer:
        """Return Meta's throttle, which comes under HTTP 400 and names no wait."""
        return error_answer(400, 130429, "(#130429) Rate limit hit")

    def throttle_of_recipient(self) -> Answer:
        """Return Meta's throttle of a pair of sender and recipient."""
        return error_answer(400, 131056, "(#131056) Too many messages to this recipient")

    def callback(self, send: Send, stage: str, url: str) -> Callback | None:
        """Return a status webhook."""
        del url
        status = {
            "id": send.id,
            "status": stage,
            "timestamp": "1700000000",
            "recipient_id": send.recipient,
            "biz_opaque_callback_data": send.reference,
        }
        value = {"messaging_product": "whatsapp", "metadata": {}, "statuses": [status]}
        entry = {"id": "1", "changes": [{"field": "messages", "value": value}]}
        return self.signed(json_callback({"object": "whatsapp_business_account", "entry": [entry]}), send)

    def signed(self, callback: Callback, send: Send) -> Callback:
        """Return the webhook as this door signs it."""
        del send
        return callback

    def take(self, request: HttpRequest, account: str) -> Answer | Taken:
        """Return the send, or the error that its body deserves."""
        if request.method != "POST":
            return error_answer(400, 100, "Unsupported method")
        fields = json_fields(request)
        if fields is None:
            return error_answer(400, 100, "Invalid JSON")
        kind = fields.get("type", "text")
        content = fields.get(kind) if isinstance(kind, str) else None
        if not isinstance(content, dict) or kind not in _CONTENT or set(fields) - _COMMON - {kind}:
            return error_answer(400, 131009, "Parameter value is not valid")
        to, reference = fields.get("to", ""), fields.get("biz_opaque_callback_data", "")
        if fields.get("messaging_product") != "whatsapp" or fields.get("recipient_type", "individual") != "individual":
            return error_answer(400, 100, "Invalid parameter: messaging_product")
        if not isinstance(to, str) or not is_number(to):
            return error_answer(400, 131009, "Parameter value is not valid: to")
        if not isinstance(reference, str) or len(reference.encode()) > 512:
            return error_answer(400, 100, "Invalid parameter: biz_opaque_callback_data")
        if not _is_valid(kind, content):
            return error_answer(400, 100, f"Invalid parameter: {kind}")
        text = str(content.get("body") or content.get("caption") or content.get("name") or "")
        send = Send(
            account, to, kind, text, str(content.get("link", "")), reference, id=f"wamid.{secrets.token_urlsafe(24)}"
        )
        reply = {
            "messaging_product": "whatsapp",
            "contacts": [{"input": to, "wa_id": to}],
            "messages": [{"id": send.id, "message_status": "accepted"}],
        }
        return Taken((send,), json_answer(200, reply))


def _is_valid(kind: str, content: Mapping[str, Any]) -> bool:
    if set(content) - _CONTENT[kind]:
        return False
    if kind == "text":
        return texts_in(content, "body") and len(content["body"]) <= 4096
    if kind == "template":
        language = content.get("language")
        return texts_in(content, "name") and isinstance(language, dict) and texts_in(language, "code")
    if ("id" in content) == ("link" in content) or not texts_in(content, "id" if "id" in content else "link"):
        return False
    caption = content.get("caption", "")
    return isinstance(caption, str) and len(caption) <= 1024 and ("id" in content or is_public_url(content["link"]))


def error_answer(status: int, code: int, message: str) -> Answer:
    """Return an error in Meta's shape."""
    error = {
        "message": message,
        "type": "OAuthException",
        "code": code,
        "error_data": {"messaging_product": "whatsapp", "details": message},
        "fbtrace_id": "A1",
    }
    return json_answer(status, {"error": error})
