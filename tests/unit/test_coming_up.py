"""How a command tells how far the fleet has come up: a bar at a terminal, until it has; a line elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from actors.fleet import Fleet
from commands import coming_up
from config.home import Home
from storage.devices import ComingUp


class Rising:
    """A fleet that has come up a little further at each look."""

    def __init__(self, *tried: int) -> None:
        self.tried = list(tried)

    def coming_up(self, _seconds: float) -> ComingUp:
        return ComingUp(self.tried.pop(0), 3)


def shown(rising: Rising, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, terminal: bool) -> str:
    told = io.StringIO()
    monkeypatch.setattr(coming_up, "out", Console(file=told, force_terminal=terminal, width=120, _environ={}))
    monkeypatch.setattr(coming_up, "_LOOK_SECONDS", 0.01)
    coming_up.show_coming_up(Home(tmp_path), cast("Fleet", rising))
    return told.getvalue()


def test_a_terminal_shows_a_bar_until_the_fleet_is_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rising = Rising(0, 1, 3)
    assert "Coming up" in shown(rising, monkeypatch, tmp_path, terminal=True)
    assert rising.tried == []


def test_elsewhere_it_is_one_line_and_nobody_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rising = Rising(1, 3)
    told = shown(rising, monkeypatch, tmp_path, terminal=False)
    assert told == "Coming up: 1 of 3 devices have been connected.\n"
    assert rising.tried == [3]


def test_a_fleet_that_is_up_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert shown(Rising(3), monkeypatch, tmp_path, terminal=True) == ""
