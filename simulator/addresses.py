"""Where a running simulator is found: the names of its files, and sockets whose paths may be long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: What a running simulator tells about itself (JSON).
INFO_FILE = "simulator.json"
#: The socket on which it takes orders.
CONTROL_SOCKET = "control.sock"
#: Held by the one simulator that runs on a directory.
LOCK_FILE = "simulator.lock"
LOG_FILE = "simulator.log"


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yield a name of ``path`` short enough for a socket address (the kernel takes 107 bytes)."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
