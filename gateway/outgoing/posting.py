"""One request to an endpoint: signed, to an address that was checked, within a deadline, and never followed elsewhere.

Signed after the Standard Webhooks specification (https://www.standardwebhooks.com, 1.0): the headers ``webhook-id``,
``webhook-timestamp`` and ``webhook-signature`` (``v1,`` and the base64 HMAC-SHA256 of id, timestamp and body).
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import requests
from standardwebhooks.webhooks import Webhook

from actors.endpoint_requests import address_rule
from actors.platforms.connections import OneAttemptAdapter, attempt
from actors.public_addresses import AddressRefused
from gateway.outgoing.verdicts import Answer, NoAnswer

if TYPE_CHECKING:
    from actors.public_addresses import Network
    from storage.endpoint_deliveries import Delivery

#: How long a connection, and a whole attempt, may take, in seconds.
_CONNECT_SECONDS = 5.0
ATTEMPT_SECONDS = 15.0
#: How much of an answer is read, in bytes.
_READ_LIMIT = 4096


@dataclass(frozen=True)
class Target:
    """Where an endpoint is, and the secret that its deliveries are signed with (``whsec_…``)."""

    url: str
    secret: str


class Poster:
    """Posts for any number of threads over shared connections.

    Args:
        networks: private networks that endpoints may be in.
        connections: how many idle connections to one host are kept.
    """

    def __init__(self, networks: tuple[Network, ...], connections: int) -> None:
        self._networks = networks
        self._adapter = OneAttemptAdapter(connections)

    def post(self, target: Target, delivery: Delivery) -> Answer | NoAnswer:
        """Make one attempt and return what came of it. Nothing raises."""
        attempt.deadline = time.monotonic() + ATTEMPT_SECONDS
        attempt.rule = address_rule(target.url, self._networks)
        try:
            return self._post(target, delivery)
        except AddressRefused:
            return NoAnswer("Its name leads into a private network (see the setting endpoint_networks).")
        except Exception as error:  # noqa: BLE001 - its text may hold the URL, and the URL a secret
            return NoAnswer(_words(error))
        finally:
            attempt.deadline = attempt.rule = None

    def _post(self, target: Target, delivery: Delivery) -> Answer:
        body = json.dumps(delivery.body, ensure_ascii=False, separators=(",", ":"))
        request = requests.PreparedRequest()
        request.prepare(
            "POST",
            target.url,
            headers={
                "User-Agent": "Salamander",
                "Content-Type": "application/json",
                **signed(target.secret, delivery.webhook_id, body),
            },
            data=body.encode(),
        )
        # Without a session: nothing follows redirects, and nothing is taken from the environment.
        response = self._adapter.send(request, stream=True, timeout=(_CONNECT_SECONDS, ATTEMPT_SECONDS), verify=True)
        with closing(response):
            read = bytearray()
            for piece in response.iter_content(_READ_LIMIT):
                read += piece
                if len(read) >= _READ_LIMIT:
                    break
            return Answer(response.status_code, bytes(read), _seconds(response.headers.get("Retry-After", "")))


def signed(secret: str, webhook_id: str, body: str) -> dict[str, str]:
    """Return the headers that let the receiver believe ``body``."""
    now = datetime.now(UTC)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, now, body),
    }


def _seconds(retry_after: str) -> float | None:
    """Return a Retry-After in seconds; dates are left alone."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdecimal() and len(retry_after) < 8 else None


def _words(error: Exception) -> str:
    # ConnectTimeout and SSLError are ConnectionErrors too, so the order of these questions matters.
    if isinstance(error, requests.exceptions.SSLError):
        return "No secure connection: is its certificate valid?"
    if isinstance(error, requests.exceptions.Timeout | TimeoutError):
        return f"No answer within {ATTEMPT_SECONDS:g} seconds."
    if isinstance(error, requests.exceptions.ConnectionError):
        return "No connection, or it broke before the answer was there."
    return f"The request failed ({type(error).__name__})."
