"""A loopback 360dialog: the Cloud API's messages under a key, with errors of its own."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from simulator.platforms.cloud_api import CloudApiStandIn
from simulator.platforms.http import Answer, json_answer

if TYPE_CHECKING:
    from simulator.platforms.http import HttpRequest
    from simulator.platforms.stand_in import Taken


class Dialog360StandIn(CloudApiStandIn):
    """Sends and the number's health."""

    name = "dialog360"
    base_path = ""
    default_account = MappingProxyType({"api_key": "invented-360-key"})

    def judge(self, request: HttpRequest, *, connected: bool) -> Answer | Taken:
        """Return the answer, or the send."""
        account = self.account_with(api_key=request.headers.get("d360-api-key", ""))
        if account is None:
            return _failure(401, "Invalid api key")
        if request.path == "/messages":
            return self.take(request, account)
        if request.path == "/health_status" and request.method == "GET":
            health = "AVAILABLE" if connected else "BLOCKED"
            return json_answer(200, {"health_status": {"can_send_message": health, "entities": []}})
        return _failure(404, "not found")

    def refusal(self, fault: str) -> Answer | None:
        """Return 360dialog's failures; what WhatsApp refuses comes in Meta's shape."""
        return _failure(401, "Invalid api key") if fault == "bad-credential" else super().refusal(fault)

    def throttle(self) -> Answer:
        """Return 360dialog's throttle, which comes under HTTP 400."""
        return _failure(400, "You have exceeded the endpoint rate limit")


def _failure(status: int, message: str) -> Answer:
    return json_answer(status, {"meta": {"success": False, "http_code": status, "developer_message": message}})


STAND_IN = Dialog360StandIn
