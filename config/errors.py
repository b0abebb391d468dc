"""The errors people meet: what happened, to what, and what to do next."""

from __future__ import annotations

from pathlib import Path


class SalamanderError(Exception):
    """An expected failure, told in one line.

    Attributes:
        code: a stable machine name.
        next_step: what the reader can do about it.
        exit_code: the status a command ends with.
    """

    code = "error"
    exit_code = 1

    def __init__(self, sentence: str, next_step: str = "", *, code: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.next_step = next_step
        if code is not None:
            self.code = code

    def as_dict(self) -> dict[str, str]:
        """Return the error for ``--json``."""
        return {"code": self.code, "error": self.sentence, "next_step": self.next_step}


class ConfigurationInvalid(SalamanderError):
    """A setting has a value that cannot be used."""

    code = "configuration_invalid"
    exit_code = 2


class UsageWrong(SalamanderError):
    """A command was called with arguments that do not make sense together."""

    code = "usage"
    exit_code = 2


class HomeNotUsable(SalamanderError):
    """The home directory cannot be created, read or written."""

    code = "home_not_usable"
    exit_code = 2

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"The home directory {path} cannot be used: {reason}.",
            "Choose one you may write to with --home DIR or SALAMANDER_HOME.",
        )


class DaemonNotRunning(SalamanderError):
    """No daemon runs on this home."""

    code = "daemon_not_running"
    exit_code = 3

    def __init__(self, path: Path) -> None:
        super().__init__(f"No daemon runs on {path}.", "Start it with: run.py start")


class DaemonAlreadyRunning(SalamanderError):
    """A daemon already runs on this home."""

    code = "daemon_already_running"
    exit_code = 3

    def __init__(self, path: Path, pid: int | None) -> None:
        who = f" (process {pid})" if pid else ""
        super().__init__(f"A daemon already runs on {path}{who}.", "Stop it with: run.py stop, or use another --home.")


class NoAnswer(SalamanderError):
    """An actor did not answer in time."""

    code = "no_answer"
    exit_code = 4


class AcceptanceUnknown(NoAnswer):
    """A message was handed over, and nobody said whether it was accepted. ``key`` is its idempotency key."""

    code = "acceptance_unknown"

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(
            f"{reason} Whether the message was accepted is not known.",
            f"Send exactly the same again with --key {key} (idempotency_key): that never sends it twice."
            f" To see whether it is there: run.py messages --key {key}",
        )
        self.key = key


class StorageUnavailable(SalamanderError):
    """PostgreSQL cannot be reached or refuses to work."""

    code = "storage_unavailable"
    exit_code = 4


class NotFound(SalamanderError):
    """A device or message that was named does not exist."""

    code = "not_found"
    exit_code = 5


class Refused(SalamanderError):
    """A request that was understood but cannot be carried out."""

    code = "refused"
    exit_code = 6
