"""``start --foreground`` ends at Ctrl-C, whenever it comes, and leaves nothing; systemd stops it the same way."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    from pathlib import Path


def end(process: subprocess.Popen[str], number: int) -> str:
    """Send a signal, check that the process ends in order, and return what it wrote on standard error."""
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=40)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert "Traceback" not in errors
    assert process.returncode in {0, 130}
    return errors


@pytest.mark.parametrize("seconds", [0.1, 0.6, 1.0, 1.4, 1.8, 2.3, 3.0])
def test_ctrl_c_at_any_moment_of_the_start_leaves_nothing(tmp_path: Path, seconds: float) -> None:
    daemon = Daemon(tmp_path / "home")
    process = daemon.background("start", "--foreground", "--simulator")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if daemon.home.daemon_file.exists():
            daemon.listening()
        time.sleep(0.05)
    end(process, signal.SIGINT)
    assert not daemon.kill_everything()
    daemon.assert_nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_running_daemon_ends_at_once_and_starts_again_on_the_same_home(tmp_path: Path, number: int) -> None:
    daemon = Daemon(tmp_path / "home")
    for _ in range(2):
        process = daemon.background("start", "--foreground", "--simulator")
        eventually(daemon.is_ready, 60, "the fleet to be up")
        daemon.listening()
        errors = end(process, number)
        assert "The fleet is up" in errors
        assert "Stopped" in errors
        daemon.assert_nothing_is_left()
