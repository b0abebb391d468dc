"""The simulator's process: the loopback WhatsApp, the platforms beside it, and the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

from config.errors import Refused
from config.logging import logger
from simulator.addresses import CONTROL_SOCKET, INFO_FILE, LOCK_FILE
from simulator.control import Control
from simulator.platforms.server import PlatformStandIns
from simulator.whatsapp.authority import prepare_authority
from simulator.whatsapp.files import locked, write_private
from simulator.whatsapp.network import Network
from simulator.whatsapp.proxy import Proxy


def run_simulator(directory: Path, proxy_port: int) -> None:
    """Run on ``directory`` until SIGTERM or SIGINT.

    Args:
        directory: where everything is kept; a simulator started on it again is the same server.
        proxy_port: where the proxy listens on 127.0.0.1; 0 takes a free port.

    Raises:
        Refused: another simulator runs on the directory, or the port is taken.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = directory.resolve()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(directory / LOCK_FILE, wait=False))
        except BlockingIOError:
            raise Refused(
                f"A simulator already runs on {directory}.", "Stop it, or choose another directory."
            ) from None
        asyncio.run(_run(directory, proxy_port))


async def _run(directory: Path, proxy_port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _raise_descriptor_limit()
    authority = prepare_authority(directory)
    network = Network(authority)
    proxy = Proxy(network)
    platforms = PlatformStandIns(directory / "platforms")
    info: dict[str, Any] = {}
    control = Control(network, platforms, lambda: info)
    try:
        try:
            port = await proxy.start(proxy_port)
        except OSError as error:
            raise Refused(f"The port {proxy_port} cannot be used: {error.strerror}.", "Choose another.") from None
        info |= {
            "pid": os.getpid(),
            "proxy": f"http://127.0.0.1:{port}",
            "ca_file": str(authority.ca_file),
            "noise_root": authority.noise_root.hex(),
            "control": str(directory / CONTROL_SOCKET),
            "platforms": await platforms.start(),
        }
        await control.start(directory / CONTROL_SOCKET)
        write_private(directory / INFO_FILE, json.dumps(info).encode())
        logger().info("simulator ready", proxy=info["proxy"], platforms=info["platforms"])
        await stop.wait()
        logger().info("simulator stopping")
    finally:
        (directory / INFO_FILE).unlink(missing_ok=True)
        await control.stop()
        (directory / CONTROL_SOCKET).unlink(missing_ok=True)
        await platforms.stop()
        await proxy.stop()
        network.close()


def _raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets this process have: each client is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
