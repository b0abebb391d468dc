"""Meta WhatsApp Cloud API, without anybody between.

Facts: https://developers.facebook.com/documentation/business-messaging/whatsapp/ ; see ``cloud_api.py``.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from actors.platforms.cloud_api import CloudApi
from actors.platforms.contract import Account, CredentialField, PlatformMessage, Request, path_part
from actors.platforms.outcomes import AccountCheck, AccountState
from actors.platforms.replies import id_of, json_object, judge_check_status, text_of, value_at
from actors.platforms.webhooks import is_signed_in_hex

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_VERSION = "v23.0"
#: Error codes that mean the token is no good (0, 190) or may not do this (3, 10, 200 to 299).
_REFUSED_CODES = frozenset({0, 3, 10, 190, *range(200, 300)})


class MetaCloud(CloudApi):
    """The contract of Meta's own door."""

    name = "meta_cloud"
    title = "Meta Cloud API"
    documentation = "https://developers.facebook.com/documentation/business-messaging/whatsapp/"
    notes = (
        "Text reaches people only within 24 hours after they wrote; before that, a template does.",
        "Up to 80 messages a second and number (20 with app coexistence); Meta raises it by itself.",
        "Many refusals come later, by webhook.",
        "No message can be looked up; a webhook settles a doubt, as it brings the reference back.",
    )
    credential_fields = (
        CredentialField("access_token", "the access token", example="EAAinvented"),
        CredentialField(
            "phone_number_id", "the id of the sending phone number", secret=False, example="106540352242922"
        ),
        CredentialField("app_secret", "the app's secret, which signs webhooks", required=False),
        CredentialField("verify_token", "the word by which Meta verifies the webhook's address", required=False),
        CredentialField(
            "api_version",
            "a version of the Graph API",
            secret=False,
            required=False,
            pattern=r"v[0-9]{1,3}\.[0-9]{1,2}",
            example=_DEFAULT_VERSION,
        ),
    )
    default_base_url = "https://graph.facebook.com"
    allowed_hosts = ("graph.facebook.com",)
    webhook_signature = "X-Hub-Signature-256: HMAC-SHA256 of the raw body under the app secret, in hex"

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send through the phone number's own path."""
        return self.send_request(message, account, f"{_number_path(account)}/messages", _authorization(account))

    def build_check(self, account: Account) -> Request | None:
        """Return the question about the phone number."""
        fields = {"fields": "id,display_phone_number,verified_name"}
        return self.request_for(account, "GET", _number_path(account), query=fields, headers=_authorization(account))

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return whether the token may use the number."""
        del headers
        reply = json_object(body) or {}
        if 200 <= status < 300 and "error" not in reply and id_of(reply.get("id")) is not None:
            return AccountCheck(AccountState.CONNECTED, text_of(reply.get("display_phone_number")))
        said, code = text_of(value_at(reply, "error.message")), value_at(reply, "error.code")
        if isinstance(code, int) and code in _REFUSED_CODES:
            return AccountCheck(AccountState.REFUSED, said)
        return judge_check_status(status, said)

    def answer_challenge(self, query: Mapping[str, str], account: Account) -> str | None:
        """Return the challenge when Meta shows the word that was agreed upon."""
        expected = account.credentials.get("verify_token", "")
        given = query.get("hub.verify_token", "")
        if query.get("hub.mode") != "subscribe" or not expected:
            return None
        return (
            query.get("hub.challenge")
            if hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))
            else None
        )

    def verify_webhook(self, headers: Mapping[str, str], body: bytes, url: str, account: Account) -> bool:
        """Say whether the app's secret signed the body. Without the secret no webhook is believed."""
        del url
        key = account.credentials.get("app_secret", "")
        return is_signed_in_hex(headers, "X-Hub-Signature-256", body, key, "sha256", prefix="sha256=")


def _number_path(account: Account) -> str:
    version = account.credentials.get("api_version") or _DEFAULT_VERSION
    return f"/{path_part(version)}/{path_part(account.credentials['phone_number_id'])}"


def _authorization(account: Account) -> dict[str, str]:
    return {"Authorization": f"Bearer {account.credentials['access_token']}"}


CONTRACT = MetaCloud()
