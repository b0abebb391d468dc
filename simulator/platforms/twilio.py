"""A loopback Twilio: its Messages resource, form-encoded under basic authentication."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import uuid
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from simulator.platforms.http import Answer, form_fields, json_answer
from simulator.platforms.records import Send
from simulator.platforms.stand_in import Callback, StandIn, Taken, is_number, is_public_url

if TYPE_CHECKING:
    from simulator.platforms.http import HttpRequest

_ACCOUNT = re.compile(r"/2010-04-01/Accounts/(?P<sid>[^/]+?)(?P<rest>/Messages(/(?P<message>[^/]+))?)?\.json")
_FIELDS = {
    "To",
    "From",
    "MessagingServiceSid",
    "Body",
    "MediaUrl",
    "ContentSid",
    "ContentVariables",
    "StatusCallback",
}
_PREFIX = "whatsapp:+"


class TwilioStandIn(StandIn):
    """Sends, a message by its SID, and the account."""

    name = "twilio"
    base_path = ""
    default_account = MappingProxyType(
        {"account_sid": "ACinvented", "auth_token": "invented-twilio-token", "sender": "+14155238886"}
    )

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""
        del connected
        path = _ACCOUNT.fullmatch(request.path)
        if path is None:
            return _error(404, 20404, "The requested resource was not found")
        account = self._account(request, path["sid"])
        if account is None:
            return _error(401, 20003, "Authenticate")
        if path["rest"] is None and request.method == "GET":
            return json_answer(200, {"sid": path["sid"], "status": "active", "type": "Full"})
        if path["message"] and request.method == "GET":
            send = self.send_with_id(path["message"])
            if send is None:
                return _error(404, 20404, "The requested resource was not found")
            return json_answer(200, {"sid": send.id, "status": "delivered", "error_code": None, "error_message": None})
        if path["rest"] == "/Messages" and request.method == "POST":
            return self._send(request, account)
        return _error(405, 20004, "Method not allowed")

    def refusal(self, fault: str) -> Answer | None:
        """Return Twilio's failures. There is no phone that could be unlinked."""
        if fault == "disconnected":
            return None
        if fault == "bad-credential":
            return _error(401, 20003, "Authenticate")
        return _error(400, 63024, "Invalid message recipient")

    def throttle(self) -> Answer:
        """Return Twilio's throttle."""
        return _error(429, 20429, "Too Many Requests", {"Retry-After": "2"})

    def callback(self, send: Send, stage: str, url: str) -> Callback | None:
        """Return a status callback, signed over the address and the fields."""
        credentials = self.credentials_of(send)
        fields = {
            "AccountSid": credentials.get("account_sid", ""),
            "MessageSid": send.id,
            "MessageStatus": stage,
            "To": _PREFIX + send.recipient,
        }
        signed = url + "".join(f"{name}{value}" for name, value in sorted(fields.items()))
        key = credentials.get("auth_token", "").encode()
        signature = base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha1).digest()).decode("ascii")
        return Callback(
            urlencode(fields).encode(), "application/x-www-form-urlencoded", {"X-Twilio-Signature": signature}
        )

    def _account(self, request: HttpRequest, sid: str) -> str | None:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return None
        if scheme != "Basic":
            return None
        by_key = self.account_with(account_sid=sid, api_key_sid=user, api_key_secret=password)
        return by_key or (self.account_with(account_sid=sid, auth_token=password) if user == sid else None)

    def _send(self, request: HttpRequest, account: str) -> Answer | Taken:
        fields = form_fields(request.body.decode("latin-1"))
        if request.content_type != "application/x-www-form-urlencoded" or fields is None or set(fields) - _FIELDS:
            return _error(400, 21201, "Invalid parameters")
        to, sender = fields.get("To", ""), fields.get("From", "")
        if not to.startswith(_PREFIX) or not is_number(to.removeprefix(_PREFIX)):
            return _error(400, 63024, "Invalid message recipient")
        if ("From" in fields) == ("MessagingServiceSid" in fields) or (
            sender and not (sender.startswith(_PREFIX) and is_number(sender.removeprefix(_PREFIX)))
        ):
            return _error(400, 21603, "A 'From' phone number is required")
        text, media_url = fields.get("Body", ""), fields.get("MediaUrl", "")
        if not (text or media_url or fields.get("ContentSid")) or len(text) > 1600:
            return _error(400, 21602, "Message body is required")
        if media_url and not is_public_url(media_url):
            return _error(400, 21620, "Invalid media URL")
        kind = "template" if "ContentSid" in fields else "media" if media_url else "text"
        send = Send(
            account,
            to.removeprefix(_PREFIX),
            kind,
            text or fields.get("ContentSid", ""),
            media_url,
            id=f"SM{uuid.uuid4().hex}",
        )
        reply = {"sid": send.id, "status": "queued", "to": to, "error_code": None, "error_message": None}
        return Taken((send,), json_answer(201, reply), fields.get("StatusCallback", ""))


def _error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> Answer:
    more = f"https://www.twilio.com/docs/errors/{code}"
    answer = json_answer(status, {"code": code, "message": message, "more_info": more, "status": status})
    return Answer(answer.status, answer.body, headers=headers or {})


STAND_IN = TwilioStandIn
