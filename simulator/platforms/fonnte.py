"""A loopback Fonnte: form-encoded, and HTTP 200 whatever it says."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

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

_FIELDS = {
    "target",
    "message",
    "url",
    "filename",
    "schedule",
    "delay",
    "countryCode",
    "typing",
    "location",
    "connectOnly",
    "sequence",
    "preview",
    "followup",
}
_LONGEST_TEXT = 60_000


class FonnteStandIn(StandIn):
    """Sends, a message's status, and the device's."""

    name = "fonnte"
    base_path = ""
    default_account = MappingProxyType({"token": "invented-fonnte-token"})

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""
        if request.path not in {"/send", "/status", "/device"}:
            return _failure("path not found", 404)
        if request.method != "POST":
            return _failure("method not allowed", 405)
        account = self.account_with(token=request.headers.get("authorization", ""))
        if account is None:
            return _failure("token invalid")
        fields = form_fields(request.body.decode("latin-1"))
        if fields is None or (fields and request.content_type != "application/x-www-form-urlencoded"):
            return _failure("input invalid")
        if request.path == "/device":
            state = "connect" if connected else "disconnect"
            return json_answer(200, {"status": True, "device": "620000000003", "device_status": state, "quota": "1000"})
        if request.path == "/status":
            return self._status(fields)
        return self._send(fields, account)

    def refusal(self, fault: str) -> Answer:
        """Return Fonnte's failures."""
        if fault == "disconnected":
            return _failure("request invalid on disconnected device")
        return _failure("token invalid" if fault == "bad-credential" else "target invalid")

    def callback(self, send: Send, stage: str, url: str) -> Callback | None:
        """Return an event; only the first carries the id."""
        del url
        event = {"device": "620000000003", "stateid": f"state-{send.id}"}
        if stage == "sent":
            return json_callback({**event, "id": send.id, "status": "sent"})
        return json_callback({**event, "state": stage})

    def _send(self, fields: dict[str, str], account: str) -> Answer | Taken:
        text, media_url = fields.get("message", ""), fields.get("url", "")
        if set(fields) - _FIELDS or not (text or media_url) or len(text) > _LONGEST_TEXT:
            return _failure("input invalid")
        if media_url and not is_public_url(media_url):
            return _failure("url invalid")
        sends = []
        for target in fields.get("target", "").split(","):
            number = target.partition("|")[0]
            # Without countryCode 0 a leading zero is rewritten to Indonesia.
            if fields.get("countryCode", "62") != "0" and number.startswith("0"):
                number = fields.get("countryCode", "62") + number[1:]
            if not (is_number(number) or number.endswith("@g.us")):
                return _failure("target invalid")
            kind = "media" if media_url else "text"
            sends.append(Send(account, number, kind, text, media_url, id=fresh_number()))
        reply = {
            "detail": "success! message in queue",
            "id": [send.id for send in sends],
            "process": "pending",
            "requestid": 1,
            "status": True,
            "target": [send.recipient for send in sends],
        }
        return Taken(tuple(sends), json_answer(200, reply))

    def _status(self, fields: dict[str, str]) -> Answer:
        send = self.send_with_id(fields.get("id", ""))
        if send is None:
            return _failure("input invalid")
        return json_answer(200, {"id": send.id, "message_status": "sent", "status": True})


def _failure(reason: str, status: int = 200) -> Answer:
    return json_answer(status, {"status": False, "reason": reason, "requestid": 1})


STAND_IN = FonnteStandIn
