"""A loopback Meta Cloud API: JSON under a bearer token, below the phone number's path."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from simulator.platforms.cloud_api import CloudApiStandIn, error_answer
from simulator.platforms.http import Answer, json_answer

if TYPE_CHECKING:
    from simulator.platforms.http import HttpRequest
    from simulator.platforms.records import Send
    from simulator.platforms.stand_in import Callback, Taken

_PATH = re.compile(r"/v[0-9]+\.[0-9]+/(?P<number>[^/]+)(?P<action>/messages)?")


class MetaCloudStandIn(CloudApiStandIn):
    """Sends and the phone number's own page."""

    name = "meta_cloud"
    base_path = ""
    default_account = MappingProxyType(
        {
            "access_token": "invented-meta-token",
            "phone_number_id": "106540352242922",
            "app_secret": "invented-app-secret",
            "verify_token": "invented-verify-token",
        }
    )

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""
        del connected
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or self.account_with(access_token=token) is None:
            return error_answer(401, 190, "Invalid OAuth access token")
        path = _PATH.fullmatch(request.path)
        account = self.account_with(access_token=token, phone_number_id=path["number"]) if path else None
        if path is None or account is None:
            return error_answer(400, 100, "Unsupported request: object does not exist")
        if path["action"]:
            return self.take(request, account)
        return json_answer(200, {"id": path["number"], "display_phone_number": "+62 000", "verified_name": account})

    def signed(self, callback: Callback, send: Send) -> Callback:
        """Return the webhook signed with the app's secret."""
        key = self.credentials_of(send).get("app_secret", "").encode()
        signature = "sha256=" + hmac.new(key, callback.body, hashlib.sha256).hexdigest()
        return replace(callback, headers={"X-Hub-Signature-256": signature})


STAND_IN = MetaCloudStandIn
