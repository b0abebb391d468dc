"""The form by which a message is sent from the browser."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from actors.messages import Media, SendMessage

if TYPE_CHECKING:
    from starlette.datastructures import FormData

_KEY = re.compile(r"browser-[0-9a-f]{32}")


def new_form_key() -> str:
    """Return the idempotency key of one form: sent twice (a double click, a reload), it sends one message."""
    return f"browser-{uuid.uuid4().hex}"


def message_of(form: FormData) -> SendMessage:
    """Return the message that a form describes; the router checks it."""
    media, key = _text(form, "media").strip(), _text(form, "key")
    return SendMessage(
        device=_text(form, "device").strip(),
        to=_text(form, "to").strip(),
        # Forms end lines with CR LF; what the recipient reads shall be what was typed.
        text=_text(form, "text").replace("\r\n", "\n"),
        media=Media(media, _text(form, "kind")) if media else None,
        idempotency_key=key if _KEY.fullmatch(key) else new_form_key(),
    )


def _text(form: FormData, field: str) -> str:
    value = form.get(field, "")
    return value if isinstance(value, str) else ""
