"""What the evidence of an attempt says, and the journal that closes its one gap."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.whatsapp.evidence import Finding, SecretJournal, Verdict, weigh


@pytest.mark.parametrize(
    ("stored", "journal", "finding"),
    [
        (None, None, Finding(Verdict.NEVER_LEFT)),
        ("3EB0A", None, Finding(Verdict.UNKNOWN, "3EB0A")),
        (None, "3EB0B", Finding(Verdict.UNKNOWN, "3EB0B")),
        ("3EB0A", "3EB0B", Finding(Verdict.UNKNOWN, "3EB0A")),
    ],
)
def test_only_an_attempt_without_any_trace_never_left(
    stored: str | None, journal: str | None, finding: Finding
) -> None:
    assert weigh(stored, journal) == finding


def test_a_journal_gives_back_what_was_noted_after_a_restart(tmp_path: Path) -> None:
    SecretJournal(tmp_path, 1).write(7, "3EB0A")
    SecretJournal(tmp_path, 1).write(77, "3EB0B")
    SecretJournal(tmp_path, 2).write(7, "3EB0C")
    journal = SecretJournal(tmp_path, 1)
    assert [journal.message_id_of(attempt) for attempt in (7, 77, 8)] == ["3EB0A", "3EB0B", None]
    assert SecretJournal(tmp_path, 2).message_id_of(7) == "3EB0C"
    assert SecretJournal(tmp_path, 3).message_id_of(7) is None


def test_the_last_note_about_an_attempt_counts(tmp_path: Path) -> None:
    journal = SecretJournal(tmp_path, 1)
    for message_id in ("3EB0A", "3EB0B"):
        journal.write(7, message_id)
    assert journal.message_id_of(7) == "3EB0B"


def test_the_journal_is_its_owners_alone(tmp_path: Path) -> None:
    SecretJournal(tmp_path, 1).write(7, "3EB0A")
    [path] = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


@given(st.integers(0, 40))
def test_a_line_cut_off_spoils_no_other(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    directory = tmp_path_factory.mktemp("journal")
    journal = SecretJournal(directory, 1)
    journal.write(1, "3EB0A")
    [path] = directory.iterdir()
    whole = path.stat().st_size
    journal.write(12, "3EB0B")
    os.truncate(path, min(whole + cut, path.stat().st_size))
    journal.write(2, "3EB0C")
    assert (journal.message_id_of(1), journal.message_id_of(2)) == ("3EB0A", "3EB0C")
    assert journal.message_id_of(122) is None


def test_a_note_that_was_not_written_whole_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, line: 3)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        SecretJournal(tmp_path, 1).write(7, "3EB0A")
