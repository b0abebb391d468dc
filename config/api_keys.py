"""API keys: how one is made and told apart. ``sal_PUBLIC_SECRET``: the middle may be shown, the whole only once."""

from __future__ import annotations

import hashlib
import re
import secrets

#: What a key may be used for; each scope includes the ones before it.
SCOPES = ("read", "send", "admin")
_FORM = re.compile(r"sal_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


def new_key() -> str:
    """Return a new key. Its secret has 256 random bits."""
    return f"sal_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"


def public_id(key: str) -> str | None:
    """Return the part of a key that may be shown, or None when it is no key at all."""
    found = _FORM.fullmatch(key)
    return found.group(1) if found else None


def digest_of(key: str) -> bytes:
    """Return what is kept of a key.

    SHA-256 is enough: a slow hash protects words that people choose and that can be guessed one after the other. 256
    random bits cannot, and the check is made at every request.
    """
    return hashlib.sha256(key.encode()).digest()
