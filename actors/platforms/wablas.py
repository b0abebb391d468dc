"""Wablas: form-encoded API v1, one request a message, settled by ``ref_id`` when a reply is lost.

Facts: https://www.wablas.com/documentation/api (2025-07-27). Version 1 is used because each of its fields is
documented, ``ref_id`` of media included, and every account has it. What the documentation leaves out (failure
texts, HTTP codes) was seen in public clients' code and logs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

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
    id_of,
    json_object,
    judge_status,
    objects_in,
    text_of,
)
from actors.platforms.webhooks import DeliveryReport, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What a failure's text contains when the credential is wrong, or right but of another server.
_CREDENTIAL_TEXTS = (
    "token invalid",
    "secret key invalid",
    "need secret key",
    "not authorized",
    "device not found",
)
_DEVICE_TEXTS = ("device disconnected", "scan qr code")
_MESSAGE_TEXTS = ("param invalid",)
#: No wording for an empty quota is known; every guess holds this word.
_QUOTA_TEXTS = ("quota",)

#: The sentence of a success, which stands in for an id where a reply carries none.
_QUEUED_SENTENCE = "pending and waiting to be processed"
#: States of a message that was taken but is not going out.
_DROPPED = frozenset({"cancel", "reject", "rejected"})
_STAGES = {"sent": Stage.SENT, "delivered": Stage.DELIVERED, "received": Stage.DELIVERED, "read": Stage.READ}


def _failure(
    status: int, said: str, outcome: type[Outcome], scope: Scope | None, source: str = OBSERVED
) -> DocumentedReply:
    return DocumentedReply(said, status, {"status": False, "message": said}, outcome, scope, source)


class Wablas(PlatformContract):
    """The contract of Wablas."""

    name = "wablas"
    title = "Wablas"
    documentation = "https://www.wablas.com/documentation/api"
    limits = Limits(
        kinds=frozenset(KINDS),
        text_characters=1024,
        caption_characters=1024,
        captioned_kinds=frozenset({"image", "document", "video"}),
        media_bytes=media_of_at_most(2 * MEBIBYTE),
        media_suffixes={
            "image": frozenset({"jpg", "jpeg", "png"}),
            "audio": frozenset({"mp3", "ogg", "mpga"}),
            "document": frozenset(["doc", "docx", "pdf", "odt", "csv", "ppt", "pptx", "xls", "xlsx", "txt"]),
        },
        groups=True,
    )
    credential_fields = (
        CredentialField("token", "the device's API token"),
        # Devices set up before secret keys existed have none.
        CredentialField("secret_key", "the device's secret key", required=False),
    )
    allowed_hosts = ("*.wablas.com",)
    timeouts = Timeouts(connect_seconds=5.0, reply_seconds=30.0)
    success = SuccessMarker(("status",), (True,))
    replies = (
        DocumentedReply(
            "queued",
            200,
            {
                "status": True,
                "message": "Message is pending and waiting to be processed",
                "data": {"messages": [{"id": "7d3c", "status": "pending"}]},
            },
            Accepted,
            None,
            OBSERVED,
        ),
        _failure(500, "token invalid or device expired", Rejected, Scope.CREDENTIAL),
        _failure(500, "device disconnected, need to scan qr code again", Retryable, Scope.DEVICE),
        _failure(400, "param invalid", Rejected, Scope.MESSAGE),
        _failure(400, "quota is exhausted", Retryable, Scope.ACCOUNT, ASSUMED),
        _failure(500, "words never seen before", Unknown, None, ASSUMED),
    )
    notes: ClassVar[tuple[str, ...]] = (
        "The base URL is the account's own server; a good token on another server is refused.",
        "It sends 5 messages each 10 to 120 seconds by itself, as its dashboard sets it.",
        "What a webhook is answered may be sent to the person: it gets an empty body.",
        "Webhooks are not signed.",
    )

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send: the path names the kind, ``phone`` holds exactly one recipient."""
        form = {"phone": message.to}
        if message.kind == "text":
            path = "/api/send-message"
            form["message"] = message.body
        else:
            path = f"/api/send-{message.kind}"
            form[message.kind] = message.media_url
            if message.body:
                form["caption"] = message.body
        if message.to_group:
            form["isGroup"] = "true"
        form["ref_id"] = message.reference
        return self.request_for(
            account, "POST", path, form=form, headers=authorization(account), reference=message.reference
        )

    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what a send's reply says: the text of a failure first, as its HTTP status misleads (500)."""
        verdict = json_object(body)
        if verdict is None:
            return judge_status(status, headers)
        said = text_of(verdict.get("message"))
        if verdict.get("status") is True:
            if 200 <= status < 300:
                return _queued(verdict, said)
            return Unknown("contradiction", f"HTTP {status} with a success in the body")
        if verdict.get("status") is not False:
            return judge_status(status, headers, said)
        return _known_failure(said) or _unknown_failure(status, headers, said)

    def build_lookup(self, reference: str, account: Account) -> Request | None:
        """Return the report of messages with this ``ref_id``."""
        query = {"ref_id": reference}
        return self.request_for(account, "GET", "/api/report/message", query=query, headers=authorization(account))

    def parse_lookup(self, status: int, headers: Mapping[str, str], body: bytes, reference: str) -> Outcome | None:
        """Return what the report says. A server may ignore the filter and list others."""
        del headers
        report = json_object(body)
        rows = report.get("message") if report and report.get("status") is True else None
        if status != 200 or not isinstance(rows, list):
            return Unknown("lookup_failed", f"HTTP {status} without a report")
        found = [row for row in rows if isinstance(row, dict) and row.get("ref_id") == reference]
        if not found:
            if rows:
                return Unknown("lookup_failed", "the report is not filtered by ref_id")
            return None
        # Several rows under one reference: one that was not dropped is enough for "taken".
        row = next((each for each in found if text_of(each.get("status")).lower() not in _DROPPED), None)
        if row is None:
            return Rejected(
                "dropped_by_provider", f"Wablas reports it {text_of(found[0].get('status'))}", Scope.MESSAGE
            )
        return Accepted(id_of(row.get("id")), text_of(row.get("status")))

    def build_status(self, provider_id: str, recipient: str, account: Account) -> Request | None:
        """Return the report of the message with this id."""
        del recipient
        query = {"message_id": provider_id}
        return self.request_for(account, "GET", "/api/report/message", query=query, headers=authorization(account))

    def parse_status(
        self, status: int, headers: Mapping[str, str], body: bytes, provider_id: str
    ) -> DeliveryReport | None:
        """Return the stage that the report tells."""
        del headers
        report = json_object(body) or {}
        rows = objects_in(report.get("message")) if status == 200 and report.get("status") is True else []
        return next((_stage(row) for row in rows if id_of(row.get("id")) == provider_id), None)

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, account: Account) -> list[DeliveryReport]:
        """Return the stage that a tracking event tells; incoming messages and device events tell none."""
        del headers, account
        event = json_object(body) or {}
        report = None if "message" in event or "deviceName" in event else _stage(event)
        return [] if report is None else [report]

    def build_check(self, account: Account) -> Request | None:
        """Return the device's info. The documented query holds the token but not the secret key."""
        token = account.credentials["token"]
        return self.request_for(
            account, "GET", "/api/device/info", query={"token": token}, headers=authorization(account)
        )

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return whether the device is connected."""
        del headers
        info = json_object(body) or {}
        said = text_of(info.get("message"))
        device = info.get("data")
        if status == 200 and info.get("status") is True and isinstance(device, dict):
            state = device.get("status")
            if state == "connected":
                return AccountCheck(AccountState.CONNECTED, "connected")
            if state == "disconnected":
                return AccountCheck(AccountState.DISCONNECTED, "disconnected: scan the QR code at Wablas")
        failure = _known_failure(said) if info.get("status") is False else None
        if isinstance(failure, Rejected) and failure.scope is Scope.CREDENTIAL:
            return AccountCheck(AccountState.REFUSED, said)
        if isinstance(failure, Retryable) and failure.scope is Scope.DEVICE:
            return AccountCheck(AccountState.DISCONNECTED, said)
        if status in {401, 403}:
            return AccountCheck(AccountState.REFUSED, f"HTTP {status}")
        return AccountCheck(AccountState.UNKNOWN, f"HTTP {status} without the device's state")


def _stage(message: Mapping[str, Any]) -> DeliveryReport | None:
    """Return the stage of one message as a report or an event tells it; None: still waiting, or unknown words."""
    provider_id, state = id_of(message.get("id")), text_of(message.get("status")).lower()
    if provider_id is None:
        return None
    if state in _DROPPED:
        return DeliveryReport(Stage.FAILED, provider_id, code=state, reason=text_of(message.get("note")) or state)
    stage = _STAGES.get(state)
    return None if stage is None else DeliveryReport(stage, provider_id)


def authorization(account: Account) -> dict[str, str]:
    """Return the header ``{token}.{secret_key}``, without a scheme word, as documented."""
    secret_key = account.credentials.get("secret_key")
    token = account.credentials["token"]
    return {"Authorization": f"{token}.{secret_key}" if secret_key else token}


def _known_failure(said: str) -> Rejected | Retryable | None:
    words = said.lower()
    if any(text in words for text in _CREDENTIAL_TEXTS):
        return Rejected("credential_refused", said, Scope.CREDENTIAL)
    if any(text in words for text in _DEVICE_TEXTS):
        return Retryable("device_disconnected", said, DEVICE_AWAY_SECONDS, Scope.DEVICE)
    if any(text in words for text in _MESSAGE_TEXTS):
        return Rejected("message_refused", said, Scope.MESSAGE)
    if any(text in words for text in _QUOTA_TEXTS):
        return Retryable("quota_exhausted", said, ACCOUNT_EXHAUSTED_SECONDS, Scope.ACCOUNT)
    return None


def _unknown_failure(status: int, headers: Mapping[str, str], said: str) -> Outcome:
    if 200 <= status < 300:
        return Rejected("refused", said or "refused without a reason", Scope.MESSAGE)
    return judge_status(status, headers, said)


def _queued(reply: Mapping[str, Any], said: str) -> Outcome:
    """Judge a reply that says ``"status": true``: it must name the message, or say the success's sentence."""
    for message in _messages(reply.get("data")):
        provider_id = id_of(message.get("id"))
        if provider_id is not None:
            state = text_of(message.get("status"))
            if state.lower() in _DROPPED:
                return Rejected("dropped_by_provider", f"Wablas answered {state}", Scope.MESSAGE)
            return Accepted(provider_id, state or said)
    if _QUEUED_SENTENCE in said.lower():
        return Accepted(None, said)
    return Unknown("no_message_in_reply", "a success that names no message")


def _messages(data: object) -> Iterator[Mapping[str, Any]]:
    """Yield a reply's messages: ``data`` is one object or a list, each with one message or a list of them."""
    for part in data if isinstance(data, list) else [data]:
        if not isinstance(part, dict):
            continue
        for key in ("messages", "message"):
            inner = part.get(key)
            yield from (each for each in (inner if isinstance(inner, list) else [inner]) if isinstance(each, dict))


CONTRACT = Wablas()
