"""Numbers that are written in two ways: with and without a digit that marks a mobile phone. Pure.

WhatsApp knows an account by one of them, people write the other, and both reach the same person. So who opts out under
one has opted out under both.

- Brazil: mobile numbers got a 9 after the two digits of the area (ANATEL, 2012 to 2016); accounts older than
  that go without it.
- Mexico: 52 1 before mobile numbers was dropped in 2019; accounts keep it.
- Argentina: 54 9 before mobile numbers called from abroad.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: How a number is written (E.164 digits), and how else.
_SPELLINGS = tuple(
    (re.compile(pattern), other)
    for pattern, other in (
        (r"55(\d\d)9([6-9]\d{7})", r"55\1\2"),
        (r"55(\d\d)([6-9]\d{7})", r"55\g<1>9\2"),
        (r"521(\d{10})", r"52\1"),
        (r"52(\d{10})", r"521\1"),
        (r"549(\d{10})", r"54\1"),
        (r"54(\d{10})", r"549\1"),
    )
)


def spellings(number: str) -> tuple[str, ...]:
    """Return every way a number (E.164 digits) is written, that one first."""
    others = (match.expand(other) for pattern, other in _SPELLINGS if (match := pattern.fullmatch(number)))
    return (number, *others)


def all_spellings(numbers: Iterable[str]) -> list[str]:
    """Return every way these numbers are written, each once and in one order."""
    return sorted({spelling for number in numbers for spelling in spellings(number)})
