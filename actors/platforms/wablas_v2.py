"""Wablas by version 2 of its API: the same replies, reports and credentials, but JSON in a list of one.

Facts: https://www.wablas.com/documentation/api (2025-07-27).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.platforms.wablas import Wablas, authorization

if TYPE_CHECKING:
    from actors.platforms.contract import Account, PlatformMessage, Request


class WablasV2(Wablas):
    """The contract of Wablas, version 2."""

    name = "wablas_v2"
    title = "Wablas (API v2)"
    notes = (*Wablas.notes, "Up to 100 messages fit one request; each message goes alone, so that each has a reply.")

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send: ``data`` holds exactly one message."""
        item = {"phone": message.to}
        if message.kind == "text":
            item["message"] = message.body
        else:
            item[message.kind] = message.media_url
            if message.body:
                item["caption"] = message.body
        if message.to_group:
            item["isGroup"] = "true"
        item["ref_id"] = message.reference
        path = "/api/v2/send-message" if message.kind == "text" else f"/api/v2/send-{message.kind}"
        return self.request_for(
            account,
            "POST",
            path,
            json_body={"data": [item]},
            headers=authorization(account),
            reference=message.reference,
        )


CONTRACT = WablasV2()
