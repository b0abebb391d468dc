"""A loopback Green-API: JSON under a path that holds the token, and a status of its own for used-up quotas."""

from __future__ import annotations

import re
import uuid
from types import MappingProxyType
from typing import TYPE_CHECKING

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
    from simulator.platforms.http import HttpRequest
    from simulator.platforms.records import Records

_PATH = re.compile(r"/waInstance(?P<id>[^/]+)/(?P<method>[A-Za-z]+)/(?P<token>[^/]+)")


class GreenApiStandIn(StandIn):
    """Sends, one message of a chat, and the instance's state."""

    name = "green_api"
    base_path = ""
    default_account = MappingProxyType({"id_instance": "1101000001", "api_token": "invented-green-token"})

    def __init__(self, records: Records) -> None:
        super().__init__(records)
        self.rates = Rates(per_second=50.0)

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""
        path = _PATH.fullmatch(request.path)
        if path is None:
            return _error(404, "Not Found")
        account = self.account_with(id_instance=path["id"], api_token=path["token"])
        if account is None:
            return self.refusal("bad-credential")
        method = path["method"]
        if method == "getStateInstance" and request.method == "GET":
            return json_answer(200, {"stateInstance": "authorized" if connected else "notAuthorized"})
        if request.method != "POST" or method not in {"sendMessage", "sendFileByUrl", "getMessage"}:
            return _error(404, "Not Found")
        fields = json_fields(request)
        if fields is None or not texts_in(fields, "chatId"):
            return _error(400, "Validation failed")
        if method == "getMessage":
            send = self.send_with_id(str(fields.get("idMessage")))
            if send is None or fields["chatId"].partition("@")[0] != send.recipient.partition("@")[0]:
                return _error(400, "Message not found")
            return json_answer(200, {"type": "outgoing", "idMessage": send.id, "statusMessage": "delivered"})
        return _send(account, fields, is_file=method == "sendFileByUrl")

    def refusal(self, fault: str) -> Answer:
        """Return Green-API's failures."""
        if fault == "bad-credential":
            return _error(401, "Unauthorized")
        return _error(400, "Instance is not authorized" if fault == "disconnected" else "Validation failed")

    def callback(self, send: Send, stage: str, url: str) -> Callback | None:
        """Return an ``outgoingMessageStatus``."""
        del url
        return json_callback(
            {
                "typeWebhook": "outgoingMessageStatus",
                "chatId": f"{send.recipient}@c.us",
                "instanceData": {"idInstance": 1101000001},
                "timestamp": 1700000000,
                "idMessage": send.id,
                "status": stage,
                "sendByApi": True,
            }
        )


def _send(account: str, fields: dict[str, object], *, is_file: bool) -> Answer | Taken:
    needed = ("urlFile", "fileName") if is_file else ("message",)
    optional = {"caption", "quotedMessageId"} if is_file else {"quotedMessageId", "linkPreview"}
    if set(fields) - {"chatId", *needed} - optional or not texts_in(fields, *needed):
        return _error(400, "Validation failed")
    number, _, server = str(fields["chatId"]).partition("@")
    text = str(fields.get("caption" if is_file else "message", ""))
    if not (server == "g.us" or (server == "c.us" and is_number(number))) or len(text) > 20_000:
        return _error(400, "Validation failed")
    media_url = str(fields.get("urlFile", ""))
    if is_file and (not is_public_url(media_url) or "." not in str(fields["fileName"])):
        return _error(400, "Validation failed")
    recipient = number if server == "c.us" else str(fields["chatId"])
    send = Send(account, recipient, "media" if is_file else "text", text, media_url, id=uuid.uuid4().hex.upper())
    return Taken((send,), json_answer(200, {"idMessage": send.id}))


def _error(status: int, message: str) -> Answer:
    return json_answer(status, {"statusCode": status, "message": message})


STAND_IN = GreenApiStandIn
