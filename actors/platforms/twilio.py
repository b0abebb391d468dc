"""Twilio: WhatsApp through its Messages resource, form-encoded under basic authentication.

Facts: https://www.twilio.com/docs/messaging/api/message-resource , the pages of its error codes, and
https://www.twilio.com/docs/usage/webhooks/webhooks-security . That a throttled request (429, 20429) was not processed
is Twilio's own statement.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from actors.platforms.contract import (
    Account,
    CredentialField,
    PlatformContract,
    PlatformMessage,
    Request,
    basic_authorization,
    path_part,
)
from actors.platforms.documented import ASSUMED, DocumentedReply, SuccessMarker
from actors.platforms.limits import KINDS, MEBIBYTE, TEMPLATE, Limits, Timeouts, media_of_at_most
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
from actors.platforms.replies import header, id_of, json_object, judge_check_status, judge_status, retry_after, text_of
from actors.platforms.templates import template_of
from actors.platforms.webhooks import DeliveryReport, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Error codes that the HTTP status alone would not tell apart.
_THROTTLED = frozenset({20429, 63018})
_CREDENTIAL = frozenset({20003, 20404})
_MESSAGE = frozenset({63013, 63016, 63021, 63024})

_DROPPED = frozenset({"failed", "undelivered", "canceled"})
_STAGES = {"sent": Stage.SENT, "delivered": Stage.DELIVERED, "read": Stage.READ} | dict.fromkeys(_DROPPED, Stage.FAILED)


def _error(code: int, meaning: str, status: int, outcome: type[Outcome], scope: Scope) -> DocumentedReply:
    body = {
        "code": code,
        "message": meaning,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return DocumentedReply(f"{code}: {meaning}", status, body, outcome, scope)


class Twilio(PlatformContract):
    """The contract of Twilio."""

    name = "twilio"
    title = "Twilio"
    documentation = "https://www.twilio.com/docs/messaging/api/message-resource"
    limits = Limits(
        kinds=frozenset({*KINDS, TEMPLATE}),
        text_characters=1600,
        caption_characters=1600,
        captioned_kinds=frozenset({"image", "video"}),
        media_bytes=media_of_at_most(16 * MEBIBYTE) | {"image": 5 * MEBIBYTE},
        messages_per_second=10.0,
        max_in_flight=8,
    )
    success = SuccessMarker(("sid",))
    replies = (
        DocumentedReply("queued", 201, {"sid": "SM1f", "status": "queued", "error_code": None}, Accepted),
        DocumentedReply("accepted", 201, {"sid": "SM1f", "status": "accepted", "error_code": None}, Accepted),
        _error(20003, "Authenticate", 401, Rejected, Scope.CREDENTIAL),
        _error(20429, "Too Many Requests", 429, Retryable, Scope.ACCOUNT),
        _error(63018, "Rate limit exceeded for Channel", 400, Retryable, Scope.ACCOUNT),
        _error(63016, "Outside the allowed window; use a template", 400, Rejected, Scope.MESSAGE),
        _error(63024, "Invalid message recipient", 400, Rejected, Scope.MESSAGE),
        _error(63013, "Channel policy violation", 400, Rejected, Scope.MESSAGE),
        _error(63021, "Channel invalid content", 400, Rejected, Scope.MESSAGE),
        DocumentedReply("an error of its own", 500, {"code": 20500, "message": "?"}, Unknown, None, ASSUMED),
    )
    notes = (
        "Text reaches people only within 24 hours after they wrote; before that, a template does (its ContentSid).",
        "Documents carry neither a caption nor a file name.",
        "A message is looked up by its SID; one whose reply was lost has none, and its status callback settles it.",
    )
    credential_fields = (
        CredentialField("account_sid", "the account's SID", secret=False, example="ACinvented"),
        CredentialField("auth_token", "the account's auth token, which also signs webhooks"),
        CredentialField(
            "sender",
            "the sending number in the form +E164, or a messaging service's SID (MG…)",
            secret=False,
            pattern=r"(whatsapp:)?\+?[1-9][0-9]{6,14}|MG[0-9A-Za-z]+",
            example="+14155238886",
        ),
        CredentialField("api_key_sid", "an API key's SID, to be used instead of the auth token", False, required=False),
        CredentialField("api_key_secret", "that API key's secret", required=False),
    )
    default_base_url = "https://api.twilio.com"
    allowed_hosts = ("api.twilio.com",)
    timeouts = Timeouts(connect_seconds=5.0, reply_seconds=30.0)
    takes_callback_url = True
    webhook_signature = (
        "X-Twilio-Signature: HMAC-SHA1 of the address and the sorted fields under the auth token, base64"
    )

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send. Numbers keep their ``+``, percent-encoded."""
        form = {"To": f"whatsapp:+{message.to}"}
        sender = account.credentials["sender"]
        if sender.startswith("MG"):
            form["MessagingServiceSid"] = sender
        else:
            form["From"] = "whatsapp:+" + sender.removeprefix("whatsapp:").lstrip("+")
        if message.kind == TEMPLATE:
            template = template_of(message.body)
            form["ContentSid"] = template.name
            if template.variables:
                form["ContentVariables"] = json.dumps(template.variables)
        elif message.body:
            form["Body"] = message.body
        if message.media_url:
            form["MediaUrl"] = message.media_url
        if account.callback_url:
            form["StatusCallback"] = account.callback_url_for(message.reference)
        return self.request_for(
            account, "POST", f"{_account_path(account)}/Messages.json", form=form, headers=_authorization(account)
        )

    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what a send's reply says: a SID is a success, an error has a code."""
        reply = json_object(body)
        if reply is None:
            return judge_status(status, headers)
        said, code, provider_id = text_of(reply.get("message")), reply.get("code"), id_of(reply.get("sid"))
        if isinstance(code, int) and not isinstance(code, bool):
            reason = f"({code}) {said}"
            if code in _THROTTLED:
                return Retryable("throttled", reason, retry_after(headers), Scope.ACCOUNT)
            if code in _CREDENTIAL:
                return Rejected("credential_refused", reason, Scope.CREDENTIAL)
            if code in _MESSAGE:
                return Rejected("message_refused", reason, Scope.MESSAGE)
            return judge_status(status, headers, reason)
        if provider_id is None:
            return judge_status(status, headers, said)
        if not 200 <= status < 300:
            reason = f"HTTP {status} with a success in the body"
            return Unknown("contradiction", reason, provider_id=provider_id)
        state = text_of(reply.get("status"))
        if state in _DROPPED:
            return Rejected("dropped_by_provider", f"Twilio answered {state}", Scope.MESSAGE)
        return Accepted(provider_id, state)

    def build_status(self, provider_id: str, recipient: str, account: Account) -> Request | None:
        """Return the question about one message by its SID."""
        del recipient
        path = f"{_account_path(account)}/Messages/{path_part(provider_id)}.json"
        return self.request_for(account, "GET", path, headers=_authorization(account))

    def parse_status(
        self, status: int, headers: Mapping[str, str], body: bytes, provider_id: str
    ) -> DeliveryReport | None:
        """Return the stage of the message."""
        del headers
        reply = json_object(body) or {}
        if status != 200 or id_of(reply.get("sid")) != provider_id:
            return None
        said = text_of(reply.get("error_message"))
        return _report(provider_id, text_of(reply.get("status")), id_of(reply.get("error_code")) or "", said)

    def build_check(self, account: Account) -> Request | None:
        """Return the question about the account."""
        return self.request_for(account, "GET", f"{_account_path(account)}.json", headers=_authorization(account))

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return whether the account is active."""
        del headers
        reply = json_object(body) or {}
        state = text_of(reply.get("status"))
        if status == 200 and state == "active":
            return AccountCheck(AccountState.CONNECTED, "active")
        if status == 200 and state in {"suspended", "closed"}:
            return AccountCheck(AccountState.REFUSED, f"the account is {state}")
        if isinstance(code := reply.get("code"), int) and code in _CREDENTIAL:
            return AccountCheck(AccountState.REFUSED, text_of(reply.get("message")))
        return judge_check_status(status, text_of(reply.get("message")))

    def verify_webhook(self, headers: Mapping[str, str], body: bytes, url: str, account: Account) -> bool:
        """Say whether the auth token signed the address and the fields, whether or not the address names its port."""
        fields = "".join(f"{name}{value}" for name, value in sorted(_form(body)))
        given = header(headers, "X-Twilio-Signature").strip().encode("utf-8", "surrogatepass")
        key = account.credentials["auth_token"].encode()
        matches = False
        for address in _spellings_of(url):
            signed = hmac.new(key, (address + fields).encode("utf-8", "surrogatepass"), hashlib.sha1)
            matches |= hmac.compare_digest(base64.b64encode(signed.digest()), given)
        return matches

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, account: Account) -> list[DeliveryReport]:
        """Return the stage that a status callback tells."""
        del headers, account
        fields = dict(_form(body))
        provider_id = id_of(fields.get("MessageSid"))
        if provider_id is None:
            return []
        report = _report(
            provider_id,
            fields.get("MessageStatus", ""),
            text_of(fields.get("ErrorCode")),
            text_of(fields.get("ErrorMessage")),
        )
        return [] if report is None else [report]


def _account_path(account: Account) -> str:
    return f"/2010-04-01/Accounts/{path_part(account.credentials['account_sid'])}"


def _authorization(account: Account) -> dict[str, str]:
    known = account.credentials
    if known.get("api_key_sid") and known.get("api_key_secret"):
        return basic_authorization(known["api_key_sid"], known["api_key_secret"])
    return basic_authorization(known["account_sid"], known["auth_token"])


def _form(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True)
    except ValueError:
        return []


def _spellings_of(url: str) -> tuple[str, ...]:
    """Return an address without and with its scheme's own port: Twilio signs either."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.netloc.rpartition("@")[2]
    except ValueError:
        return (url,)
    default = 443 if parts.scheme == "https" else 80
    if port is None:
        return url, urlunsplit(parts._replace(netloc=f"{host}:{default}"))
    return url, urlunsplit(parts._replace(netloc=host.rpartition(":")[0]))


def _report(provider_id: str, state: str, code: str, said: str) -> DeliveryReport | None:
    stage = _STAGES.get(state)
    if stage is None:
        return None
    if stage is Stage.FAILED:
        return DeliveryReport(stage, provider_id, code=code or state, reason=said or state)
    return DeliveryReport(stage, provider_id)


CONTRACT = Twilio()
