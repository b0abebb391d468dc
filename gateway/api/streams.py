"""Server-sent events: the same address as the list, for who accepts ``text/event-stream`` (as an EventSource does)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header

EVENT_STREAM = "text/event-stream"

#: What a client accepts; browsers and libraries set it by themselves.
Accept = Annotated[str | None, Header(include_in_schema=False)]


def wants_stream(accept: str | None) -> bool:
    """Return whether a client accepts a stream of events."""
    return accept is not None and EVENT_STREAM in accept


def streamed(words: str) -> dict[str, Any]:
    """Return the documentation of an answer that may be a stream, ``words`` saying what is streamed."""
    return {"description": words, "content": {EVENT_STREAM: {"schema": {"type": "string"}}}}
