"""Whacenter: one form-encoded ``/send`` for everything; replies carry no id, and nothing can be looked up.

Facts: the owner's Postman collection documents ``statusDevice``; the rest was seen in public clients' code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.platforms.contract import Account, CredentialField, PlatformContract, PlatformMessage, Request
from actors.platforms.documented import ASSUMED, OBSERVED, DocumentedReply, SuccessMarker
from actors.platforms.limits import KINDS, Limits, Timeouts
from actors.platforms.outcomes import (
    Accepted,
    AccountCheck,
    AccountState,
    Outcome,
    Rejected,
    Retryable,
    Scope,
    Unknown,
)
from actors.platforms.replies import DEVICE_AWAY_SECONDS, json_object, judge_status, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Looked for before the credential's texts: the owner's own sentence is "device not connected or not found".
_DEVICE_TEXTS = ("not connected", "disconnected", "scan qr")
_CREDENTIAL_TEXTS = ("invalid api key", "device not found")


class Whacenter(PlatformContract):
    """The contract of Whacenter."""

    name = "whacenter"
    title = "Whacenter"
    documentation = "https://documenter.gw.postman.com/api/collections/8030970/UUy67kCg"
    # The one field ``file`` takes any media; the caption is ``message``. No limit is documented.
    limits = Limits(kinds=frozenset(KINDS), captioned_kinds=frozenset({"image", "document", "video", "audio"}))
    credential_fields = (CredentialField("device_id", "the device id, which is the whole credential"),)
    default_base_url = "https://api.whacenter.com/api"
    base_path = "/api"
    success = SuccessMarker(("status",), (True,))
    replies = (
        DocumentedReply("taken", 200, {"status": True}, Accepted, None, OBSERVED),
        DocumentedReply(
            "wrong credential", 401, {"status": False, "message": "Invalid API Key"}, Rejected, Scope.CREDENTIAL
        ),
        DocumentedReply(
            "phone not linked",
            200,
            {"status": False, "message": "device not connected or not found"},
            Retryable,
            Scope.DEVICE,
        ),
        DocumentedReply("refused", 200, {"status": False, "msg": "failed"}, Rejected, Scope.MESSAGE, OBSERVED),
        DocumentedReply("unlabelled", 200, {"message": "sent"}, Unknown, None, ASSUMED),
    )
    notes = (
        "Replies carry no id, and how far a message came is told nowhere.",
        "The number goes out exactly as given.",
    )
    allowed_hosts = ("api.whacenter.com", "app.whacenter.com")
    timeouts = Timeouts(connect_seconds=10.0, reply_seconds=30.0)

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send. The number goes out exactly as given: no country is ever assumed or replaced."""
        form = {"device_id": account.credentials["device_id"], "number": message.to}
        if message.body:
            form["message"] = message.body
        if message.media_url:
            form["file"] = message.media_url
        return self.request_for(account, "POST", "/send", form=form)

    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what a send's reply says; only ``"status": true`` is known to be a success."""
        verdict = json_object(body)
        if verdict is None:
            return judge_status(status, headers)
        said = _words(verdict)
        if verdict.get("status") is True:
            if 200 <= status < 300:
                return Accepted(None, said)
            return Unknown("contradiction", f"HTTP {status} with a success in the body")
        if verdict.get("status") is not False:
            return judge_status(status, headers, said)
        if any(text in said.lower() for text in _DEVICE_TEXTS):
            return Retryable("device_disconnected", said, DEVICE_AWAY_SECONDS, Scope.DEVICE)
        if any(text in said.lower() for text in _CREDENTIAL_TEXTS):
            return Rejected("credential_refused", said, Scope.CREDENTIAL)
        if 200 <= status < 300:
            return Rejected("refused", said or "refused without a reason", Scope.MESSAGE)
        return judge_status(status, headers, said)

    def build_check(self, account: Account) -> Request | None:
        """Return the device's status; the query holds the credential, as no other form is documented."""
        return self.request_for(account, "GET", "/statusDevice", query={"device_id": account.credentials["device_id"]})

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return whether the device is connected."""
        del headers
        info = json_object(body) or {}
        device = info.get("data")
        said = _words(info)
        if status == 200 and info.get("status") is True and isinstance(device, dict):
            if device.get("status") == "CONNECTED":
                return AccountCheck(AccountState.CONNECTED, "connected")
            if device.get("status") == "NOT CONNECTED":
                return AccountCheck(AccountState.DISCONNECTED, "not connected: scan the QR code at Whacenter")
        if info.get("status") is False:
            if any(text in said.lower() for text in _DEVICE_TEXTS):
                return AccountCheck(AccountState.DISCONNECTED, said)
            if any(text in said.lower() for text in _CREDENTIAL_TEXTS):
                return AccountCheck(AccountState.REFUSED, said)
        if status in {401, 403}:
            return AccountCheck(AccountState.REFUSED, f"HTTP {status}")
        return AccountCheck(AccountState.UNKNOWN, f"HTTP {status} without the device's state")


def _words(reply: Mapping[str, Any]) -> str:
    """Return the provider's text, which stands in ``message`` or in ``msg``."""
    return text_of(reply.get("message")) or text_of(reply.get("msg"))


CONTRACT = Whacenter()
