"""The simulator's process: the loopback WhatsApp and platforms of a daemon that was started with ``--simulator``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable

from config.errors import SalamanderError
from config.home import Home
from supervisors.processes import die_with_parent

#: How long the simulator may take to be ready, and how long to leave, in seconds.
_START_SECONDS = 30.0
_LEAVE_SECONDS = 5.0


class SimulatorProcess:
    """One simulator, run as a direct child of the watchdog.

    ``stopping``: whether the daemon is to stop; a start is waited for no longer then.
    """

    def __init__(self, home: Home, stopping: Callable[[], bool]) -> None:
        self._home = home
        self._stopping = stopping
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the one started last."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it where the proxy of this process's environment points, and return when it is ready.

        Raises:
            SalamanderError: it ended, or was not ready in time.
        """
        port = os.environ["HTTPS_PROXY"].rsplit(":", 1)[-1]
        described = self._home.simulator / "simulator.json"
        described.unlink(missing_ok=True)
        output = os.open(self._home.logs / "simulator.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        watchdog = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simulator", str(self._home.simulator), "--proxy-port", port],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the watchdog, which stops it in its turn
            cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),  # noqa: PTH100, PTH120 - the project
            preexec_fn=lambda: die_with_parent(watchdog),  # noqa: PLW1509 - this process has no threads
        )
        os.close(output)
        deadline = time.monotonic() + _START_SECONDS
        while not described.exists() and not self._stopping():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SalamanderError(
                    "The simulator did not start.",
                    f"See {self._home.logs / 'simulator.log'}.",
                    code="simulator",
                )
            time.sleep(0.02)

    def poll(self) -> int | None:
        """Return None while it runs, or was never started; else its exit status."""
        return self._process.poll() if self._process is not None else None

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LEAVE_SECONDS)
        self._process.kill()
        self._process.wait()
