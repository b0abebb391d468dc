"""Telephone numbers from a CSV file: checked as a whole before anything is changed."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from actors.care_requests import normalise_number
from actors.validation import Problem
from config.errors import Refused

#: What the column of numbers may be called; without a header, the first column holds them.
_NAMES = ("number", "phone", "to", "recipient")


@dataclass(frozen=True)
class NumberLine:
    """One line of the file: its number in digits, or what is wrong with it."""

    line: int
    number: str | None
    problem: str = ""


def read_numbers(path: Path, region: str) -> list[NumberLine]:
    """Read and check every line of a file: one number a line, or a column named number, phone, to or recipient.

    Raises:
        Refused: the file as a whole is unusable.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.", "Name a readable file.", code="bad_csv") from None
    except UnicodeDecodeError:
        raise Refused(f"{path} is not UTF-8.", "Save it as CSV UTF-8.", code="bad_csv") from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    column, first = 0, True
    lines: list[NumberLine] = []
    try:
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            if first and not any(character.isdigit() for cell in cells for character in cell):
                column = _column(path, cells)
            else:
                lines.append(_checked(rows.line_num, cells, column, region))
            first = False
    except csv.Error as error:
        raise Refused(f"{path} line {rows.line_num} is no CSV: {error}.", "Check its quotes.", code="bad_csv") from None
    if not lines:
        raise Refused(f"{path} holds no numbers.", "Write one number a line.", code="bad_csv")
    return lines


def _column(path: Path, header: list[str]) -> int:
    names = [name.strip().lower() for name in header]
    for name in _NAMES:
        if name in names:
            return names.index(name)
    raise Refused(f"{path} names no column of numbers.", f"Call it {_NAMES[0]}.", code="bad_csv")


def _checked(line: int, cells: list[str], column: int, region: str) -> NumberLine:
    try:
        return NumberLine(line, normalise_number(cells[column].strip() if column < len(cells) else "", region))
    except Problem as problem:
        return NumberLine(line, None, problem.reason)
