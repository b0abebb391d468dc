"""The environment that a daemon's processes are executed with."""

from __future__ import annotations

import os
import socket
import sys

from config.daemon import exec_environment
from config.home import DAEMON_VARIABLE, Home


def ensure_environment(home: Home, *, simulator: bool) -> None:
    """Replace this process by itself with the environment that the daemon's processes need, unless it has it.

    Go reads the environment as it was at ``exec``; the simulator's proxy must stand there before.
    """
    proxy = ca_file = None
    if simulator:
        from simulator.whatsapp.authority import prepare_authority  # noqa: PLC0415 - only when it is switched on

        ca_file = prepare_authority(home.simulator).ca_file
        proxy = os.environ.get("HTTPS_PROXY", "")
        if os.environ.get("SALAMANDER_SIMULATOR") != str(home.simulator):
            proxy = f"http://127.0.0.1:{_free_port('127.0.0.1')}"
    wanted = exec_environment(home, daemon_variable=DAEMON_VARIABLE, proxy=proxy, ca_file=ca_file)
    if any(os.environ.get(name) != value for name, value in wanted.items()) or set(wanted) != set(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)  # noqa: S606 - ourselves, no shell


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
