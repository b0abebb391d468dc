"""The main job: ``run.py demo`` proves its promise and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import psutil

from tests.support.daemon import clean_environment, command_line


def processes_below(directory: Path) -> list[str]:
    """Return the processes whose environment or arguments name a directory."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.environ().values(), *process.cmdline()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(directory) in word for word in words):
            found.append(process.name())
    return found


def test_the_demo_delivers_each_message_once_and_leaves_nothing(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    finished = subprocess.run(
        command_line(None, "demo", "--json"),
        capture_output=True,
        text=True,
        timeout=240,
        env=clean_environment(TMPDIR=str(scratch)),
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert len(lines) == 1
    report = json.loads(lines[0])
    assert report["devices"] == {"whatsapp": 5, "platform": 2}
    assert (report["accepted"], report["lost"], report["duplicated"]) == (200, 0, 0)
    assert report["delivered"] + report["in_doubt"] >= 200
    assert report["delivered"] >= 199
    assert report["refreshes_of_platform_devices"] == 0
    restarted = {row["what"] for row in report["restarts"]}
    assert {"shard shard-1", "router router"} <= restarted
    assert all(row["cause"] and row["seconds"] > 0 for row in report["restarts"])
    assert not processes_below(scratch)
    assert list(scratch.iterdir()) == []
