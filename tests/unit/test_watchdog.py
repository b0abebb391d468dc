"""The watchdog goes on keeping the actor system alive when what it kills takes long to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import SalamanderError
from config.home import Home
from config.settings import load_settings
from supervisors import watchdog
from supervisors.watchdog import Watchdog


class Falling(Watchdog):
    """A watchdog whose actor system falls at once the first time; the second start is what is waited for."""

    starts = 0

    def _start_system(self) -> None:
        self.starts += 1
        self._stop_asked = self.starts > 1

    def _watch(self) -> tuple[str, str]:
        return "silent", "The actor system's head stopped answering."


def test_processes_that_do_not_end_in_time_are_swept_again_and_the_system_started_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    swept = []

    def sweep(_home: Home, spare: list[int]) -> int:
        swept.append(spare)
        if len(swept) < 3:
            raise SalamanderError("Processes of the daemon do not end: 17.", code="processes_left")
        return 1

    monkeypatch.setattr(watchdog, "sweep", sweep)
    monkeypatch.setattr(watchdog, "reap", dict)  # it would collect other tests' children
    falling = Falling(home, load_settings(home).model_copy(update={"backoff_first_seconds": 0.01}), simulator=False)

    falling._run_system()

    assert len(swept) == 3
    assert falling.starts == 2
