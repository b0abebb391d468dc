"""What the figures were measured on: a benchmark without its machine says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

_PROJECT = Path(__file__).resolve().parents[2]


def describe_machine() -> dict[str, Any]:
    """Return the machine, its software and how busy it was at this moment, for a benchmark's JSON."""
    one, five, _ = os.getloadavg()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "neonize": version("neonize"),
        "thespian": version("thespian"),
        "commit": _commit(),
        "load_before": {"1_minute": round(one, 2), "5_minutes": round(five, 2)},
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """Return the commit that was measured, with a plus when files had been changed since."""
    try:
        finished = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], cwd=_PROJECT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return finished.stdout.strip()
