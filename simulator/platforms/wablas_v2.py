"""A loopback Wablas that speaks version 2 of its API: JSON lists of at most 100 messages."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from simulator.platforms.http import Answer
from simulator.platforms.records import Send
from simulator.platforms.stand_in import Taken, is_number, is_public_url, json_fields, texts_in
from simulator.platforms.wablas import LONGEST_TEXT, OPTIONAL, WablasStandIn, failure, queued

if TYPE_CHECKING:
    from simulator.platforms.http import HttpRequest

_KINDS = {
    "/api/v2/send-message": "text",
    "/api/v2/send-image": "image",
    "/api/v2/send-document": "document",
    "/api/v2/send-video": "video",
    "/api/v2/send-audio": "audio",
}
_LONGEST_LIST = 100


class WablasV2StandIn(WablasStandIn):
    """Sends by version 2; the report and the device's info are those of version 1."""

    name = "wablas_v2"
    default_account = MappingProxyType({"token": "invented-wablas-v2-token", "secret_key": "invented-secret"})

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the sends."""
        kind = _KINDS.get(request.path)
        if kind is None:
            return super().judge(request, connected=connected)
        if request.method != "POST":
            return failure(405, "method not allowed")
        account = self.account_of(request)
        if account is None:
            return self.refusal("bad-credential")
        items = (json_fields(request) or {}).get("data")
        if not isinstance(items, list) or not 1 <= len(items) <= _LONGEST_LIST:
            return failure(400, "param invalid, data")
        sends = [_sent(account, kind, item) for item in items]
        taken = tuple(send for send in sends if send is not None)
        if len(taken) != len(items):
            return failure(400, "param invalid")
        return Taken(taken, queued(taken))


def _sent(account: str, kind: str, item: Any) -> Send | None:
    content = "message" if kind == "text" else kind
    captioned = {"caption"} if kind in {"image", "document", "video"} else set()
    if not isinstance(item, dict) or set(item) - OPTIONAL - {"phone", content} - captioned:
        return None
    if not texts_in(item, "phone", content) or not (item.get("isGroup") == "true" or is_number(item["phone"])):
        return None
    text = item.get("message" if kind == "text" else "caption", "")
    if not isinstance(text, str) or len(text) > LONGEST_TEXT or (kind != "text" and not is_public_url(item[content])):
        return None
    media_url = "" if kind == "text" else item[content]
    return Send(account, item["phone"], kind, text, media_url, str(item.get("ref_id", "")))


STAND_IN = WablasV2StandIn
