"""Devices as rows: what each is, what is wanted of it, what state it is in and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from config.errors import NotFound, Refused
from storage.care import Limits
from storage.database import Connection, Row
from storage.sql import queries
from storage.text import is_storable, storable_value

_SQL = queries("devices")


@dataclass(frozen=True)
class Companion:
    """A companion that a phone linked with another tool: its session is in whatsmeow's store before the device is here.

    Attributes:
        jid: ``user:device@s.whatsapp.net``.
        lid: the same account as WhatsApp's hidden number, or empty.
        linked_at: when the phone linked it, where that is known.
    """

    jid: str
    lid: str = ""
    linked_at: datetime | None = None


@dataclass(frozen=True)
class Device:
    """One row of the device table. Credentials and proxy are sealed (see ``storage/credentials.py``)."""

    id: int
    name: str
    platform: str | None
    jid: str | None
    lid: str | None
    base_url: str | None
    credentials: bytes | None
    proxy: bytes | None
    desired_state: str
    state: str
    reason_code: str
    reason: str
    state_since: datetime
    next_attempt_at: datetime | None
    held_until: datetime | None
    held_reason: str
    pairing_qr: str | None
    pairing_code: str | None
    last_online_at: datetime | None
    created_at: datetime
    #: Limits of its own (None: the installation's hold), and the rule that holds its lane, if one does; messages of
    #: priority ``held_below`` and above go all the same.
    gap_seconds: float | None = None
    jitter_seconds: float | None = None
    per_hour: int | None = None
    per_day: int | None = None
    linked_at: datetime | None = None
    held_code: str = ""
    held_below: int | None = None

    @property
    def limits(self) -> Limits:
        """The limits of its own."""
        return Limits(self.gap_seconds, self.jitter_seconds, self.per_hour, self.per_day)

    @property
    def is_held(self) -> bool:
        """Whether its lane waits now, for ``held_reason``."""
        return self.held_until is not None and self.held_until > datetime.now(UTC)

    @property
    def is_whatsapp(self) -> bool:
        """Whether this is a WhatsApp companion of our own, not a platform account."""
        return self.platform is None


@dataclass(frozen=True)
class ComingUp:
    """How far a fleet has come up: ``tried`` of ``total`` devices are online, or could not be at the first try."""

    tried: int
    total: int

    @property
    def complete(self) -> bool:
        """Whether every device has had its first try."""
        return self.tried >= self.total


def device_of(row: Row) -> Device:
    """Return a whole row of the device table as a device."""
    values: dict[str, Any] = {name: row[name] for name in Device.__dataclass_fields__}
    for sealed in ("credentials", "proxy"):
        if values[sealed] is not None:
            values[sealed] = bytes(values[sealed])
    return Device(**values)


def add(
    connection: Connection,
    *,
    name: str,
    platform: str | None,
    base_url: str | None = None,
    credentials: bytes | None = None,
    proxy: bytes | None = None,
    companion: Companion | None = None,
    limits: Limits | None = None,
) -> int:
    """Add a device and return its id; one with a companion is bound to it from the beginning.

    Raises:
        Refused: the name is taken, or another device has that companion.
    """
    if platform is not None:
        state, code, reason = "ready", "ready", "It sends through the platform; there is no connection to keep."
    elif companion is not None:
        state, code, reason = "connecting", "adopted", "Its session was adopted and is about to be opened."
    else:
        state, code, reason = "needs_pairing", "new", "It was just added; no phone is linked yet."
    try:
        row = connection.execute(
            _SQL["add"],
            {
                "name": name,
                "platform": platform,
                "base_url": base_url,
                "credentials": credentials,
                "proxy": proxy,
                "state": state,
                "code": code,
                "reason": reason,
                "jid": companion and companion.jid,
                "lid": companion and companion.lid,
                "linked_at": companion and companion.linked_at,
                **asdict(limits or Limits()),
            },
        ).fetchone()
    except psycopg.errors.UniqueViolation as error:
        if companion is not None and error.diag.constraint_name == "device_jid":
            raise _companion_taken(companion.jid) from None
        raise Refused(
            f"A device named {name!r} exists already.",
            "Choose another name, or remove that one.",
            code="name_taken",
        ) from None
    assert row is not None  # noqa: S101 - `returning` always gives the row
    return int(row["id"])


def all_devices(connection: Connection) -> list[Device]:
    """Return every device, in the order they were added."""
    return [device_of(row) for row in connection.execute(_SQL["all"])]


def platforms(connection: Connection) -> dict[int, str | None]:
    """Return the platform of every device by its id; None: a WhatsApp companion. Cheap, whatever their number."""
    return {row["id"]: row["platform"] for row in connection.execute(_SQL["platforms"])}


def with_reasons(connection: Connection, codes: Iterable[str]) -> list[Device]:
    """Return the devices whose state has one of these reasons."""
    return [device_of(row) for row in connection.execute(_SQL["with_reasons"], {"codes": sorted(codes)})]


def by_ids(connection: Connection, device_ids: Iterable[int]) -> dict[int, Device]:
    """Return those of these devices that were not removed."""
    return {row["id"]: device_of(row) for row in connection.execute(_SQL["by_ids"], {"ids": sorted(device_ids)})}


def by_name(connection: Connection, name: str) -> Device:
    """Return the device of that name.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(_SQL["by_name"], {"name": name}).fetchone() if is_storable(name) else None
    if row is None:
        raise NotFound(f"There is no device named {name!r}.", "See run.py device list.", code="unknown_device")
    return device_of(row)


def by_id(connection: Connection, device_id: int) -> Device | None:
    """Return the device with that id, unless it was removed."""
    row = connection.execute(_SQL["by_id"], {"id": device_id}).fetchone()
    return None if row is None else device_of(row)


@dataclass(frozen=True)
class DeviceLane:
    """Where a device's messages go: all that never changes of a device while it stands under its name."""

    device_id: int
    platform: str | None


def lanes_by_name(connection: Connection, names: Iterable[str]) -> dict[str, DeviceLane]:
    """Return the lanes of the devices of these names that exist."""
    rows = connection.execute(_SQL["lanes_by_name"], {"names": sorted(filter(is_storable, set(names)))})
    return {row["name"]: DeviceLane(row["id"], row["platform"]) for row in rows}


@dataclass(frozen=True)
class StateChange:
    """What is to be recorded of a device's state.

    Attributes:
        told_as: the id of the event that tells of it; None when nothing has changed that is to be told.
    """

    device_id: int
    state: str
    code: str
    reason: str
    next_attempt_at: datetime | None = None
    told_as: str | None = None

    @property
    def body(self) -> dict[str, str]:
        """What its event says."""
        return {"state": self.state, "code": self.code, "reason": self.reason}


def set_states(connection: Connection, changes: Sequence[StateChange]) -> dict[int, Device]:
    """Record the states of several devices, each at most once, and the events that tell of them.

    Repeated, it changes nothing. It needs no transaction.

    Returns:
        The devices that exist and were not removed, as they are now, by their ids.
    """
    rows = connection.execute(
        _SQL["set_states"],
        {
            "ids": [each.device_id for each in changes],
            "states": [each.state for each in changes],
            "codes": [each.code for each in changes],
            "reasons": [each.reason for each in changes],
            "next_attempts": [each.next_attempt_at for each in changes],
            "external_ids": [each.told_as for each in changes],
            "bodies": [json.dumps(storable_value(each.body)) for each in changes],
        },
    )
    return {row["id"]: device_of(row) for row in rows if row["removed_at"] is None}


def set_state(
    connection: Connection,
    device_id: int,
    state: str,
    code: str,
    reason: str,
    next_attempt_at: datetime | None = None,
) -> None:
    """Record one device's state with its reason and when something is tried next, and tell of it by no event."""
    set_states(connection, [StateChange(device_id, state, code, reason, next_attempt_at)])


def set_pairing(connection: Connection, device_id: int, *, qr: str | None, code: str | None) -> None:
    """Record what to show while a pairing is open."""
    connection.execute(_SQL["set_pairing"], {"id": device_id, "qr": qr, "code": code})


def bind(connection: Connection, device_id: int, jid: str, lid: str) -> None:
    """Bind a device to the companion its phone linked.

    Raises:
        Refused: another device already has that companion.
    """
    try:
        connection.execute(_SQL["bind"], {"id": device_id, "jid": jid, "lid": lid})
    except psycopg.errors.UniqueViolation:
        raise _companion_taken(jid) from None


def _companion_taken(jid: str) -> Refused:
    return Refused(f"Another device is already bound to {jid}.", "Remove one of the two.", code="companion_taken")


def unbind(connection: Connection, device_id: int, jid: str) -> None:
    """Forget a companion that was logged out."""
    connection.execute(_SQL["unbind"], {"id": device_id, "jid": jid})


def set_desired_state(connection: Connection, device: Device, desired: str) -> None:
    """Record that the operator wants the device ``running`` or ``paused``."""
    connection.execute(_SQL["set_desired_state"], {"id": device.id, "desired_state": desired})
    if not device.is_whatsapp:
        state, code, reason = (
            ("paused", "paused", "Paused by the operator; its messages wait.")
            if desired == "paused"
            else ("ready", "ready", "It sends through the platform; there is no connection to keep.")
        )
        connection.execute(
            _SQL["set_platform_state"], {"id": device.id, "state": state, "code": code, "reason": reason}
        )


def remove(connection: Connection, device_id: int) -> None:
    """Remove a device; its messages keep their history."""
    connection.execute(_SQL["remove"], {"id": device_id})


def counts(connection: Connection) -> list[Row]:
    """Return how many devices of each platform stand in each state."""
    return connection.execute(_SQL["counts"]).fetchall()


def coming_up(connection: Connection, holder: str, seconds: float) -> ComingUp:
    """Return how far the WhatsApp devices of a host have come up since its fleet started, so many seconds ago."""
    row = connection.execute(_SQL["coming_up"], {"holder": holder, "seconds": seconds}).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always gives a row
    return ComingUp(row["tried"], row["total"])


def backlog(connection: Connection) -> dict[int, Row]:
    """Return, for each device that has any, how many messages are unfinished and since when."""
    return {row["device_id"]: row for row in connection.execute(_SQL["backlog"])}
