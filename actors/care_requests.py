"""What the router does when it is asked to change the opt-out list or a device's limits."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from actors.validation import Problem, normalise_recipient
from config.errors import Refused
from storage import care, devices
from storage.care import Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.messages import OptIn, OptOut, SetLimits
    from storage.database import Connection

#: Numbers in one request, at most: larger ones would hold up everybody else.
NUMBERS_LIMIT = 500
#: The longest gap, in seconds, and the most sends: beyond them a limit is a slip of the finger.
_LONGEST_SECONDS = 86_400.0
_MOST_SENDS = 1_000_000


def opt_out(connection: Connection, message: OptOut, region: str) -> str:
    """Put numbers on the opt-out list; return what changed as JSON (``added``, ``cancelled``).

    Raises:
        Problem: one of them is no telephone number; nothing was changed.
        Refused: there are too many of them.
    """
    changed = care.opt_out(connection, _numbers(message.numbers, region), source=message.source)
    return json.dumps(asdict(changed))


def opt_in(connection: Connection, message: OptIn, region: str) -> str:
    """Take numbers off the opt-out list; return how many were on it.

    Raises:
        Problem: one of them is no telephone number; nothing was changed.
        Refused: there are too many of them.
    """
    return str(care.opt_in(connection, _numbers(message.numbers, region)))


def set_limits(connection: Connection, message: SetLimits) -> str:
    """Set a device's own limits: those that are given, the others as they were (or back to the installation's).

    Raises:
        NotFound: there is no such device.
        Refused: a value is no limit.
    """
    device = devices.by_name(connection, message.device)
    given = check_limits(message.limits)
    before = Limits() if message.reset else device.limits
    care.set_limits(connection, device.id, replace(before, **given))
    return ""


def check_limits(limits: Limits) -> dict[str, Any]:
    """Return those limits that are given, by name.

    Raises:
        Refused: a value is no limit.
    """
    given = {name: value for name, value in asdict(limits).items() if value is not None}
    for name, value in given.items():
        most = _LONGEST_SECONDS if name.endswith("_seconds") else _MOST_SENDS
        if not (math.isfinite(value) and 0 <= value <= most):
            raise Refused(f"The limit {name} cannot be {value:g}.", f"Use 0 (none) to {most:,.0f}.", code="bad_limit")
    return given


def _numbers(numbers: Sequence[str], region: str) -> list[str]:
    """Return numbers as E.164 digits, each once and in one order, so that two requests never wait for each other."""
    if len(numbers) > NUMBERS_LIMIT:
        raise Refused(f"A request names at most {NUMBERS_LIMIT} numbers.", "Send several.", code="batch_too_large")
    return sorted({normalise_number(number, region) for number in numbers})


def normalise_number(number: str, region: str) -> str:
    """Return a telephone number as E.164 digits; a group is none.

    Raises:
        Problem: it is no telephone number.
    """
    if "@" in number:
        raise Problem(
            "bad_number", f"{number!r} is not a telephone number.", "Give a number with its country code: +60123456789."
        )
    return normalise_recipient(number, region)
