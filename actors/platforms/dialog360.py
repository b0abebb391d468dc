"""360dialog: the Cloud API behind another door, with a key instead of a token.

Facts: https://docs.360dialog.com (guides, api-error-message-list, messaging-health-status, webhooks); the shape of
its own errors is not documented, so their words are looked for wherever they stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.platforms.cloud_api import CloudApi
from actors.platforms.cloud_api_errors import knows
from actors.platforms.contract import Account, CredentialField, PlatformMessage, Request
from actors.platforms.documented import ASSUMED, DocumentedReply
from actors.platforms.outcomes import AccountCheck, AccountState, Outcome, Rejected, Retryable, Scope
from actors.platforms.replies import (
    all_text_of,
    holds_any,
    json_object,
    judge_check_status,
    retry_after,
    text_of,
    value_at,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_THROTTLE_TEXTS = ("rate limit",)
_ACCOUNT_TEXTS = ("disabled", "payment")
#: The wait after a throttle that names none, in seconds.
_THROTTLED = 5.0


class Dialog360(CloudApi):
    """The contract of 360dialog."""

    name = "dialog360"
    title = "360dialog"
    documentation = "https://docs.360dialog.com/"
    replies = (
        *CloudApi.replies,
        DocumentedReply(
            "its own throttle, under HTTP 400",
            400,
            {"meta": {"developer_message": "You have exceeded the endpoint rate limit"}},
            Retryable,
            Scope.ACCOUNT,
        ),
        DocumentedReply(
            "its own throttle, in Meta's shape under a code of its own",
            400,
            {"error": {"message": "You have exceeded the endpoint rate limit", "code": 400}},
            Retryable,
            Scope.ACCOUNT,
            ASSUMED,
        ),
        DocumentedReply(
            "the number is disabled, or its payment is missing",
            400,
            {"meta": {"developer_message": "Number is disabled"}},
            Rejected,
            Scope.ACCOUNT,
        ),
        DocumentedReply(
            "wrong key", 401, {"meta": {"developer_message": "Invalid api key"}}, Rejected, Scope.CREDENTIAL
        ),
        DocumentedReply("other words under HTTP 400", 400, {"detail": "?"}, Rejected, Scope.MESSAGE, ASSUMED),
    )
    notes = (
        "The rules of the Cloud API hold: 24 hours after the person wrote, only a template reaches them.",
        "Webhooks are not signed, and want an answer within 250 ms.",
    )
    credential_fields = (CredentialField("api_key", "the key of the number (D360-API-KEY)"),)
    default_base_url = "https://waba-v2.360dialog.io"
    allowed_hosts = ("waba-v2.360dialog.io",)

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send; the key names the number."""
        return self.send_request(message, account, "/messages", _authorization(account))

    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what a reply says: Meta's own verdict, else 360dialog's words under HTTP 400."""
        if status == 400:
            reply = json_object(body)
            said = all_text_of(reply) if reply is not None else text_of(body[:300].decode("utf-8", "replace"))
            # A code that Meta does not know (400 itself) is 360dialog's own, and its words decide.
            if not knows(value_at(reply, "error.code")):
                if holds_any(said, _THROTTLE_TEXTS):
                    return Retryable("throttled", said, retry_after(headers, _THROTTLED), Scope.ACCOUNT)
                if holds_any(said, _ACCOUNT_TEXTS):
                    return Rejected("account_blocked", said, Scope.ACCOUNT)
        return super().parse_reply(status, headers, body)

    def build_check(self, account: Account) -> Request | None:
        """Return the question about the number's health."""
        return self.request_for(account, "GET", "/health_status", headers=_authorization(account))

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return whether the number may send."""
        del headers
        reply = json_object(body) or {}
        health = text_of(value_at(reply, "health_status.can_send_message"))
        if status == 200 and health in {"AVAILABLE", "LIMITED"}:
            return AccountCheck(AccountState.CONNECTED, health.lower())
        if status == 200 and health == "BLOCKED":
            return AccountCheck(AccountState.DISCONNECTED, "blocked: see the number's health at 360dialog")
        return judge_check_status(status, all_text_of(reply))


def _authorization(account: Account) -> dict[str, str]:
    return {"D360-API-KEY": account.credentials["api_key"]}


CONTRACT = Dialog360()
