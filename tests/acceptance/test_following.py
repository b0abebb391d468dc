"""Commands that follow what happens show it as it comes, and end at Ctrl-C without a word of protest."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def device(daemon: Daemon) -> None:
    daemon.add_paired("shop", "60120000001")


class Following:
    """A command that goes on, and the lines it printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)

    def await_line(self, *words: str) -> None:
        eventually(lambda: any(all(word in line for word in words) for line in self.lines), 20, f"a line with {words}")

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return the status and what was said on standard error."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.stderr is not None
        status = self._process.wait(10)
        self._reader.join()
        return status, self._process.stderr.read()


@contextlib.contextmanager
def following(daemon: Daemon, *command: str) -> Iterator[Following]:
    with daemon.background(*command) as process:
        yield Following(process)


@pytest.mark.parametrize("as_json", [False, True], ids=["for people", "as json"])
def test_following_shows_what_comes_and_ends_at_ctrl_c(daemon: Daemon, as_json: bool) -> None:
    option = ["--json"] if as_json else []
    with (
        following(daemon, "logs", "-f", "--device", "shop", *option) as logs,
        following(daemon, "restarts", "-f", *option) as restarts,
        following(daemon, "events", "-f", *option) as events,
    ):
        events.await_line("state")  # what was there before; from here on each follows
        logs.await_line("online")
        word = f"hello-{as_json}"
        daemon.ok("device", "refresh", "shop")
        daemon.simulator.say("60199000009", "60120000001", word)
        logs.await_line("🔄 Refreshing WhatsApp device shop …")
        restarts.await_line("shop", "The operator asked for it.", "ok")
        events.await_line("message", word)
        for each in (logs, restarts, events):
            assert each.interrupt() == (130, "")
            if as_json:
                assert all(isinstance(json.loads(line), dict) for line in each.lines)


@pytest.mark.parametrize("option", [(), ("--json",)], ids=["for people", "as json"])
def test_a_reader_that_goes_away_is_no_error(daemon: Daemon, option: tuple[str, ...]) -> None:
    with daemon.background("logs", "-f", *option) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        daemon.ok("device", "refresh", "shop")
        assert process.wait(15) == 0
        assert process.stderr.read() == ""


def test_a_rotated_log_is_followed_on(daemon: Daemon) -> None:
    with following(daemon, "logs", "-f", "-n", "1") as logs:
        eventually(lambda: logs.lines, 10, "the first line")
        daemon.home.log_file.rename(daemon.home.log_file.with_suffix(".1"))
        # Writers look every five seconds whether their file is still the one.
        eventually(lambda: refreshed(daemon) and daemon.home.log_file.exists(), 20, "a new log file")
        logs.await_line("Refreshed WhatsApp device shop")
        assert logs.interrupt() == (130, "")


def refreshed(daemon: Daemon) -> bool:
    daemon.ok("device", "refresh", "shop")
    return True
