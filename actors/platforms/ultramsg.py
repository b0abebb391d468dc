"""UltraMsg: form-encoded sends whose token is a field; a ``referenceId`` settles what is in doubt.

Facts: https://docs.ultramsg.com (messages/chat and its siblings, instance status, webhooks) and
https://blog.ultramsg.com/whatsapp-api-message-and-queue-management . The texts of its errors, and that they come under
HTTP 200, were seen in public clients' code.
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
from actors.platforms.files import file_name_of
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
    ACCOUNT_EXHAUSTED_SECONDS,
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

_CREDENTIAL_TEXTS = ("token", "unauthorized", "instance not found", "path not found")
_ACCOUNT_TEXTS = ("stopped", "expired", "payment", "subscription", "quota")
_DROPPED = frozenset({"unsent", "invalid", "expired"})
_STAGES = {
    "server": Stage.SENT,
    "sent": Stage.SENT,
    "device": Stage.DELIVERED,
    "delivered": Stage.DELIVERED,
    "read": Stage.READ,
    "played": Stage.READ,
}


class UltraMsg(PlatformContract):
    """The contract of UltraMsg."""

    name = "ultramsg"
    title = "UltraMsg"
    documentation = "https://docs.ultramsg.com/api/post/messages/chat"
    limits = Limits(
        kinds=frozenset(KINDS),
        text_characters=4096,
        caption_characters=1024,
        captioned_kinds=frozenset({"image", "document", "video"}),
        groups=True,
    )
    success = SuccessMarker(("sent",), ("true", True))
    replies = (
        DocumentedReply("queued", 200, {"sent": "true", "message": "ok", "id": 58431}, Accepted),
        DocumentedReply(
            "wrong token",
            200,
            {"error": "Wrong token. Please provide token as a GET parameter."},
            Rejected,
            Scope.CREDENTIAL,
            OBSERVED,
        ),
        DocumentedReply(
            "a field is wrong", 200, {"error": [{"to": "is not a valid number"}]}, Rejected, Scope.MESSAGE, OBSERVED
        ),
        DocumentedReply(
            "the subscription ended",
            200,
            {"error": {"message": "instance stopped: payment needed"}},
            Retryable,
            Scope.ACCOUNT,
            ASSUMED,
        ),
        DocumentedReply("an error of its own", 500, {"error": "?"}, Unknown, None, ASSUMED),
    )
    notes = (
        "An instance whose phone is not linked still queues messages, for 24 hours.",
        "A send whose reply was lost is looked up by its referenceId; the query holds the token.",
        "Webhooks are not signed.",
    )
    credential_fields = (
        CredentialField("instance_id", "the instance's id", secret=False, example="instance1150"),
        CredentialField("token", "the instance's token"),
    )
    default_base_url = "https://api.ultramsg.com"
    allowed_hosts = ("api.ultramsg.com",)
    timeouts = Timeouts(connect_seconds=5.0, reply_seconds=30.0)

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send; the path names the kind."""
        form = {"token": account.credentials["token"], "to": message.to if message.to_group else f"+{message.to}"}
        if message.kind == "text":
            path = "chat"
            form["body"] = message.body
        else:
            path = message.kind
            form[message.kind] = message.media_url
            if message.kind == "document":
                form["filename"] = file_name_of(message)
            if message.body:
                form["caption"] = message.body
        form["referenceId"] = message.reference
        return self.request_for(
            account, "POST", f"{_instance_path(account)}/messages/{path}", form=form, reference=message.reference
        )

    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what a send's reply says: ``sent`` is the text "true", and errors have many shapes."""
        reply = json_object(body)
        if reply is None:
            return judge_status(status, headers)
        if reply.get("error"):
            return _refused(status, headers, all_text_of(reply["error"]))
        verdict, said = reply.get("sent"), text_of(reply.get("message"))
        if verdict is True or verdict == "true":
            if 200 <= status < 300:
                return Accepted(id_of(reply.get("id")), said)
            return Unknown("contradiction", f"HTTP {status} with a success in the body")
        if verdict is False or verdict == "false":
            return _refused(status, headers, said)
        return judge_status(status, headers, said)

    def build_lookup(self, reference: str, account: Account) -> Request | None:
        """Return the list of messages with this reference."""
        return self._messages(account, {"referenceId": reference})

    def parse_lookup(self, status: int, headers: Mapping[str, str], body: bytes, reference: str) -> Outcome | None:
        """Return what the list says. A server may ignore the filter and list others."""
        del headers
        rows = _rows(status, body)
        if rows is None:
            return Unknown("lookup_failed", f"HTTP {status} without a list of messages")
        found = [row for row in rows if id_of(row.get("referenceId")) == reference]
        if not found:
            return Unknown("lookup_failed", "the list is not filtered by referenceId") if rows else None
        row = next((each for each in found if text_of(each.get("status")).lower() not in _DROPPED), None)
        if row is None:
            said = text_of(found[0].get("status"))
            return Rejected("dropped_by_provider", f"UltraMsg reports it {said}", Scope.MESSAGE)
        return Accepted(id_of(row.get("id")), text_of(row.get("status")))

    def build_status(self, provider_id: str, recipient: str, account: Account) -> Request | None:
        """Return the list with the one message of this id."""
        del recipient
        return self._messages(account, {"id": provider_id})

    def parse_status(
        self, status: int, headers: Mapping[str, str], body: bytes, provider_id: str
    ) -> DeliveryReport | None:
        """Return the stage of the message."""
        del headers
        row = next((row for row in _rows(status, body) or [] if id_of(row.get("id")) == provider_id), None)
        if row is None:
            return None
        state, ack = text_of(row.get("status")).lower(), text_of(row.get("ack")).lower()
        if state in _DROPPED:
            return DeliveryReport(Stage.FAILED, provider_id, code=state, reason=f"UltraMsg reports it {state}")
        stage = _STAGES.get(ack) or _STAGES.get(state)
        return None if stage is None else DeliveryReport(stage, provider_id)

    def build_check(self, account: Account) -> Request | None:
        """Return the question about the instance; the query holds the token, as no other form is documented."""
        query = {"token": account.credentials["token"]}
        return self.request_for(account, "GET", f"{_instance_path(account)}/instance/status", query=query)

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return whether the instance is linked."""
        del headers
        reply = json_object(body) or {}
        state = text_of(value_at(reply, "status.accountStatus.status"))
        if status == 200 and state == "authenticated":
            return AccountCheck(AccountState.CONNECTED, "authenticated")
        if status == 200 and state:
            return AccountCheck(AccountState.DISCONNECTED, f"the instance is {state}: link it at UltraMsg")
        said = all_text_of(reply.get("error"))
        if holds_any(said, _CREDENTIAL_TEXTS):
            return AccountCheck(AccountState.REFUSED, said)
        return judge_check_status(status, said)

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, account: Account) -> list[DeliveryReport]:
        """Return the stage that a ``message_ack`` tells, or a ``message_create``, which ties our reference to ids."""
        del headers, account
        event = json_object(body) or {}
        kind = text_of(event.get("event_type"))
        if kind not in {"message_ack", "message_create"}:
            return []
        stage = _STAGES.get(text_of(value_at(event, "data.ack")).lower())
        provider_id, reference = id_of(event.get("id")), id_of(event.get("referenceId"))
        alias = id_of(value_at(event, "data.id"))
        if stage is None or not (provider_id or reference or alias):
            return []
        return [DeliveryReport(stage, provider_id, reference, alias)]

    def _messages(self, account: Account, filters: Mapping[str, str]) -> Request:
        query = {"token": account.credentials["token"], **filters}
        return self.request_for(account, "GET", f"{_instance_path(account)}/messages", query=query)


def _instance_path(account: Account) -> str:
    return f"/{path_part(account.credentials['instance_id'])}"


def _refused(status: int, headers: Mapping[str, str], said: str) -> Outcome:
    reason = said or "refused without a reason"
    if holds_any(said, _CREDENTIAL_TEXTS):
        return Rejected("credential_refused", reason, Scope.CREDENTIAL)
    if holds_any(said, _ACCOUNT_TEXTS):
        return Retryable("account_exhausted", reason, ACCOUNT_EXHAUSTED_SECONDS, Scope.ACCOUNT)
    if 200 <= status < 300:
        return Rejected("refused", reason, Scope.MESSAGE)
    return judge_status(status, headers, reason)


def _rows(status: int, body: bytes) -> list[dict[str, Any]] | None:
    """Return the messages of a list, which stands alone or under ``messages``; None: there is no list."""
    listed: object = (json_object(b'{"messages":' + body + b"}") or {}).get("messages")
    listed = listed.get("messages") if isinstance(listed, dict) else listed
    return objects_in(listed) if status == 200 and isinstance(listed, list) else None


CONTRACT = UltraMsg()
