"""The description of a small gateway, from which the ``http`` platform makes requests and reads replies.

It is TOML (or the same as JSON):

    hosts = ["gateway.example.com"]             # where requests may go; the base URL names one of them

    [send]
    path = "/v1/send"                           # below the base URL
    headers = { Authorization = "Bearer {token}" }
    json = { to = "{to}", text = "{text}", ref = "{reference}" }     # or: form = { … }

    [media]                                     # left out: people get the media's address as text
    path = "/v1/send-media"
    json = { to = "{to}", url = "{media_url}", caption = "{text}", type = "{kind}", name = "{media_name}" }

    [reply]
    accepted = { path = "status", equals = true }      # the success marker; without equals: any id
    id = "data.id"
    reason = "message"
    refused = { path = "status", equals = false }      # the gateway says that it did not take the message

    [[reply.failures]]                          # what a text in the reply means, first match wins
    contains = "quota"
    outcome = "retry"                           # or "rejected"
    scope = "account"                           # message, credential, device, account, service
    seconds = 3600

    [check]                                     # optional: a GET that tells how the account is
    path = "/v1/device"
    headers = { Authorization = "Bearer {token}" }
    connected = { path = "device", equals = "online" }
    disconnected = { path = "device", equals = "offline" }

    [webhook]                                   # optional: where a JSON webhook tells a message's stage
    id = "id"
    reference = "ref"
    status = "status"
    stages = { sent = "sent", delivered = "delivered", read = "read", failed = "failed" }    # its word = our stage

Placeholders: {to} {text} {kind} {media_url} {media_name} {reference}, and of the account {token} {secret} {sender}.
Headers hold those of the account alone.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from actors.platforms.outcomes import Scope
from actors.platforms.replies import id_of, value_at
from actors.platforms.webhooks import Stage

ACCOUNT_PLACEHOLDERS = frozenset({"token", "secret", "sender"})
MESSAGE_PLACEHOLDERS = frozenset({"to", "text", "kind", "media_url", "media_name", "reference"})
_PLACEHOLDER = re.compile(r"\{([a-z_]*)\}")
_PATH = re.compile(r"(/[A-Za-z0-9._~%-]+)+/?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,60}")
_HOST = re.compile(r"[a-z0-9.*:-]{1,253}")
#: Headers that the transport sets itself.
_OWN_HEADERS = frozenset({"host", "content-length", "content-type", "connection", "transfer-encoding", "expect"})
_DEEPEST = 20
_SCALARS = (str, int, float, bool)


class DescriptionInvalid(ValueError):
    """A description cannot be used; the message says where."""


@dataclass(frozen=True)
class Mark:
    """A place in a reply and what stands there; without ``equals`` anything that can be an id."""

    path: str
    equals: object = None

    def holds(self, reply: object) -> bool:
        """Say whether ``reply`` holds exactly this."""
        found = value_at(reply, self.path)
        if self.equals is None:
            return id_of(found) is not None
        return type(found) is type(self.equals) and found == self.equals


@dataclass(frozen=True)
class Call:
    """One request: where it goes and what it carries. ``form`` and ``json`` are None where not used."""

    path: str
    headers: dict[str, str]
    form: dict[str, str] | None
    json: Any

    def filled_path(self, values: dict[str, str]) -> str:
        """Return the path with ``values`` in the place of the placeholders, each one segment at most."""
        return _PLACEHOLDER.sub(lambda found: quote(values[found[1]], safe=""), self.path)


@dataclass(frozen=True)
class Failure:
    """What a text in a reply means."""

    contains: str
    retry: bool
    scope: Scope
    seconds: float


@dataclass(frozen=True)
class Description:
    """A gateway."""

    hosts: tuple[str, ...]
    send: Call
    media: Call | None
    accepted: Mark
    id_path: str
    reason_path: str
    refused: Mark | None
    failures: tuple[Failure, ...]
    check: Call | None = None
    connected: Mark | None = None
    disconnected: Mark | None = None
    report: dict[str, str] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)


def filled(template: Any, values: dict[str, str]) -> Any:
    """Return ``template`` (text, or JSON with texts inside) with ``values`` in the place of the placeholders."""
    if isinstance(template, str):
        # One pass: what a value holds is never taken for a placeholder.
        return _PLACEHOLDER.sub(lambda found: values[found[1]], template)
    if isinstance(template, dict):
        return {name: filled(inner, values) for name, inner in template.items()}
    if isinstance(template, list):
        return [filled(inner, values) for inner in template]
    return template


@lru_cache(maxsize=256)
def description_of(text: str) -> Description:
    """Return the gateway that ``text`` describes.

    Raises:
        DescriptionInvalid: it describes none.
    """
    given = _read(text)
    _expect(given, {"title", "documentation", "hosts", "send", "media", "reply", "check", "webhook"}, "description")
    hosts = given.get("hosts")
    if (
        not isinstance(hosts, list)
        or not hosts
        or not all(isinstance(each, str) and _HOST.fullmatch(each) for each in hosts)
    ):
        raise DescriptionInvalid("hosts is a list of host names in lower case")
    if "*" in hosts:
        raise DescriptionInvalid("hosts names hosts; * allows every one")
    reply = _table(given, "reply", {"accepted", "id", "reason", "refused", "failures"})
    send = _call(given, "send", MESSAGE_PLACEHOLDERS, {"to", "text"})
    media = _call(given, "media", MESSAGE_PLACEHOLDERS, {"to", "media_url"}) if "media" in given else None
    check = _call(given, "check", frozenset(), set()) if "check" in given else None
    checked = given.get("check", {})
    webhook = _table(given, "webhook", {"id", "reference", "status", "stages"}) if "webhook" in given else {}
    accepted = _mark(reply, "accepted")
    if accepted is None:
        raise DescriptionInvalid("reply.accepted is missing: without a marker nothing is ever accepted")
    return Description(
        hosts=tuple(hosts),
        send=send,
        media=media,
        accepted=accepted,
        id_path=_text(reply, "id"),
        reason_path=_text(reply, "reason"),
        refused=_mark(reply, "refused"),
        failures=tuple(_failure(each) for each in _list(reply, "failures")),
        check=check,
        connected=_mark(checked, "connected"),
        disconnected=_mark(checked, "disconnected"),
        report={name: _text(webhook, name) for name in ("id", "reference", "status")},
        stages=_stages(webhook),
    )


def _read(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError):
        raise DescriptionInvalid("it is neither TOML nor JSON") from None
    if not isinstance(given, dict) or _depth(given) > _DEEPEST:
        raise DescriptionInvalid("it is no table, or has tables within tables without end")
    return given


def _depth(value: object) -> int:
    """Return how deep tables and lists are nested, without recursion: the text comes from outside."""
    depth, level = 0, [value]
    while level and depth <= _DEEPEST:
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        depth += 1
    return depth


def _expect(given: dict[str, Any], known: set[str], where: str) -> None:
    # Unknown names are not repeated: a misplaced credential may stand there.
    if set(given) - known:
        raise DescriptionInvalid(f"{where} knows {', '.join(sorted(known))} and nothing else")


def _table(given: dict[str, Any], name: str, known: set[str]) -> dict[str, Any]:
    table = given.get(name)
    if not isinstance(table, dict):
        raise DescriptionInvalid(f"{name} is missing or no table")
    _expect(table, known, name)
    return table


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str) or len(value) > 200:
        raise DescriptionInvalid(f"{name} is no text")
    return value


def _list(given: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = given.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise DescriptionInvalid(f"{name} is no list of tables")
    return value


def _mark(given: dict[str, Any], name: str) -> Mark | None:
    if name not in given:
        return None
    mark = _table(given, name, {"path", "equals"})
    path, equals = _text(mark, "path"), mark.get("equals")
    if not path or not (equals is None or isinstance(equals, _SCALARS)):
        raise DescriptionInvalid(f"{name} has a path, and a text, number or truth value to equal")
    if equals is None and name != "accepted":
        raise DescriptionInvalid(f"{name} has a value to equal")
    return Mark(path, equals)


def _call(given: dict[str, Any], name: str, allowed: frozenset[str], needed: set[str]) -> Call:
    known = {"path", "headers", "form", "json"} if needed else {"path", "headers", "connected", "disconnected"}
    table = _table(given, name, known)
    path, headers, form, body = _text(table, "path"), table.get("headers", {}), table.get("form"), table.get("json")
    every = allowed | ACCOUNT_PLACEHOLDERS
    if not _PATH.fullmatch(_PLACEHOLDER.sub("x", path)) or {".", ".."} & set(path.split("/")):
        raise DescriptionInvalid(f"{name}.path begins with / and holds letters, digits, . _ ~ % - and placeholders")
    if not isinstance(headers, dict) or not all(_is_header(*each) for each in headers.items()):
        raise DescriptionInvalid(f"{name}.headers are names and printable texts, none that the transport sets itself")
    if needed and (form is None) == (body is None):
        raise DescriptionInvalid(f"{name} has either form or json")
    if form is not None and not (isinstance(form, dict) and all(isinstance(each, str) for each in form.values())):
        raise DescriptionInvalid(f"{name}.form is a table of texts")
    if not _is_plain(body):
        raise DescriptionInvalid(f"{name}.json holds tables, lists, texts, numbers and truth values")
    used = _placeholders(path) | _placeholders(form) | _placeholders(body)
    if not used <= every or not _placeholders(headers) <= ACCOUNT_PLACEHOLDERS:
        raise DescriptionInvalid(f"{name} has an unknown placeholder, or one of the message in its headers")
    if not needed <= used:
        raise DescriptionInvalid(f"{name} has no place for {', '.join(sorted(needed - used))}")
    return Call(path, headers, form, body)


def _is_host(value: object) -> bool:
    return isinstance(value, str) and _HOST.fullmatch(value) is not None


def _is_header(name: str, value: object) -> bool:
    if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS or not isinstance(value, str):
        return False
    return value.isascii() and value.isprintable()


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(inner) for name, inner in value.items())
    if isinstance(value, list):
        return all(_is_plain(inner) for inner in value)
    return value is None or isinstance(value, _SCALARS)


def _placeholders(template: object) -> set[str]:
    if isinstance(template, str):
        return set(_PLACEHOLDER.findall(template))
    if isinstance(template, dict):
        return set().union(*map(_placeholders, template.values()))
    if isinstance(template, list):
        return set().union(*map(_placeholders, template))
    return set()


def _failure(given: dict[str, Any]) -> Failure:
    _expect(given, {"contains", "outcome", "scope", "seconds"}, "reply.failures")
    contains, seconds = _text(given, "contains").lower(), given.get("seconds", 60)
    if not contains or _text(given, "outcome") not in {"retry", "rejected"}:
        raise DescriptionInvalid('a failure contains a text, and its outcome is "retry" or "rejected"')
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= 86_400:
        raise DescriptionInvalid("a failure's seconds are 1 to 86400")
    try:
        scope = Scope(given.get("scope", "message"))
    except ValueError:
        raise DescriptionInvalid(f"a failure's scope is one of {', '.join(Scope)}") from None
    return Failure(contains, given["outcome"] == "retry", scope, float(seconds))


def _stages(webhook: dict[str, Any]) -> dict[str, Stage]:
    stages = webhook.get("stages", {})
    if not isinstance(stages, dict):
        raise DescriptionInvalid("webhook.stages is a table: the gateway's word = our stage")
    try:
        return {word: Stage(stage) for word, stage in stages.items()}
    except ValueError:
        raise DescriptionInvalid(f"webhook.stages are {', '.join(Stage)}") from None
