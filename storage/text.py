"""Which text PostgreSQL can hold: all but NUL characters and halves of surrogate pairs."""

from __future__ import annotations

from typing import Any


def storable(text: str) -> str:
    """Return ``text`` with a replacement character for each that cannot be stored.

    For words that come from elsewhere (a stranger's message, a library's error), so that none of them can make a
    statement fail. What is accepted to be sent is checked beforehand, and never altered.
    """
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def is_storable(text: str) -> bool:
    """Return whether ``text`` can be stored as it is."""
    return storable(text) == text


def storable_value(value: Any) -> Any:
    """Return a JSON value with every text in it made storable."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable_value(key): storable_value(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [storable_value(each) for each in value]
    return value
