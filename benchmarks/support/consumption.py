"""What processes take of the machine: memory, CPU time, threads and descriptors, as the kernel counts them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Consumption:
    """What a group of processes takes.

    Attributes:
        processes: how many there are.
        pss_mb, uss_mb: memory, pages shared with others divided among them; and what is theirs alone.
        threads, descriptors: summed.
        cpu_seconds: since each began, user and system.
    """

    processes: int = 0
    pss_mb: float = 0.0
    uss_mb: float = 0.0
    threads: int = 0
    descriptors: int = 0
    cpu_seconds: float = 0.0

    def __add__(self, other: Consumption) -> Consumption:
        return Consumption(
            self.processes + other.processes,
            self.pss_mb + other.pss_mb,
            self.uss_mb + other.uss_mb,
            self.threads + other.threads,
            self.descriptors + other.descriptors,
            self.cpu_seconds + other.cpu_seconds,
        )

    def as_dict(self) -> dict[str, float]:
        """Return the figures, rounded, for JSON."""
        return {
            "processes": self.processes,
            "pss_mb": round(self.pss_mb, 1),
            "uss_mb": round(self.uss_mb, 1),
            "threads": self.threads,
            "descriptors": self.descriptors,
            "cpu_seconds": round(self.cpu_seconds, 2),
        }


def consumption_of(pids: Iterable[int]) -> Consumption:
    """Return what these processes take together; one that has ended takes nothing."""
    whole = Consumption()
    for pid in pids:
        whole += _consumption_of_one(pid)
    return whole


def cpu_seconds_of(pids: Iterable[int], *, with_ended_children: bool = False) -> float:
    """Return the CPU time of these processes; with that of their ended and collected children if wanted.

    PostgreSQL serves each connection with a child, and most of them are short-lived.
    """
    return sum(_cpu_seconds(pid, with_ended_children=with_ended_children) for pid in pids)


def _consumption_of_one(pid: int) -> Consumption:
    directory = Path(f"/proc/{pid}")
    try:
        memory = _rollup(directory / "smaps_rollup")
        threads = len(list((directory / "task").iterdir()))
        descriptors = len(list((directory / "fd").iterdir()))
    except OSError:
        return Consumption()
    private = memory.get("Private_Clean", 0) + memory.get("Private_Dirty", 0)
    return Consumption(1, memory.get("Pss", 0) / 1024, private / 1024, threads, descriptors, _cpu_seconds(pid))


def _rollup(path: Path) -> dict[str, int]:
    """Return the kernel's summary of a process's memory, in kilobytes."""
    found = {}
    for line in path.read_text(encoding="ascii").splitlines()[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0])
    return found


def _cpu_seconds(pid: int, *, with_ended_children: bool = False) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    # utime, stime, cutime, cstime: the 14th to 17th of proc(5), counted from the state, which is the third.
    last = 15 if with_ended_children else 13
    return sum(map(int, fields[11:last])) / _TICKS
