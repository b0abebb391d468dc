"""How to reach the running daemon, and the loopback endpoint it may be switched to. Small JSON files in the home."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from config.home import Home


@dataclass(frozen=True)
class DaemonFile:
    """What a running daemon writes into its home.

    Attributes:
        pid: the watchdog's process.
        process_started: when that began (seconds since the epoch), against recycled pids.
        port: the Thespian Admin's.
        ready: whether the fleet is up.
        simulator: whether it runs with the loopback WhatsApp.
    """

    pid: int
    process_started: float
    bind_address: str
    port: int
    ready: bool
    simulator: bool


@dataclass(frozen=True)
class LoopbackEndpoint:
    """A stand-in for WhatsApp on this machine: its CONNECT proxy, TLS authority and Noise root (hex)."""

    proxy: str
    ca_file: str
    noise_root: str
    platforms: dict[str, str]


def write_daemon_file(home: Home, daemon: DaemonFile) -> None:
    """Write the daemon file, whole or not at all."""
    fresh = home.daemon_file.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(daemon), file)
    fresh.replace(home.daemon_file)


def read_daemon_file(home: Home) -> DaemonFile | None:
    """Return what the daemon wrote, or None when there is no (readable) daemon file."""
    try:
        return DaemonFile(**json.loads(home.daemon_file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def loopback_endpoint(home: Home) -> LoopbackEndpoint | None:
    """Return the loopback endpoint this process was started for, or None: then WhatsApp is the real one.

    Only the environment decides, and only at the start of the daemon: a file alone switches nothing.
    """
    if os.environ.get("SALAMANDER_SIMULATOR") != str(home.simulator):
        return None
    described = json.loads((home.simulator / "simulator.json").read_text(encoding="utf-8"))
    return LoopbackEndpoint(
        proxy=described["proxy"],
        ca_file=described["ca_file"],
        noise_root=described["noise_root"],
        platforms=described["platforms"],
    )


def exec_environment(home: Home, *, daemon_variable: str, proxy: str | None, ca_file: Path | None) -> dict[str, str]:
    """Return the environment that every process of the daemon must have at its ``exec``.

    Go reads the environment as it was then; what is set later it never sees (whatsapp-loopback notes in README).
    """
    environment = {name: value for name, value in os.environ.items() if name != "SALAMANDER_SIMULATOR"}
    environment["SALAMANDER_HOME"] = str(home.path)
    environment[daemon_variable] = str(home.path)
    environment["NEONIZE_BOT_TAG"] = "off"
    if proxy is not None:
        for name in (
            "NO_PROXY",
            "no_proxy",
            "https_proxy",
            "http_proxy",
            "HTTP_PROXY",
            "ALL_PROXY",
            "all_proxy",
        ):
            environment.pop(name, None)
        environment["HTTPS_PROXY"] = proxy
        environment["SSL_CERT_FILE"] = str(ca_file)
        environment["SSL_CERT_DIR"] = "/nonexistent"
        environment["SALAMANDER_SIMULATOR"] = str(home.simulator)
    return environment
