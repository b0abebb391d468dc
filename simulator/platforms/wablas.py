"""A loopback Wablas: API v1 as documented, form-encoded and nothing else."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from simulator.platforms.http import Answer, form_fields, json_answer
from simulator.platforms.records import Send
from simulator.platforms.stand_in import Callback, StandIn, Taken, is_number, is_public_url, json_callback

if TYPE_CHECKING:
    from simulator.platforms.http import HttpRequest

_KINDS = {
    "/api/send-message": "text",
    "/api/send-image": "image",
    "/api/send-document": "document",
    "/api/send-video": "video",
    "/api/send-audio": "audio",
}
#: Documented fields that every send takes; each kind adds its own.
OPTIONAL = {"isGroup", "ref_id", "retry", "priority", "random", "spintax", "source", "flag", "secret"}
LONGEST_TEXT = 1024
_QUOTA = 1000


class WablasStandIn(StandIn):
    """Sends, the report by ``ref_id``, and the device's info."""

    name = "wablas"
    base_path = ""
    default_account = MappingProxyType({"token": "invented-wablas-token", "secret_key": "invented-secret"})

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""
        kind = _KINDS.get(request.path)
        if kind is not None:
            return self._send(request, kind)
        if request.path == "/api/report/message":
            return self._report(request)
        if request.path == "/api/device/info":
            return self._info(request, connected=connected)
        return failure(404, "page not found")

    def refusal(self, fault: str) -> Answer:
        """Return Wablas's failures: HTTP 500 even for what is permanent."""
        if fault == "disconnected":
            return failure(500, "device disconnected, need to scan qr code again")
        if fault == "bad-credential":
            return failure(500, "token invalid or device expired")
        return failure(400, "param invalid")

    def callback(self, send: Send, stage: str, url: str) -> Callback | None:
        """Return a tracking event."""
        del url
        event = {"id": send.id, "phone": send.recipient, "status": stage, "note": "", "sender": "620000000001"}
        return json_callback({**event, "deviceId": "SIM001"})

    def account_of(self, request: HttpRequest) -> str | None:
        """Return the account that ``Authorization: token.secret_key`` names."""
        given = request.headers.get("authorization", "")
        for label, credentials in self.records.accounts(self.name).items():
            secret_key = credentials.get("secret_key")
            if given == (f"{credentials['token']}.{secret_key}" if secret_key else credentials["token"]):
                return label
        return None

    def _send(self, request: HttpRequest, kind: str) -> Answer | Taken:
        if request.method != "POST":
            return failure(405, "method not allowed")
        account = self.account_of(request)
        if account is None:
            return self.refusal("bad-credential")
        fields = form_fields(request.body.decode("latin-1"))
        if request.content_type != "application/x-www-form-urlencoded" or fields is None:
            return failure(400, "param invalid, form-encoded fields expected")
        content = "message" if kind == "text" else kind
        captioned = {"caption"} if kind in {"image", "document", "video"} else set()
        if set(fields) - OPTIONAL - {"phone", content} - captioned:
            return failure(400, "param invalid, unknown field")
        text = fields.get("message" if kind == "text" else "caption", "")
        if not fields.get("phone") or not fields.get(content) or len(text) > LONGEST_TEXT:
            return failure(400, "param invalid")
        if kind != "text" and not is_public_url(fields[content]):
            return failure(400, f"param invalid, {kind} must be a public url")
        # Several recipients joined by comma are documented; each is a message of its own.
        recipients = fields["phone"].split(",")
        to_group = fields.get("isGroup") == "true"
        if not all(recipients) or not (to_group or all(is_number(each) for each in recipients)):
            return failure(400, "param invalid, phone")
        sends = tuple(
            Send(
                account,
                recipient,
                kind,
                text,
                media_url="" if kind == "text" else fields[content],
                reference=fields.get("ref_id", ""),
            )
            for recipient in recipients
        )
        return Taken(sends, queued(sends))

    def _report(self, request: HttpRequest) -> Answer:
        if request.method != "GET":
            return failure(405, "method not allowed")
        if self.account_of(request) is None:
            return self.refusal("bad-credential")
        filters = form_fields(request.query) or {}
        rows = [_report_row(each) for each in self.records.sends(self.name, reference=filters.get("ref_id"))]
        if "message_id" in filters:
            rows = [row for row in rows if row["id"] == filters["message_id"]]
        if "phone" in filters:
            rows = [row for row in rows if row["phone"]["to"] == filters["phone"]]
        per_page = max(1, int(filters["perPage"])) if filters.get("perPage", "").isdecimal() else 100
        page = max(1, int(filters["page"])) if filters.get("page", "").isdecimal() else 1
        return json_answer(
            200,
            {
                "status": True,
                "totalData": len(rows),
                "perPage": str(per_page),
                "page": str(page),
                "totalPage": -(-len(rows) // per_page),
                "message": rows[(page - 1) * per_page : page * per_page],
            },
        )

    def _info(self, request: HttpRequest, *, connected: bool) -> Answer:
        if request.method != "GET":
            return failure(405, "method not allowed")
        token = (form_fields(request.query) or {}).get("token", "")
        known = self.records.accounts(self.name).items()
        label = next((label for label, each in known if token and token.split(".")[0] == each["token"]), None)
        if label is None:
            return self.refusal("bad-credential")
        device = {
            "name": label,
            "serial": "SIM001",
            "sender": "620000000001",
            "quota": _QUOTA,
            "expired_date": "2099-12-31",
            "active": True,
            "status": "connected" if connected else "disconnected",
        }
        return json_answer(200, {"status": True, "data": device})


def failure(status: int, message: str) -> Answer:
    """Return a failure."""
    return json_answer(status, {"status": False, "message": message})


def queued(sends: tuple[Send, ...]) -> Answer:
    """Return the reply to sends that were taken."""
    messages = []
    for send in sends:
        message: dict[str, Any] = {"id": send.id, "phone": send.recipient, "message": send.text or None}
        if send.kind != "text":
            message |= {"message": None, "caption": send.text, send.kind: send.media_url.rpartition("/")[2]}
        messages.append({**message, "status": "pending", "ref_id": send.reference})
    data = {"device_id": "SIM001", "quota": _QUOTA, "messages": messages}
    return json_answer(200, {"status": True, "message": "Message is pending and waiting to be processed", "data": data})


def _report_row(send: Send) -> dict[str, Any]:
    return {
        "id": send.id,
        "phone": {"from": "620000000001", "to": send.recipient},
        "category": send.kind,
        "text": send.text,
        "URL_file": send.media_url or None,
        "status": "sent",
        "type": "agent",
        "ref_id": send.reference,
        "date": {"created_at": send.time, "updated_at": send.time},
    }


STAND_IN = WablasStandIn
