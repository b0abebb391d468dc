"""``start --foreground`` ends at Ctrl-C, whenever it comes, and leaves nothing; systemd stops it the same way."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path


def end(process: subprocess.Popen[str], number: int) -> str:
    """Send a signal, check that the process ends in order, and return what it wrote on standard error."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=40)
    assert "Traceback" not in errors
    assert process.returncode in {0, 130}
    return errors


def logged(words: str) -> Callable[[Daemon], bool]:
    """Return whether the log says so already."""
    return lambda daemon: daemon.home.log_file.exists() and bool(daemon.log_lines(words))


@pytest.mark.parametrize(
    "reached",
    [
        lambda daemon: (daemon.home.simulator / "simulator.json").exists(),
        lambda daemon: (daemon.home.postgres / "pgdata" / "postmaster.pid").exists(),
        logged("The fleet starts"),
        logged("Started router"),
    ],
    ids=["simulator", "postgres", "fleet", "router"],
)
def test_ctrl_c_at_any_moment_of_the_start_leaves_nothing(tmp_path: Path, reached: Callable[[Daemon], bool]) -> None:
    daemon = Daemon(tmp_path / "home")
    with daemon.background("start", "--foreground", "--simulator") as process:
        eventually(lambda: reached(daemon), 60, "that moment of the start")
        daemon.listening()
        end(process, signal.SIGINT)
    assert not daemon.kill_everything()
    daemon.assert_nothing_is_left()


def test_ctrl_c_before_anything_began_leaves_nothing(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home")
    with daemon.background("start", "--foreground", "--simulator") as process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=40)
        assert process.returncode != 0
    daemon.assert_nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_running_daemon_ends_at_once_and_starts_again_on_the_same_home(tmp_path: Path, number: int) -> None:
    daemon = Daemon(tmp_path / "home")
    for _ in range(2):
        with daemon.background("start", "--foreground", "--simulator") as process:
            eventually(daemon.is_ready, 60, "the fleet to be up")
            daemon.listening()
            errors = end(process, number)
        assert "The fleet is up" in errors
        assert "Stopped" in errors
        daemon.assert_nothing_is_left()
