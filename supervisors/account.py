"""A device's account of itself: what is wrong, since when, what comes next, what you can do. One wording for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from supervisors.policy import advice_for

if TYPE_CHECKING:
    from datetime import datetime

    from storage.devices import Device


@dataclass(frozen=True)
class Line:
    """One line of the account: what it is about, the words, and a moment that is told with them, if there is one."""

    about: str
    words: str
    moment: datetime | None = None


def account_of(device: Device, waiting: int, in_doubt: int = 0) -> list[Line]:
    """Return what there is to say about a device on which so many messages wait, and so many are in doubt."""
    lines = [Line("why", f"{device.reason or '–'} ({device.reason_code})")]
    if device.is_whatsapp:
        lines.append(Line("companion", device.jid or "none linked"))
    if device.is_held:
        lines.append(Line("lane waits", device.held_reason, device.held_until))
    scheduled = device.next_attempt_at
    lines.append(Line("next attempt", "" if scheduled else "nothing is scheduled", scheduled))
    lines.append(Line("waiting", _counted(waiting)))
    if in_doubt:
        lines.append(Line("in doubt", f"{_counted(in_doubt)}: run.py messages --state in_doubt --device {device.name}"))
    lines.append(Line("you can", advice_for(device) or "leave it alone"))
    return lines


def _counted(messages: int) -> str:
    return f"{messages} message{'' if messages == 1 else 's'}"
