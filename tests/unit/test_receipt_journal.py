"""The journal of receipts that are not recorded yet."""

from __future__ import annotations

from pathlib import Path

from actors.whatsapp.events import ReceiptReceived
from actors.whatsapp.receipt_journal import ReceiptJournal

FIRST = ReceiptReceived(("3EB01", "3EB02"), "delivered", "100@lid", "100@lid", 1_700_000_000)
SECOND = ReceiptReceived(("3EB03",), "read", "200@lid", "200@lid", 1_700_000_001)


def test_the_next_process_finds_what_a_killed_one_had_not_recorded(tmp_path: Path) -> None:
    killed = ReceiptJournal(tmp_path, 7)
    killed.note(FIRST)
    killed.note(SECOND)
    killed.recorded()
    assert ReceiptJournal(tmp_path, 7).left_behind() == [FIRST, SECOND], "recording one twice does no harm"
    assert ReceiptJournal(tmp_path, 8).left_behind() == []


def test_what_is_recorded_is_struck_out(tmp_path: Path) -> None:
    journal = ReceiptJournal(tmp_path, 7)
    journal.note(FIRST)
    journal.note(SECOND)
    journal.recorded()
    journal.recorded()
    assert ReceiptJournal(tmp_path, 7).left_behind() == []


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    journal = ReceiptJournal(tmp_path, 7)
    journal.note(FIRST)
    with (tmp_path / "device-7.receipts").open("a", encoding="utf-8") as file:
        file.write("delivered\t300@lid\t300@l")
    assert ReceiptJournal(tmp_path, 7).left_behind() == [FIRST]


def test_a_full_or_missing_directory_loses_the_note_and_nothing_else(tmp_path: Path) -> None:
    journal = ReceiptJournal(tmp_path / "missing", 7)
    journal.note(FIRST)
    journal.recorded()
    assert journal.left_behind() == []
