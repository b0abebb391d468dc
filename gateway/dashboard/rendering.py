"""Templates, and the few things that they can do."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from config.durations import duration
from gateway.dashboard.states import DEVICE_STATES, GROUPS, MESSAGE_STATES, look_of


@cache
def environment() -> jinja2.Environment:
    """Return the templates. Everything put into them is escaped, and a misspelt name is an error, not nothing."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("gateway.dashboard", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    pages.filters.update(moment=moment, since=since, look=look_of, duration=duration, segment=segment, shorten=shorten)
    pages.globals.update(static=static_url, device_states=DEVICE_STATES, groups=GROUPS, message_states=MESSAGE_STATES)
    return pages


def moment(when: datetime | None) -> Markup:
    """Return a moment, which the browser shows as how long ago it is; without scripts it stands there in UTC."""
    if when is None:
        return Markup("–")
    utc = when.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        utc.isoformat(timespec="milliseconds"), utc.strftime("%Y-%m-%d %H:%M:%S")
    )


def since(when: datetime) -> Markup:
    """Return how long something lasts already; without scripts, since when."""
    utc = when.astimezone(UTC)
    return Markup('<time datetime="{}" data-lasts>since {} UTC</time>').format(
        utc.isoformat(timespec="milliseconds"), utc.strftime("%Y-%m-%d %H:%M:%S")
    )


def segment(name: str) -> str:
    """Return a name as one segment of an address."""
    return quote(name, safe="")


def shorten(text: str, length: int = 80) -> str:
    """Return the beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


@cache
def static_url(name: str) -> str:
    """Return the address of a static file; it changes with the content, so that browsers may keep it for ever."""
    digest = hashlib.sha256((files("gateway.dashboard") / "static" / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"
