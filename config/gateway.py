"""Where the gateway listens: the configured port, or one that was picked once and is kept in the home."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from config.home import Home
    from config.settings import Settings


def kept_port(home: Home) -> int | None:
    """Return the port that was picked for this home, or None when none was yet."""
    try:
        port = int(home.gateway_port.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return port if 0 < port < 65536 else None


def keep_port(home: Home, port: int) -> None:
    """Remember the port that was picked, whole or not at all."""
    fresh = home.gateway_port.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{port}\n")
    fresh.replace(home.gateway_port)


def gateway_url(home: Home, settings: Settings) -> str | None:
    """Return the address of the API and the dashboard; None: switched off, or not up for the first time yet."""
    port = settings.gateway_port or kept_port(home)
    if not settings.gateway_enabled or port is None:
        return None
    host = f"[{settings.gateway_address}]" if ":" in settings.gateway_address else settings.gateway_address
    return f"http://{host}:{port}"
