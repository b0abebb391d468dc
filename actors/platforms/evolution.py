"""Evolution API (2.3): a WhatsApp HTTP API that people run themselves, JSON under an API key.

Facts: its source at 3454bec (2025-10-21): the routers and schemas of sendMessage, the guards, ``main.ts``,
``whatsapp.baileys.service.ts``, ``renderStatus.ts``. Its webhooks carry an API key, so nothing of their bodies but the
reports is ever kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.platforms.contract import (
    Account,
    CredentialField,
    PlatformContract,
    PlatformMessage,
    Request,
    path_part,
)
from actors.platforms.documented import ASSUMED, DOCUMENTED, DocumentedReply, SuccessMarker
from actors.platforms.files import file_name_of, mime_type_of
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
from actors.platforms.replies import (
    DEVICE_AWAY_SECONDS,
    all_text_of,
    holds_any,
    id_of,
    json_object,
    judge_check_status,
    judge_status,
    objects_in,
    text_of,
    value_at,
)
from actors.platforms.webhooks import DeliveryReport, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The client library's word for a phone that is not connected; it comes as a plain text under HTTP 400.
_DEVICE_TEXTS = ("connection closed", "not connected", "disconnected")
_STAGES = {
    "ERROR": Stage.FAILED,
    "SERVER_ACK": Stage.SENT,
    "DELIVERY_ACK": Stage.DELIVERED,
    "READ": Stage.READ,
    "PLAYED": Stage.READ,
}


def _failure(
    meaning: str, status: int, message: Any, outcome: type[Outcome], scope: Scope | None, source: str = DOCUMENTED
) -> DocumentedReply:
    body = {"status": status, "error": "Error", "response": {"message": message}}
    return DocumentedReply(meaning, status, body, outcome, scope, source)


class Evolution(PlatformContract):
    """The contract of Evolution API."""

    name = "evolution"
    title = "Evolution API"
    documentation = "https://doc.evolution-api.com/"
    limits = Limits(kinds=frozenset(KINDS), captioned_kinds=frozenset({"image", "document", "video"}), groups=True)
    success = SuccessMarker(("key.id",))
    replies = (
        DocumentedReply(
            "pending",
            201,
            {
                "key": {"remoteJid": "6281234567890@s.whatsapp.net", "fromMe": True, "id": "3EB0"},
                "status": "PENDING",
                "messageType": "conversation",
            },
            Accepted,
        ),
        _failure(
            "the number is not on WhatsApp",
            400,
            [{"jid": "6281234567890@s.whatsapp.net", "exists": False, "number": "6281234567890"}],
            Rejected,
            Scope.MESSAGE,
        ),
        _failure("a field is wrong", 400, [["instance requires property text"]], Rejected, Scope.MESSAGE),
        _failure("phone not connected", 400, ["Error: Connection Closed"], Retryable, Scope.DEVICE, ASSUMED),
        _failure("wrong key", 401, "Unauthorized", Rejected, Scope.CREDENTIAL),
        _failure('the "x" instance does not exist', 404, ['The "x" instance does not exist'], Rejected, Scope.DEVICE),
        _failure("an exception", 500, "Internal server error", Unknown, None),
    )
    notes = (
        "Software that its users run themselves: the base URL is theirs, and https unless it is on this machine.",
        "No message can be looked up; a send whose reply was lost stays in doubt.",
        "Webhooks are not signed.",
    )
    credential_fields = (
        CredentialField("api_key", "the instance's API key (apikey)"),
        CredentialField("instance", "the instance's name", secret=False, example="my-instance"),
    )
    allowed_hosts = ("*",)
    timeouts = Timeouts(connect_seconds=5.0, reply_seconds=60.0)

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send; media of every kind takes one path."""
        body = {"number": message.to}
        if message.kind == "text":
            action = "sendText"
            body["text"] = message.body
        else:
            action = "sendMedia"
            body |= {
                "mediatype": message.kind,
                "mimetype": mime_type_of(message),
                "fileName": file_name_of(message),
                "media": message.media_url,
            }
            if message.body:
                body["caption"] = message.body
        path = f"/message/{action}/{path_part(account.credentials['instance'])}"
        return self.request_for(account, "POST", path, json_body=body, headers=_authorization(account))

    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what a send's reply says; ``key.id`` is the success."""
        reply = json_object(body)
        if reply is None or status >= 500:
            return judge_status(status, headers)
        if 200 <= status < 300:
            provider_id = id_of(value_at(reply, "key.id"))
            if provider_id is None or reply.get("status") == "ERROR":
                return Unknown("no_message_in_reply", "a success that names no message")
            return Accepted(provider_id, text_of(reply.get("status")))
        message = value_at(reply, "response.message")
        said = all_text_of(message) or all_text_of(reply.get("message"))
        if any(each.get("exists") is False for each in objects_in(message)):
            return Rejected("not_on_whatsapp", "the number is not on WhatsApp", Scope.MESSAGE)
        if status == 400 and holds_any(said, _DEVICE_TEXTS):
            return Retryable("device_disconnected", said, DEVICE_AWAY_SECONDS, Scope.DEVICE)
        if status == 404 and holds_any(said, ("instance",)):
            return Rejected("instance_missing", said, Scope.DEVICE)
        return judge_status(status, headers, said)

    def build_check(self, account: Account) -> Request | None:
        """Return the question about the instance's connection."""
        path = f"/instance/connectionState/{path_part(account.credentials['instance'])}"
        return self.request_for(account, "GET", path, headers=_authorization(account))

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return whether the instance is connected."""
        del headers
        reply = json_object(body) or {}
        state = text_of(value_at(reply, "instance.state"))
        if status == 200 and state == "open":
            return AccountCheck(AccountState.CONNECTED, "open")
        if status == 200 and state in {"close", "connecting"}:
            return AccountCheck(AccountState.DISCONNECTED, f"the instance is {state}: link it at Evolution API")
        if status == 404:
            return AccountCheck(AccountState.DISCONNECTED, "there is no such instance")
        return judge_check_status(status)

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, account: Account) -> list[DeliveryReport]:
        """Return the stages that a ``messages.update`` event of this instance tells about messages of ours."""
        del headers
        event = json_object(body) or {}
        if text_of(event.get("event")).lower().replace("_", ".") != "messages.update":
            return []
        instance = account.credentials["instance"]
        if event.get("instance", instance) != instance:
            return []
        reports = []
        for update in objects_in(event.get("data")):
            provider_id = id_of(update.get("keyId")) or id_of(value_at(update, "key.id"))
            stage = _STAGES.get(text_of(update.get("status")) or text_of(value_at(update, "update.status")))
            ours = update.get("fromMe", value_at(update, "key.fromMe")) is not False
            if provider_id is not None and stage is not None and ours:
                reports.append(DeliveryReport(stage, provider_id, reason="ERROR" if stage is Stage.FAILED else ""))
        return reports


def _authorization(account: Account) -> dict[str, str]:
    return {"apikey": account.credentials["api_key"]}


CONTRACT = Evolution()
