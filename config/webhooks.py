"""Where providers report: a secret address for each device, the same after every restart."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from config.home import Home
    from config.settings import Settings


def webhook_secret(home: Home, device: str) -> str:
    """Return the secret in a device's webhook address: derived from the home's key, so nothing needs to be stored."""
    return hmac.new(home.credentials_key.read_bytes(), f"webhook/{device}".encode(), hashlib.sha256).hexdigest()[:40]


def webhook_path(home: Home, device: str) -> str:
    """Return the path of a device's webhook address. It holds the secret."""
    return f"/webhooks/{webhook_secret(home, device)}/{quote(device, safe='')}"


def webhook_base_url(settings: Settings) -> str:
    """Return the address under which providers reach the listener: the configured one, or where it listens."""
    if settings.webhook_base_url:
        return settings.webhook_base_url.rstrip("/")
    host = f"[{settings.webhook_address}]" if ":" in settings.webhook_address else settings.webhook_address
    return f"http://{host}:{settings.webhook_port}"


def callback_url(home: Home, settings: Settings, device: str, *, loopback: bool) -> str:
    """Return the address to name in a send, for providers that take one with each message; "": none.

    A provider refuses a message that names an address it cannot reach, so the listener's own address is named only to
    the stand-ins on this machine (``loopback``); the real ones are told the configured one.
    """
    if not settings.webhook_port or not (settings.webhook_base_url or loopback):
        return ""
    return webhook_base_url(settings) + webhook_path(home, device)
