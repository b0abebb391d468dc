"""What the daemon's processes use: memory, descriptors, time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from config.daemon import read_daemon_file

if TYPE_CHECKING:
    from config.home import Home

#: PostgreSQL's and the pooler's processes come and go and share most of their memory; its metrics tell of them.
_NOT_OURS = frozenset({"postgres", "pgbouncer"})


@dataclass(frozen=True)
class Use:
    """What one process uses."""

    name: str
    memory_bytes: int
    descriptors: int
    cpu_seconds: float


def uses(home: Home) -> list[Use]:
    """Return what each process of the daemon uses, by the name that ``ps`` shows; nothing when it cannot be told."""
    daemon = read_daemon_file(home)
    if daemon is None:
        return []
    try:
        watchdog = psutil.Process(daemon.pid)
        family = [watchdog, *watchdog.children(recursive=True)]
    except psutil.Error:
        return []
    found: dict[str, Use] = {}
    for process in family:
        try:
            with process.oneshot():
                name = "watchdog" if process.pid == daemon.pid else process.name()
                if name in _NOT_OURS or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                times = process.cpu_times()
                use = Use(name, process.memory_info().rss, process.num_fds(), times.user + times.system)
        except psutil.Error:
            continue  # it ended meanwhile
        before = found.get(name, Use(name, 0, 0, 0.0))
        found[name] = Use(
            name,
            before.memory_bytes + use.memory_bytes,
            before.descriptors + use.descriptors,
            before.cpu_seconds + use.cpu_seconds,
        )
    return list(found.values())
