"""A loopback Whacenter: one form-encoded ``/send``, and the device's status served as text/html."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from simulator.platforms.http import Answer, form_fields, json_answer
from simulator.platforms.records import Send
from simulator.platforms.stand_in import StandIn, Taken, is_number, is_public_url

if TYPE_CHECKING:
    from simulator.platforms.http import HttpRequest


class WhacenterStandIn(StandIn):
    """Sends and the device's status; there is no report, as the real one is not known to have any."""

    name = "whacenter"
    base_path = "/api"
    default_account = MappingProxyType({"device_id": "invented-whacenter-device"})

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""
        if request.path == "/api/send":
            return self._send(request)
        if request.path == "/api/statusDevice":
            return self._status(request, connected=connected)
        return _failure(404, "not found")

    def refusal(self, fault: str) -> Answer:
        """Return Whacenter's failures: HTTP 200 even for what failed, and 401 for the credential alone."""
        if fault == "disconnected":
            return _failure(200, "device not connected or not found")
        if fault == "bad-credential":
            return _failure(401, "Invalid API Key")
        return _failure(200, "failed to send message")

    def _account(self, device_id: str) -> str | None:
        accounts = self.records.accounts(self.name).items()
        return next((label for label, each in accounts if each["device_id"] == device_id), None)

    def _send(self, request: HttpRequest) -> Answer | Taken:
        if request.method != "POST":
            return _failure(405, "method not allowed")
        fields = form_fields(request.body.decode("latin-1"))
        if request.content_type != "application/x-www-form-urlencoded" or fields is None:
            return _failure(400, "form-encoded fields expected")
        account = self._account(fields.get("device_id", ""))
        if account is None:
            return self.refusal("bad-credential")
        if set(fields) - {"device_id", "number", "message", "file"}:
            return _failure(400, "unknown field")
        text, media_url = fields.get("message", ""), fields.get("file", "")
        if not is_number(fields.get("number", "")) or not (text or media_url):
            return _failure(200, "number and message are required")
        if media_url and not is_public_url(media_url):
            return _failure(200, "file must be a public url")
        # The platform tells media apart by the file itself, so the record says no more than "media".
        send = Send(account, fields["number"], "media" if media_url else "text", text, media_url)
        return Taken((send,), json_answer(200, {"status": True}))

    def _status(self, request: HttpRequest, *, connected: bool) -> Answer:
        if request.method != "GET":
            return _failure(405, "method not allowed")
        label = self._account((form_fields(request.query) or {}).get("device_id", ""))
        if label is None:
            return self.refusal("disconnected")
        device = {
            "status": "CONNECTED" if connected else "NOT CONNECTED",
            "nomor": "620000000002",
            "nama": label,
            "qr": "done" if connected else "",
        }
        return json_answer(
            200,
            {"status": True, "message": "success get device status", "data": device},
            content_type="text/html; charset=UTF-8",
        )


def _failure(status: int, message: str) -> Answer:
    return json_answer(status, {"status": False, "data": {}, "message": message})


STAND_IN = WhacenterStandIn
