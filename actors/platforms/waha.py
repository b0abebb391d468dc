"""WAHA: a WhatsApp HTTP API that people run themselves, JSON under an API key.

Facts: its source at 55fc6a4 (2024-10-23: chatting controller and DTOs, exception filter) and its documentation at
1a6f1c4 (2026-07-24: sessions, chats, events). That a success is 201 follows from its framework. The body of a 500
repeats our request, so none of it is told.
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
from actors.platforms.documented import ASSUMED, OBSERVED, DocumentedReply, SuccessMarker
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
    header,
    holds_any,
    id_of,
    json_object,
    judge_check_status,
    judge_status,
    text_of,
    value_at,
)
from actors.platforms.webhooks import DeliveryReport, Stage, is_signed_in_hex

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATHS = {
    "text": "/api/sendText",
    "image": "/api/sendImage",
    "document": "/api/sendFile",
    "video": "/api/sendVideo",
    "audio": "/api/sendVoice",
}
#: Where engines put the id of a message.
_ID_PATHS = ("id", "id._serialized", "key.id")
_SESSION_TEXTS = ("session status is not as expected", "restart the session", "scan_qr_code")
_STAGES = {-1: Stage.FAILED, 1: Stage.SENT, 2: Stage.DELIVERED, 3: Stage.READ, 4: Stage.READ}
_AWAY = frozenset({"SCAN_QR_CODE", "STOPPED", "FAILED"})


class Waha(PlatformContract):
    """The contract of WAHA."""

    name = "waha"
    title = "WAHA"
    documentation = "https://waha.devlike.pro/docs/how-to/send-messages/"
    limits = Limits(kinds=frozenset(KINDS), captioned_kinds=frozenset({"image", "document", "video"}), groups=True)
    success = SuccessMarker(_ID_PATHS)
    replies = (
        DocumentedReply("sent", 201, {"id": "true_6281234567890@c.us_AB12", "ack": 0}, Accepted, None, OBSERVED),
        DocumentedReply(
            "sent, by another engine",
            201,
            {"id": {"_serialized": "true_6281234567890@c.us_AB12"}},
            Accepted,
            None,
            OBSERVED,
        ),
        DocumentedReply("wrong key", 401, {"message": "Unauthorized", "statusCode": 401}, Rejected, Scope.CREDENTIAL),
        DocumentedReply(
            "session not working",
            422,
            {
                "error": "Session status is not as expected. Try again later or restart the session",
                "session": "default",
                "status": "SCAN_QR_CODE",
                "expected": ["WORKING"],
            },
            Retryable,
            Scope.DEVICE,
        ),
        DocumentedReply(
            "not in this edition",
            422,
            {"message": "The feature is available only in Plus version", "statusCode": 422},
            Rejected,
            Scope.MESSAGE,
        ),
        DocumentedReply(
            "an exception",
            500,
            {"statusCode": 500, "exception": {"message": "?"}, "request": {"body": {"text": "?"}}},
            Unknown,
        ),
        DocumentedReply("a success without an id", 201, {"status": "ok"}, Unknown, None, ASSUMED),
    )
    notes = (
        "Software that its users run themselves: the base URL is theirs, and https unless it is on this machine.",
        "Some media need the Plus edition; audio is sent as a voice message.",
        "A message is looked up by its id; one whose reply was lost and never named it stays in doubt.",
        "Webhooks are signed where a key is configured on both sides; without one, only their address protects them.",
    )
    credential_fields = (
        CredentialField("api_key", "the API key (X-Api-Key)"),
        CredentialField("session", 'the session\'s name; "default" where left out', secret=False, required=False),
        CredentialField("webhook_key", "the HMAC key of its webhooks", required=False),
    )
    allowed_hosts = ("*",)
    timeouts = Timeouts(connect_seconds=5.0, reply_seconds=60.0)
    webhook_signature = "X-Webhook-Hmac: HMAC-SHA512 of the raw body under the webhook key, in hex"

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send; the path names the kind."""
        chat_id = message.to if message.to_group else f"{message.to}@c.us"
        body: dict[str, Any] = {"session": _session(account), "chatId": chat_id}
        if message.kind == "text":
            body["text"] = message.body
        else:
            body["file"] = {
                "mimetype": mime_type_of(message),
                "filename": file_name_of(message),
                "url": message.media_url,
            }
            if message.body:
                body["caption"] = message.body
        return self.request_for(account, "POST", _PATHS[message.kind], json_body=body, headers=_authorization(account))

    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what a send's reply says; only an id is a success."""
        reply = json_object(body)
        if reply is None:
            return judge_status(status, headers)
        if status >= 500:
            return Unknown("no_verdict", f"HTTP {status} without a verdict", provider_id=_message_id(reply))
        said = text_of(reply.get("error")) or text_of(reply.get("message"))
        if 200 <= status < 300:
            provider_id = _message_id(reply)
            if provider_id is None:
                return Unknown("no_message_in_reply", "a success that names no message")
            return Accepted(provider_id)
        if status == 422 and (holds_any(said, _SESSION_TEXTS) or reply.get("expected") == ["WORKING"]):
            reason = f"{said} ({text_of(reply.get('status'))})"
            return Retryable("session_not_working", reason, DEVICE_AWAY_SECONDS, Scope.DEVICE)
        if status == 404 and holds_any(said, ("session",)):
            return Rejected("session_missing", said, Scope.DEVICE)
        return judge_status(status, headers, said)

    def build_status(self, provider_id: str, recipient: str, account: Account) -> Request | None:
        """Return the question about one message, in the chat of its recipient."""
        chat_id = recipient if "@" in recipient else f"{recipient}@c.us"
        path = f"/api/{path_part(_session(account))}/chats/{path_part(chat_id)}/messages/{path_part(provider_id)}"
        return self.request_for(account, "GET", path, query={"downloadMedia": "false"}, headers=_authorization(account))

    def parse_status(
        self, status: int, headers: Mapping[str, str], body: bytes, provider_id: str
    ) -> DeliveryReport | None:
        """Return the stage that the message's ``ack`` tells."""
        del headers
        reply = json_object(body) or {}
        return _report(reply) if status == 200 and _message_id(reply) == provider_id else None

    def build_check(self, account: Account) -> Request | None:
        """Return the question about the session."""
        path = f"/api/sessions/{path_part(_session(account))}"
        return self.request_for(account, "GET", path, headers=_authorization(account))

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return whether the session works."""
        del headers
        reply = json_object(body) or {}
        state = text_of(reply.get("status"))
        if status == 200 and state == "WORKING":
            return AccountCheck(AccountState.CONNECTED, "working")
        if status == 200 and state in _AWAY:
            return AccountCheck(AccountState.DISCONNECTED, f"the session is {state}: link it at WAHA")
        if status == 404:
            return AccountCheck(AccountState.DISCONNECTED, "there is no such session")
        return judge_check_status(status, text_of(reply.get("message")))

    def verify_webhook(self, headers: Mapping[str, str], body: bytes, url: str, account: Account) -> bool:
        """Say whether the webhook key signed the body. Where no key was agreed upon, WAHA signs nothing."""
        del url
        key = account.credentials.get("webhook_key", "")
        if not key:
            return True
        algorithm = header(headers, "X-Webhook-Hmac-Algorithm").lower()
        return algorithm in {"", "sha512"} and is_signed_in_hex(headers, "X-Webhook-Hmac", body, key, "sha512")

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, account: Account) -> list[DeliveryReport]:
        """Return the stage that a ``message.ack`` event of this session tells about a message of ours."""
        del headers
        event = json_object(body) or {}
        payload = event.get("payload")
        if event.get("event") != "message.ack" or not isinstance(payload, dict) or payload.get("fromMe") is False:
            return []
        if event.get("session", _session(account)) != _session(account):
            return []
        report = _report(payload)
        return [] if report is None else [report]


def _session(account: Account) -> str:
    return account.credentials.get("session") or "default"


def _authorization(account: Account) -> dict[str, str]:
    return {"X-Api-Key": account.credentials["api_key"]}


def _message_id(message: Mapping[str, Any]) -> str | None:
    return next((found for path in _ID_PATHS if (found := id_of(value_at(message, path))) is not None), None)


def _report(message: Mapping[str, Any]) -> DeliveryReport | None:
    provider_id, ack = _message_id(message), message.get("ack")
    stage = _STAGES.get(ack) if isinstance(ack, int) and not isinstance(ack, bool) else None
    if provider_id is None or stage is None:
        return None
    name = text_of(message.get("ackName")) or "ERROR"
    return DeliveryReport(stage, provider_id, reason=name if stage is Stage.FAILED else "")


CONTRACT = Waha()
