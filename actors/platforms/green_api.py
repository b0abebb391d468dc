"""Green-API: JSON under a path that holds the token.

Facts: https://green-api.com/en/docs/api/ (SendMessage, SendFileByUrl, common errors, ratelimiter, GetStateInstance,
GetMessage, OutgoingMessageStatus). Its advice to repeat after a 502 is not taken: none of its replies says that such a
request was not processed.
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
from actors.platforms.documented import ASSUMED, DocumentedReply, SuccessMarker
from actors.platforms.files import file_name_of
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
    all_text_of,
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

#: The HTTP status of a quota that is used up; no other service knows it.
_QUOTA = 466
_EXPIRED_TEXTS = ("expired",)
_DEVICE_TEXTS = ("not authorized", "notauthorized", "not authorised", "unauthorized instance")
_STAGES = {
    "sent": Stage.SENT,
    "delivered": Stage.DELIVERED,
    "read": Stage.READ,
    "failed": Stage.FAILED,
    "noAccount": Stage.FAILED,
    "notInGroup": Stage.FAILED,
    "yellowCard": Stage.FAILED,
}
_AWAY = {
    "notAuthorized": "not authorized: scan the QR code at Green-API",
    "blocked": "the number is banned",
    "sleepMode": "the phone is switched off",
    "starting": "starting; it may take five minutes",
    "yellowCard": "suspended for spam: reboot the instance",
}


class GreenApi(PlatformContract):
    """The contract of Green-API."""

    name = "green_api"
    title = "Green-API"
    documentation = "https://green-api.com/en/docs/api/"
    limits = Limits(
        kinds=frozenset(KINDS),
        text_characters=20_000,
        captioned_kinds=frozenset({"image", "document", "video"}),
        media_bytes=media_of_at_most(100 * MEBIBYTE),
        groups=True,
        messages_per_second=50.0,
        max_in_flight=8,
    )
    success = SuccessMarker(("idMessage",))
    replies = (
        DocumentedReply("queued", 200, {"idMessage": "3EB0C767D097B7C7C030"}, Accepted),
        DocumentedReply("a field is wrong", 400, {"message": "'chatId' is required"}, Rejected, Scope.MESSAGE),
        DocumentedReply("phone not linked", 400, {"message": "instance is not authorized"}, Retryable, Scope.DEVICE),
        DocumentedReply("the subscription ended", 400, {"message": "instance is expired"}, Retryable, Scope.ACCOUNT),
        DocumentedReply("wrong token", 401, {"message": "Unauthorized"}, Rejected, Scope.CREDENTIAL),
        DocumentedReply("wrong instance", 403, "Forbidden", Rejected, Scope.CREDENTIAL),
        DocumentedReply("more than 50 requests a second", 429, "Too many requests", Retryable, Scope.ACCOUNT),
        DocumentedReply(
            "quota used up",
            466,
            {"invokeStatus": {"method": "sendMessage", "status": "QUOTE_EXCEEDED", "description": "?"}},
            Retryable,
            Scope.ACCOUNT,
        ),
        DocumentedReply("client closed request", 499, "", Unknown),
        DocumentedReply("bad gateway", 502, "<html>", Unknown, None, ASSUMED),
    )
    notes = (
        "The base URL is the account's own (apiUrl).",
        "Messages are queued for up to 24 hours and leave at least half a second apart.",
        "No message can be looked up by a reference; a send whose reply was lost stays in doubt.",
        "Webhooks are not signed.",
    )
    credential_fields = (
        CredentialField("id_instance", "the instance's id", secret=False, example="1101000001"),
        CredentialField("api_token", "the instance's token (apiTokenInstance)"),
    )
    allowed_hosts = ("api.green-api.com", "*.api.green-api.com", "api.greenapi.com", "*.api.greenapi.com")
    timeouts = Timeouts(connect_seconds=5.0, reply_seconds=30.0)

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send; media of every kind takes one path."""
        body = {"chatId": _chat_id(message.to)}
        if message.kind == "text":
            method = "sendMessage"
            body["message"] = message.body
        else:
            method = "sendFileByUrl"
            body |= {"urlFile": message.media_url, "fileName": file_name_of(message)}
            if message.body:
                body["caption"] = message.body
        return self.request_for(account, "POST", _path(account, method), json_body=body)

    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what a send's reply says; ``idMessage`` is the success."""
        reply = json_object(body) or {}
        if status == _QUOTA:
            said = all_text_of(reply) or "quota used up"
            return Retryable("quota_exhausted", said, ACCOUNT_EXHAUSTED_SECONDS, Scope.ACCOUNT)
        if 200 <= status < 300:
            provider_id = id_of(reply.get("idMessage"))
            if provider_id is None:
                return judge_status(status, headers)
            return Accepted(provider_id, "queued")
        said = all_text_of(reply) or text_of(body[:300].decode("utf-8", "replace"))
        if status == 400 and holds_any(said, _EXPIRED_TEXTS):
            return Retryable("account_expired", said, ACCOUNT_EXHAUSTED_SECONDS, Scope.ACCOUNT)
        if status == 400 and holds_any(said, _DEVICE_TEXTS):
            return Retryable("device_disconnected", said, DEVICE_AWAY_SECONDS, Scope.DEVICE)
        return judge_status(status, headers, said)

    def build_status(self, provider_id: str, recipient: str, account: Account) -> Request | None:
        """Return the question about one message in its recipient's chat."""
        body = {"chatId": _chat_id(recipient), "idMessage": provider_id}
        return self.request_for(account, "POST", _path(account, "getMessage"), json_body=body)

    def parse_status(
        self, status: int, headers: Mapping[str, str], body: bytes, provider_id: str
    ) -> DeliveryReport | None:
        """Return the stage that ``statusMessage`` tells."""
        del headers
        reply = json_object(body) or {}
        if status != 200 or id_of(reply.get("idMessage")) != provider_id:
            return None
        return _report(provider_id, text_of(reply.get("statusMessage")), reply)

    def build_check(self, account: Account) -> Request | None:
        """Return the question about the instance's state."""
        return self.request_for(account, "GET", _path(account, "getStateInstance"))

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return whether the instance is authorized."""
        del headers
        state = text_of((json_object(body) or {}).get("stateInstance"))
        if status == 200 and state == "authorized":
            return AccountCheck(AccountState.CONNECTED, "authorized")
        if status == 200 and state in _AWAY:
            return AccountCheck(AccountState.DISCONNECTED, _AWAY[state])
        return judge_check_status(status)

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, account: Account) -> list[DeliveryReport]:
        """Return the stage that an ``outgoingMessageStatus`` tells."""
        del headers, account
        event = json_object(body) or {}
        provider_id = id_of(event.get("idMessage"))
        if event.get("typeWebhook") != "outgoingMessageStatus" or provider_id is None:
            return []
        report = _report(provider_id, text_of(event.get("status")), event)
        return [] if report is None else [report]


def _chat_id(recipient: str) -> str:
    return recipient if "@" in recipient else f"{recipient}@c.us"


def _path(account: Account, method: str) -> str:
    known = account.credentials
    return f"/waInstance{path_part(known['id_instance'])}/{method}/{path_part(known['api_token'])}"


def _report(provider_id: str, state: str, event: Mapping[str, Any]) -> DeliveryReport | None:
    stage = _STAGES.get(state)
    if stage is None:
        return None
    if stage is not Stage.FAILED:
        return DeliveryReport(stage, provider_id)
    # A yellow card is about the sender: everything it sends will be held.
    scope = Scope.ACCOUNT if state == "yellowCard" else Scope.MESSAGE
    return DeliveryReport(
        stage, provider_id, code=state, reason=text_of(event.get("description")) or state, scope=scope
    )


CONTRACT = GreenApi()
