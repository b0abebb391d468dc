"""Whether a silent process is dead or only waits its turn.

On a machine that is overloaded for a moment, a healthy process may be too late with what it should have said. Killing
it then makes matters worse: its successor needs more of the machine than it did, others fall silent for it, and they
never stop falling. A process that works, or waits for a processor, is therefore given more time.
"""

from __future__ import annotations

from pathlib import Path

#: How many times longer a process may be silent while it works. One that spins for ever is found after that.
PATIENCE_WITH_WORKERS = 3.0
#: Runs or waits for a processor; waits for a disk.
_AT_WORK = frozenset("RD")


class Pulse:
    """Looks at one silent process after the other, or at the same again; a second apart, or more."""

    def __init__(self) -> None:
        self._pid = 0
        self._ticks = 0

    def beats(self, pid: int) -> bool:
        """Return whether the process works: it is about to, or has used a processor since the last look.

        At the first look at a process it gets the benefit of the doubt.
        """
        found = _activity(pid)
        if found is None:
            return False
        state, ticks = found
        first, before = pid != self._pid, self._ticks
        self._pid, self._ticks = pid, ticks
        return first or state in _AT_WORK or ticks > before


def _activity(pid: int) -> tuple[str, int] | None:
    """Return a process's state (one letter) and the processor time it has used, in clock ticks; see proc(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return state, int(fields[10]) + int(fields[11])


def patience(ordinary: float, *, works: bool) -> float:
    """Return how much silence is borne (in any unit) of which ``ordinary`` is borne of a process that sleeps."""
    return ordinary * PATIENCE_WITH_WORKERS if works else ordinary
