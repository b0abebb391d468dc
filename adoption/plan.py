"""What becomes of each session and each account that a source holds: a pure decision, before anything is changed."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from actors.validation import Problem, check_device_name
from actors.whatsapp.addresses import parse_address
from adoption.original import OriginalDevice
from config.errors import Refused
from storage.care import Limits

_LONGEST_NAME = 64
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
#: Where WhatsApp's own record of a linked device (ADVDeviceIdentity) holds when it was linked.
_TIMESTAMP_FIELD = 2


@dataclass(frozen=True)
class Session:
    """A paired session in a source: the companion, when it was linked, and how many rows each table has of it."""

    jid: str
    lid: str = ""
    linked_at: datetime | None = None
    rows: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """What is to be done about one session or account.

    Attributes:
        name: the device's name, chosen or derived; "" when it is not to become one.
        session: the session to copy; None: an account of a platform.
        original: the original's row about it, if there is one.
        outcome: ``planned``, ``adopted``, ``skipped`` or ``failed``.
        reason: why it is skipped or failed.
    """

    name: str
    session: Session | None = None
    original: OriginalDevice | None = None
    outcome: str = "planned"
    reason: str = ""
    limits: Limits | None = None

    @property
    def jid(self) -> str | None:
        """The companion, for a WhatsApp session."""
        return self.session.jid if self.session is not None else None

    @property
    def platform(self) -> str:
        """The platform's name, or ``whatsapp``."""
        return self.original.platform or "whatsapp" if self.original is not None else "whatsapp"

    def ended(self, outcome: str, reason: str = "") -> Step:
        """Return this step with what came of it."""
        return replace(self, outcome=outcome, reason=reason)


@dataclass(frozen=True)
class Known:
    """What this installation has already: devices by companion, accounts by (platform, token), and every name."""

    companions: Mapping[str, str]
    accounts: Mapping[tuple[str, str], str]
    names: Collection[str]


def make_plan(
    sessions: Sequence[Session], originals: Sequence[OriginalDevice], known: Known, chosen: Mapping[str, str]
) -> list[Step]:
    """Return a step for each session, account and row without a session.

    Args:
        sessions: the paired sessions.
        originals: rows of the original's device table.
        known: what is here already.
        chosen: names that the operator chose, by JID, phone number or the original's name.

    Raises:
        Refused: a chosen name cannot be used, or is chosen for nothing or for several.
    """
    matched = _match(sessions, originals)
    about = {row.id: jid for jid, row in matched.items()}
    subjects: list[tuple[Session | None, OriginalDevice | None]] = [
        (session, matched.get(session.jid)) for session in sessions
    ]
    subjects += [(None, row) for row in originals if row.id not in about]
    picked = _picked(subjects, chosen)
    steps: list[Step | None] = [None] * len(subjects)
    taken = {*known.names, *picked.values()}
    for position, (session, original) in enumerate(subjects):
        limits = original.limits if original is not None else None
        step = Step("", session, original, limits=limits)
        if already := _here_already(session, original, known):
            steps[position] = step.ended("skipped", f"It is here already, as {already}.")
        elif session is None and original is not None and original.platform is None:
            steps[position] = step.ended(
                "skipped", f"{original.name!r} has no session in this source; add it and pair it."
            )
        else:
            name = picked.get(position) or _free(_derived(session, original), taken)
            taken.add(name)
            steps[position] = replace(step, name=name)
    _check_picked(picked, steps, known)
    return [step for step in steps if step is not None]


def linked_at(adv_details: bytes) -> datetime | None:
    """Return when a companion was linked, as WhatsApp's record of it says (protobuf: varints and byte strings)."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = adv_details[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    try:
        while position < len(adv_details):
            tag = varint()
            if tag & 7 == 2:
                position += varint()
            elif tag & 7 == 0:
                value = varint()
                if tag >> 3 == _TIMESTAMP_FIELD:
                    return datetime.fromtimestamp(value, UTC) if value else None
            else:
                return None
    except (IndexError, ValueError, OverflowError, OSError):
        pass
    return None


def _match(sessions: Sequence[Session], originals: Sequence[OriginalDevice]) -> dict[str, OriginalDevice]:
    """Return the original's row about each session: by its JID, else by its number where only one can be meant."""
    rows = [row for row in originals if row.platform is None]
    by_jid = {row.jid: row for row in rows if row.jid}
    matched = {session.jid: by_jid[session.jid] for session in sessions if session.jid in by_jid}
    used = {row.id for row in matched.values()}
    by_number: dict[str, list[OriginalDevice]] = {}
    for row in rows:
        if row.id not in used:
            for number in {row.phone, _number(row.jid)} - {""}:
                by_number.setdefault(number, []).append(row)
    unmatched = [session for session in sessions if session.jid not in matched]
    companions = Counter(_number(session.jid) for session in unmatched)
    for session in unmatched:
        number = _number(session.jid)
        meant = by_number.get(number, [])
        if companions[number] == 1 and len(meant) == 1 and meant[0].id not in used:
            matched[session.jid] = meant[0]
            used.add(meant[0].id)
    return matched


def _here_already(session: Session | None, original: OriginalDevice | None, known: Known) -> str | None:
    if session is not None:
        return known.companions.get(session.jid)
    if original is not None and original.platform is not None:
        return known.accounts.get((original.platform, original.jid))
    return None


def _picked(
    subjects: Sequence[tuple[Session | None, OriginalDevice | None]], chosen: Mapping[str, str]
) -> dict[int, str]:
    """Return the chosen names by the position of what they are for."""
    picked: dict[int, str] = {}
    for key, name in chosen.items():
        try:
            check_device_name(name)
        except Problem as problem:
            raise Refused(problem.reason, problem.next_step, code=problem.code) from None
        meant = [position for position, subject in enumerate(subjects) if key in _keys(*subject)]
        if len(meant) != 1:
            how = "nothing" if not meant else f"{len(meant)} sessions"
            raise Refused(
                f"A name is chosen for {key!r}, which is {how} in this source.",
                "See --dry-run; name a session by its JID or number, an account by the original's device name.",
                code="bad_mapping",
            )
        if meant[0] in picked or name in picked.values():
            raise Refused(f"{name!r} or {key!r} is chosen twice.", code="bad_mapping")
        picked[meant[0]] = name
    return picked


def _check_picked(picked: Mapping[int, str], steps: Sequence[Step | None], known: Known) -> None:
    """Refuse a chosen name that another device has, unless there is nothing to be done about its subject any more."""
    for position, name in picked.items():
        step = steps[position]
        if name in known.names and step is not None and step.outcome == "planned":
            raise Refused(f"A device named {name!r} exists already.", "Choose another.", code="name_taken")


def _keys(session: Session | None, original: OriginalDevice | None) -> set[str]:
    keys = set()
    if session is not None:
        keys |= {session.jid, _number(session.jid), "+" + _number(session.jid)}
    if original is not None:
        keys.add(original.name)
    return keys


def _derived(session: Session | None, original: OriginalDevice | None) -> str:
    """Return the name a device gets by itself: the original's, else its number."""
    named = _usable(original.name) if original is not None else ""
    if named:
        return named
    return _number(session.jid) if session is not None else f"device-{original.id if original else 0}"


def _usable(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return _NOT_IN_NAMES.sub("-", plain).strip("-._")[:_LONGEST_NAME]


def _free(name: str, taken: Collection[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        ending = f"-{number}"
        candidate = name[: _LONGEST_NAME - len(ending)] + ending
    return candidate


def _number(jid: str) -> str:
    try:
        return parse_address(jid).user
    except ValueError:
        return ""
