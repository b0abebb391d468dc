"""What every provider of Meta's Cloud API shares: the messages, the replies, the errors, the status webhooks.

Facts: https://developers.facebook.com/documentation/business-messaging/whatsapp/ (messages, throughput 2026-05-21,
webhooks/reference/messages/status); that ``biz_opaque_callback_data`` comes back was seen in clients' code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from actors.platforms.cloud_api_errors import meaning_of, outcome_of
from actors.platforms.contract import Account, PlatformContract, PlatformMessage, Request
from actors.platforms.documented import ASSUMED, DOCUMENTED, OBSERVED, DocumentedReply, SuccessMarker
from actors.platforms.limits import KINDS, MEBIBYTE, TEMPLATE, Limits, Timeouts
from actors.platforms.outcomes import Accepted, Outcome, Rejected, Retryable, Scope, Unknown
from actors.platforms.replies import id_of, json_object, judge_status, objects_in, text_of, value_at
from actors.platforms.templates import template_of
from actors.platforms.webhooks import DeliveryReport, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_STAGES = {"sent": Stage.SENT, "delivered": Stage.DELIVERED, "read": Stage.READ, "failed": Stage.FAILED}


def _error(
    code: int, meaning: str, outcome: type[Outcome], scope: Scope | None, status: int = 400, source: str = DOCUMENTED
) -> DocumentedReply:
    error = {"message": f"(#{code}) {meaning}", "type": "OAuthException", "code": code, "fbtrace_id": "A1"}
    return DocumentedReply(f"{code}: {meaning}", status, {"error": error}, outcome, scope, source)


class CloudApi(PlatformContract):
    """The part of a contract that does not depend on whose door the message goes through."""

    limits = Limits(
        kinds=frozenset({*KINDS, TEMPLATE}),
        text_characters=4096,
        caption_characters=1024,
        captioned_kinds=frozenset({"image", "document", "video"}),
        media_bytes={
            "image": 5 * MEBIBYTE,
            "audio": 16 * MEBIBYTE,
            "video": 16 * MEBIBYTE,
            "document": 100 * MEBIBYTE,
        },
        messages_per_second=80.0,
        seconds_per_recipient=6.0,
        recipient_burst=45,
        max_in_flight=16,
    )
    timeouts = Timeouts(connect_seconds=5.0, reply_seconds=20.0)
    success = SuccessMarker(("messages.0.id",))
    reports_reference = True
    replies: ClassVar[tuple[DocumentedReply, ...]] = (
        DocumentedReply(
            "accepted",
            200,
            {
                "messaging_product": "whatsapp",
                "contacts": [{"input": "6281234567890", "wa_id": "6281234567890"}],
                "messages": [{"id": "wamid.HBgN", "message_status": "accepted"}],
            },
            Accepted,
        ),
        DocumentedReply(
            "held for a quality check",
            200,
            {"messages": [{"id": "wamid.HBgN", "message_status": "held_for_quality_assessment"}]},
            Accepted,
            None,
            OBSERVED,
        ),
        _error(190, "access token expired", Rejected, Scope.CREDENTIAL, 401),
        _error(10, "permission denied", Rejected, Scope.CREDENTIAL, 403),
        _error(130429, "rate limit hit", Retryable, Scope.ACCOUNT),
        _error(80007, "rate limit of the business account", Retryable, Scope.ACCOUNT, 429),
        _error(131056, "too many messages to this recipient", Retryable, Scope.MESSAGE),
        _error(131016, "service unavailable", Retryable, Scope.SERVICE, 500),
        _error(131000, "something went wrong", Unknown, None, 500, ASSUMED),
        _error(131048, "spam rate limit", Rejected, Scope.ACCOUNT),
        _error(368, "blocked for policy violations", Rejected, Scope.ACCOUNT, 403),
        _error(131042, "payment issue", Rejected, Scope.ACCOUNT),
        _error(100, "invalid parameter", Rejected, Scope.MESSAGE),
        _error(132001, "template does not exist", Rejected, Scope.MESSAGE, 404),
        _error(131026, "undeliverable", Rejected, Scope.MESSAGE),
        _error(131047, "more than 24 hours since the person wrote; a template is needed", Rejected, Scope.MESSAGE),
        _error(
            131049, "not delivered to keep the ecosystem healthy; not again within 24 hours", Rejected, Scope.MESSAGE
        ),
    )

    def message_body(self, message: PlatformMessage) -> dict[str, Any]:
        """Return the JSON of a message."""
        body: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": message.to,
            "type": message.kind,
            message.kind: _content(message),
            "biz_opaque_callback_data": message.reference,
        }
        return body

    def send_request(self, message: PlatformMessage, account: Account, path: str, headers: dict[str, str]) -> Request:
        """Return the one request that sends ``message``."""
        return self.request_for(account, "POST", path, json_body=self.message_body(message), headers=headers)

    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what a send's reply says: an error's code first, as its HTTP status varies."""
        reply = json_object(body)
        if reply is None:
            return judge_status(status, headers)
        if isinstance(error := reply.get("error"), dict):
            said, code = _words(error), error.get("code")
            known = outcome_of(code, said) if isinstance(code, int) and not isinstance(code, bool) else None
            return known or judge_status(status, headers, said)
        provider_id = id_of(value_at(reply, "messages.0.id"))
        if provider_id is None:
            return judge_status(status, headers)
        if not 200 <= status < 300:
            return Unknown("contradiction", f"HTTP {status} with a success in the body", provider_id=provider_id)
        return Accepted(provider_id, text_of(value_at(reply, "messages.0.message_status")))

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, account: Account) -> list[DeliveryReport]:
        """Return the stages that a webhook tells; one may tell of many messages."""
        del headers, account
        return [
            report
            for entry in objects_in((json_object(body) or {}).get("entry"))
            for change in objects_in(entry.get("changes"))
            for status in objects_in(value_at(change, "value.statuses"))
            for report in _reports(status)
        ]


def _content(message: PlatformMessage) -> dict[str, Any]:
    if message.kind == "text":
        return {"body": message.body}
    if message.kind == TEMPLATE:
        template = template_of(message.body)
        content: dict[str, Any] = {"name": template.name, "language": {"code": template.language}}
        return content | ({"components": template.components} if template.components else {})
    media = {"link": message.media_url}
    if message.body:
        media["caption"] = message.body
    if message.kind == "document" and message.media_name:
        media["filename"] = message.media_name
    return media


def _words(error: Mapping[str, Any]) -> str:
    """Return an error's details, which say more than its title."""
    return (
        text_of(value_at(error, "error_data.details")) or text_of(error.get("message")) or text_of(error.get("title"))
    )


def _reports(status: Mapping[str, Any]) -> Iterator[DeliveryReport]:
    stage, provider_id = _STAGES.get(text_of(status.get("status"))), id_of(status.get("id"))
    if stage is None or provider_id is None:
        return
    reference = id_of(status.get("biz_opaque_callback_data"))
    if stage is not Stage.FAILED:
        yield DeliveryReport(stage, provider_id, reference)
        return
    error = next(iter(objects_in(status.get("errors"))), {})
    code = error.get("code")
    meaning = meaning_of(code) if isinstance(code, int) and not isinstance(code, bool) else None
    yield DeliveryReport(
        stage,
        provider_id,
        reference,
        code=id_of(code) or "",
        reason=_words(error),
        scope=None if meaning is None else meaning.scope,
    )
