"""Where one installation keeps its state: the home directory and the files in it."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from config.errors import HomeNotUsable

#: Set in every process of one daemon, so that a later `start` can find what a killed watchdog left behind.
HOME_VARIABLE = "SALAMANDER_HOME"
#: Marks the processes of a running daemon (a command that merely talks to it does not carry it).
DAEMON_VARIABLE = "SALAMANDER_DAEMON"


def default_home() -> Path:
    """Return the home used when neither ``--home`` nor ``SALAMANDER_HOME`` names one."""
    return Path(os.environ.get(HOME_VARIABLE) or Path.home() / ".salamander").expanduser()


@dataclass(frozen=True)
class Home:
    """The paths of one installation. Nothing is created by merely naming a home."""

    path: Path

    @property
    def configuration(self) -> Path:
        """The settings file a person edits (TOML)."""
        return self.path / "config.toml"

    @property
    def frame_key(self) -> Path:
        """The key that authenticates actor frames."""
        return self.path / "frame.key"

    @property
    def credentials_key(self) -> Path:
        """The key that encrypts credentials in the database."""
        return self.path / "credentials.key"

    @property
    def postgres(self) -> Path:
        """The embedded PostgreSQL server."""
        return self.path / "postgres"

    @property
    def simulator(self) -> Path:
        """The loopback WhatsApp and platforms, when the daemon runs with ``--simulator``."""
        return self.path / "simulator"

    @property
    def gateway_port(self) -> Path:
        """The port that was picked for the gateway, so that its address is the same after a restart."""
        return self.path / "gateway.port"

    @property
    def run(self) -> Path:
        """What exists only while the daemon runs."""
        return self.path / "run"

    @property
    def daemon_file(self) -> Path:
        """How to reach the running daemon (JSON)."""
        return self.run / "daemon.json"

    @property
    def daemon_lock(self) -> Path:
        """Held by the watchdog for as long as it lives."""
        return self.run / "daemon.lock"

    @property
    def logs(self) -> Path:
        """The log directory."""
        return self.path / "logs"

    @property
    def log_file(self) -> Path:
        """All processes' log lines, one JSON object a line."""
        return self.logs / "salamander.log"

    @property
    def uploads(self) -> Path:
        """Files that were uploaded to be sent."""
        return self.path / "uploads"

    @property
    def journal(self) -> Path:
        """Evidence about sends that PostgreSQL could not take at the time."""
        return self.path / "journal"

    def create(self) -> None:
        """Create the directories and keys that are missing, readable by their owner alone.

        Raises:
            HomeNotUsable: the home cannot be created or written to.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in (self.run, self.logs, self.journal):
                directory.mkdir(mode=0o700, exist_ok=True)
            for key in (self.frame_key, self.credentials_key):
                _create_key(key)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise HomeNotUsable(self.path, error.strerror or type(error).__name__) from error


def _create_key(path: Path) -> None:
    """Write 32 random bytes to ``path`` (0600) unless it already holds a key."""
    if path.exists() and path.stat().st_size == 32:
        return
    fresh = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
