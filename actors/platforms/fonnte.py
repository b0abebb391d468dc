"""Fonnte: one form-encoded ``/send`` under the device's token; HTTP 200 whatever it says.

Facts: https://docs.fonnte.com (api-send-message, api-check-message-status, webhook-update-message-status); that the
verdict is at times the text "true", or under the key ``Status``, was seen in public clients' code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.platforms.contract import Account, CredentialField, PlatformContract, PlatformMessage, Request
from actors.platforms.documented import ASSUMED, OBSERVED, DocumentedReply, SuccessMarker
from actors.platforms.limits import KINDS, MEBIBYTE, Limits, Timeouts, media_of_at_most
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
from actors.platforms.replies import (
    ACCOUNT_EXHAUSTED_SECONDS,
    DEVICE_AWAY_SECONDS,
    holds_any,
    id_of,
    json_object,
    judge_check_status,
    judge_status,
    text_of,
)
from actors.platforms.webhooks import DeliveryReport, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

_CREDENTIAL_TEXTS = ("token invalid", "invalid token", "unknown token")
_DEVICE_TEXTS = ("disconnected device", "device disconnected")
_QUOTA_TEXTS = ("insufficient quota",)
_MESSAGE_TEXTS = (
    "input invalid",
    "target invalid",
    "json format invalid",
    "url invalid",
    "url unreachable",
    "file format not supported",
    "file size must under",
)

_FAILED_STATES = ("invalid", "expired", "url unreachable", "failed")
_STAGES = {"sent": Stage.SENT, "delivered": Stage.DELIVERED, "read": Stage.READ}


def _refusal(reason: str, outcome: type[Outcome], scope: Scope) -> DocumentedReply:
    return DocumentedReply(reason, 200, {"status": False, "reason": reason, "requestid": 1}, outcome, scope)


class Fonnte(PlatformContract):
    """The contract of Fonnte."""

    name = "fonnte"
    title = "Fonnte"
    documentation = "https://docs.fonnte.com/api-send-message/"
    limits = Limits(
        kinds=frozenset(KINDS),
        text_characters=60_000,
        captioned_kinds=frozenset({"image", "document", "video"}),
        media_bytes=media_of_at_most(4 * MEBIBYTE),
        groups=True,
    )
    success = SuccessMarker(("status", "Status"), (True, "true"))
    replies = (
        DocumentedReply(
            "queued",
            200,
            {
                "detail": "success! message in queue",
                "id": ["80367170"],
                "process": "pending",
                "requestid": 2937124,
                "status": True,
                "target": ["6282227097005"],
            },
            Accepted,
        ),
        DocumentedReply("queued", 200, {"Status": "true", "id": ["80367170"]}, Accepted, None, OBSERVED),
        _refusal("token invalid", Rejected, Scope.CREDENTIAL),
        _refusal("input invalid", Rejected, Scope.MESSAGE),
        _refusal("target invalid", Rejected, Scope.MESSAGE),
        _refusal("JSON format invalid", Rejected, Scope.MESSAGE),
        _refusal("url invalid", Rejected, Scope.MESSAGE),
        _refusal("url unreachable", Rejected, Scope.MESSAGE),
        _refusal("file format not supported", Rejected, Scope.MESSAGE),
        _refusal("file size must under 4MB", Rejected, Scope.MESSAGE),
        _refusal("insufficient quota", Retryable, Scope.ACCOUNT),
        _refusal("request invalid on disconnected device", Retryable, Scope.DEVICE),
        DocumentedReply(
            "a refusal under another status",
            500,
            {"status": False, "reason": "target invalid"},
            Rejected,
            Scope.MESSAGE,
            ASSUMED,
        ),
        DocumentedReply("half a success", 200, {"Status": "true"}, Unknown, None, ASSUMED),
    )
    notes = (
        "Media by URL needs a paid plan.",
        "Later webhooks may name a message by `stateid` alone; the first one ties it to the id.",
        "Asking for a message's status works, but Fonnte calls it deprecated.",
        "Webhooks are not signed.",
    )
    credential_fields = (CredentialField("token", "the device's token"),)
    default_base_url = "https://api.fonnte.com"
    allowed_hosts = ("api.fonnte.com",)
    timeouts = Timeouts(connect_seconds=5.0, reply_seconds=30.0)

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send to one full number; ``countryCode`` 0 stops Fonnte from rewriting it."""
        form = {"target": message.to, "countryCode": "0"}
        if message.body:
            form["message"] = message.body
        if message.media_url:
            form["url"] = message.media_url
        if message.kind == "document" and message.media_name:
            form["filename"] = message.media_name
        return self.request_for(account, "POST", "/send", form=form, headers=_authorization(account))

    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what a send's reply says. The status is 200 for failures too, so the verdict decides."""
        reply = json_object(body)
        if reply is None:
            return judge_status(status, headers)
        verdict, said = _verdict(reply), text_of(reply.get("reason")) or text_of(reply.get("detail"))
        if verdict is True:
            if not 200 <= status < 300:
                return Unknown("contradiction", f"HTTP {status} with a success in the body")
            ids = reply.get("id")
            provider_id = id_of(ids[0] if isinstance(ids, list) and ids else ids)
            # Other spellings than the documented one count only together with an id.
            if provider_id is None and reply.get("status") is not True:
                return Unknown("no_message_in_reply", "a success that names no message")
            return Accepted(provider_id, text_of(reply.get("process")) or said)
        if verdict is False:
            return _refused(status, headers, said)
        return judge_status(status, headers, said)

    def build_status(self, provider_id: str, recipient: str, account: Account) -> Request | None:
        """Return the question about one message."""
        del recipient
        return self.request_for(account, "POST", "/status", form={"id": provider_id}, headers=_authorization(account))

    def parse_status(
        self, status: int, headers: Mapping[str, str], body: bytes, provider_id: str
    ) -> DeliveryReport | None:
        """Return the stage that ``message_status`` tells."""
        del headers
        reply = json_object(body) or {}
        if status != 200 or _verdict(reply) is not True:
            return None
        return _report(text_of(reply.get("message_status")), provider_id, None)

    def build_check(self, account: Account) -> Request | None:
        """Return the question about the device."""
        return self.request_for(account, "POST", "/device", form={}, headers=_authorization(account))

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return whether the device is connected."""
        del headers
        reply = json_object(body) or {}
        said = text_of(reply.get("reason"))
        if status == 200 and _verdict(reply) is True:
            if reply.get("device_status") == "connect":
                return AccountCheck(AccountState.CONNECTED, "connected")
            if reply.get("device_status") == "disconnect":
                return AccountCheck(AccountState.DISCONNECTED, "disconnected: scan the QR code at Fonnte")
        if holds_any(said, _CREDENTIAL_TEXTS):
            return AccountCheck(AccountState.REFUSED, said)
        return judge_check_status(status, said)

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, account: Account) -> list[DeliveryReport]:
        """Return the stage of an event: ``state`` tells it once the message is out, ``status`` before."""
        del headers, account
        event = json_object(body) or {}
        provider_id, alias = id_of(event.get("id")), id_of(event.get("stateid"))
        if provider_id is None and alias is None:
            return []
        for said in (text_of(event.get("state")), text_of(event.get("status"))):
            if report := _report(said, provider_id, alias):
                return [report]
        return []


def _authorization(account: Account) -> dict[str, str]:
    return {"Authorization": account.credentials["token"]}


def _verdict(reply: Mapping[str, Any]) -> bool | None:
    value = reply["status"] if "status" in reply else reply.get("Status")
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value)
    return value if isinstance(value, bool) else None


def _refused(status: int, headers: Mapping[str, str], said: str) -> Outcome:
    if holds_any(said, _CREDENTIAL_TEXTS):
        return Rejected("credential_refused", said, Scope.CREDENTIAL)
    if holds_any(said, _DEVICE_TEXTS):
        return Retryable("device_disconnected", said, DEVICE_AWAY_SECONDS, Scope.DEVICE)
    if holds_any(said, _QUOTA_TEXTS):
        return Retryable("quota_exhausted", said, ACCOUNT_EXHAUSTED_SECONDS, Scope.ACCOUNT)
    if 200 <= status < 300 or holds_any(said, _MESSAGE_TEXTS):
        return Rejected("refused", said or "refused without a reason", Scope.MESSAGE)
    return judge_status(status, headers, said)


def _report(said: str, provider_id: str | None, alias: str | None) -> DeliveryReport | None:
    state = said.lower()
    if state in _FAILED_STATES:
        return DeliveryReport(Stage.FAILED, provider_id, alias=alias, code=state.replace(" ", "_"), reason=said)
    stage = _STAGES.get(state)
    return None if stage is None else DeliveryReport(stage, provider_id, alias=alias)


CONTRACT = Fonnte()
