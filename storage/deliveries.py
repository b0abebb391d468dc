"""Delivery reports of platforms: written down, tied to their messages, applied; in any order, any number of times."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg

from storage import events
from storage.database import Connection, Row
from storage.events import Event
from storage.sql import queries
from storage.text import storable

_SQL = queries("deliveries")

Cursor = psycopg.Cursor[Row]

#: A longer name is kept as its beginning and its hash, so that it fits into an index with a stage behind it.
_NAME_LIMIT = 200
#: Our own name for an attempt at a provider (see ``reference_of``).
_REFERENCE = re.compile(r"([1-9][0-9]{0,17})-([0-9a-f]{16})")


@dataclass(frozen=True)
class Report:
    """How far one message came, as its provider tells it.

    Attributes:
        stage: sent, delivered, read or failed.
        provider_id: the provider's id of the message.
        reference: our own name for the attempt, where the provider sends it back.
        alias: another name of the provider for the message.
        reason: the provider's words for a failure.
    """

    stage: str
    provider_id: str | None = None
    reference: str | None = None
    alias: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Known:
    """A message, its device, and the names it is known by at the provider."""

    message_id: int
    device_id: int
    names: tuple[str, ...]


def reference_of(message_id: int, secret: bytes) -> str:
    """Return our name for an attempt at a provider: unique for ever, and found again from the attempt's row."""
    return f"{message_id}-{secret.hex()[:16]}"


def reference_name(reference: str) -> str:
    """Return the name under which reports about our own reference are kept."""
    return name_of(f"reference:{reference}")


def name_of(text: str) -> str:
    """Return a provider's name for a message as it is stored."""
    name = storable(text)
    if len(name) <= _NAME_LIMIT:
        return name
    return name[: _NAME_LIMIT - 64] + hashlib.sha256(name.encode()).hexdigest()


def lock(connection: Connection, names: Iterable[str]) -> None:
    """Let one at a time of those go on that learn a message's names and those that bring its reports."""
    connection.execute(queries("outbox")["lock_external_ids"], {"external_ids": sorted(set(names))})


def receive(connection: Connection, device_id: int, reports: Sequence[Report]) -> dict[int, str]:
    """Write reports down, and apply to their messages what is news; return the messages that moved, with their states.

    A report about an unknown message is kept: the message may become known under that name yet.
    """
    told = [_Told.of(report) for report in reports]
    lock(connection, (name for each in told for name in each.names))
    events.record(connection, device_id, [each.event for each in told])
    _tie(connection, device_id, told)
    _identify(connection, device_id, told)
    messages = _messages_of(connection, device_id, told)
    arrived = [(messages[each.names[0]], each.report) for each in told if each.names[0] in messages]
    # A tie may have told whom earlier reports were about; so what is known under every name is applied, too.
    known = [Known(message_id, device_id, (name,)) for name, message_id in messages.items()]
    return {row["id"]: row["state"] for row in apply(connection, known, arrived)}


def apply(connection: Connection, known: Sequence[Known], reports: Sequence[tuple[int, Report]] = ()) -> Cursor:
    """Apply to messages what was reported about them before, and these reports; return a cursor on those that moved."""
    named = [(each, name) for each in known for name in each.names]
    return connection.execute(
        _SQL["apply"],
        {
            "named_ids": [each.message_id for each, _ in named],
            "device_ids": [each.device_id for each, _ in named],
            "names": [name for _, name in named],
            "message_ids": [message_id for message_id, _ in reports],
            "stages": [report.stage for _, report in reports],
            "reasons": [storable(report.reason) for _, report in reports],
        },
    )


@dataclass(frozen=True)
class _Told:
    """A report with the names it gives its message, the most certain first."""

    report: Report
    names: tuple[str, ...]

    @classmethod
    def of(cls, report: Report) -> _Told:
        names = (
            name_of(report.provider_id) if report.provider_id else "",
            reference_name(report.reference) if report.reference else "",
            name_of(f"alias:{report.alias}") if report.alias else "",
        )
        return cls(report, tuple(filter(None, names)))

    @property
    def event(self) -> Event:
        report = self.report
        body = {
            "message_id": report.provider_id or report.reference or report.alias,
            "stage": report.stage,
            "reference": report.reference,
            "alias": report.alias,
            "reason": report.reason,
        }
        return Event("receipt", f"{self.names[0]}:{report.stage}", {key: body[key] for key in body if body[key]})


def _tie(connection: Connection, device_id: int, told: Sequence[_Told]) -> None:
    """Keep which names mean the same message."""
    ties = [(name, each.names[0]) for each in told for name in each.names[1:]]
    if ties:
        values = {"names": [name for name, _ in ties], "external_ids": [first for _, first in ties]}
        connection.execute(_SQL["tie"], {"device_id": device_id, **values})


def _identify(connection: Connection, device_id: int, told: Sequence[_Told]) -> None:
    """Give messages that have no id yet the one that comes with our reference: the reply that had it was lost."""
    found = [
        (parts[1], parts[2], each.report.provider_id)
        for each in told
        if each.report.provider_id and each.report.reference and (parts := _REFERENCE.fullmatch(each.report.reference))
    ]
    if found:
        connection.execute(
            _SQL["identify"],
            {
                "device_id": device_id,
                "message_ids": [int(message_id) for message_id, _, _ in found],
                "secrets": [secret for _, secret, _ in found],
                "external_ids": [storable(provider_id) for _, _, provider_id in found],
            },
        )


def _messages_of(connection: Connection, device_id: int, told: Sequence[_Told]) -> dict[str, int]:
    """Return the messages that reports are about, by each report's first name."""
    names = {each.names[0]: each.names[0] for each in told}
    tied = connection.execute(_SQL["tied"], {"device_id": device_id, "names": list(names)})
    names.update({row["name"]: row["external_id"] for row in tied})
    rows = connection.execute(_SQL["by_external_id"], {"device_id": device_id, "external_ids": list(names.values())})
    messages = {row["external_id"]: row["id"] for row in rows}
    references = [
        (int(parts[1]), parts[2], parts[0])
        for name in names.values()
        if (parts := _REFERENCE.fullmatch(name.removeprefix("reference:")))
    ]
    if references:
        rows = connection.execute(
            _SQL["by_reference"],
            {
                "device_id": device_id,
                "message_ids": [message_id for message_id, _, _ in references],
                "secrets": [secret for _, secret, _ in references],
                "references": [reference for _, _, reference in references],
            },
        )
        messages.update({reference_name(row["reference"]): row["id"] for row in rows})
    return {name: messages[external_id] for name, external_id in names.items() if external_id in messages}
