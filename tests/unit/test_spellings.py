"""Two ways to write one number: with and without the digit that marks a mobile phone."""

from __future__ import annotations

import pytest

from storage.spellings import all_spellings, spellings

PAIRS = [
    ("5511987654321", "551187654321"),  # Brazil
    ("5215512345678", "525512345678"),  # Mexico
    ("5491123456789", "541123456789"),  # Argentina
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_both_spellings_are_found_from_either(one: str, other: str) -> None:
    assert spellings(one) == (one, other)
    assert spellings(other) == (other, one)
    assert all_spellings([one, other]) == sorted([one, other])


@pytest.mark.parametrize(
    "number", ["60123456789", "6281234567890", "551133334444", "14155550123", "5411", "52155123456789"]
)
def test_any_other_number_is_written_in_one_way(number: str) -> None:
    assert spellings(number) == (number,)
