"""Talking to a running simulator: a small, synchronous client for the command line, the demo and the tests."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from config.errors import SalamanderError
from simulator.addresses import CONTROL_SOCKET, INFO_FILE, short_path

#: How long one order may take; linking a device waits for the device, up to three times 20 s.
_ANSWER_SECONDS = 90.0


class SimulatorNotRunning(SalamanderError):
    """No simulator runs on this directory."""

    code = "simulator_not_running"
    exit_code = 3

    def __init__(self, directory: Path) -> None:
        super().__init__(f"No simulator runs on {directory}.", "Start the daemon with: run.py start --simulator")


class SimulatorRefused(SalamanderError):
    """The simulator understood an order and will not carry it out."""

    code = "refused"
    exit_code = 6


class SimulatorClient:
    """Orders for the simulator that keeps its files in ``directory``.

    Every method opens its own connection, so that a client can be kept and shared across restarts. All raise
    ``SimulatorNotRunning`` when nothing answers, and ``SimulatorRefused`` with the reason and the next step.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def call(self, op: str, **arguments: Any) -> Any:
        """Send one order and return its result."""
        request = json.dumps({"op": op, **arguments}).encode() + b"\n"
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_ANSWER_SECONDS)
                with short_path(self._directory / CONTROL_SOCKET) as name:
                    connection.connect(name)
                connection.sendall(request)
                with connection.makefile("rb") as lines:
                    answer = lines.readline()
        except TimeoutError:
            raise SimulatorRefused(
                f"The simulator did not carry out {op} in time.", "See its log.", code="no_answer"
            ) from None
        except OSError:
            raise SimulatorNotRunning(self._directory) from None
        if not answer:
            raise SimulatorNotRunning(self._directory)
        result = json.loads(answer)
        if not result["ok"]:
            raise SimulatorRefused(result["error"], result["next_step"], code=result["code"])
        return result["result"]

    def info(self) -> dict[str, Any]:
        """Return pid, proxy, ca_file, noise_root, control and platforms (name to base URL)."""
        result: dict[str, Any] = self.call("info")
        return result

    def add_phone(self, number: str) -> dict[str, Any]:
        """Register a phone; return its number and LID."""
        result: dict[str, Any] = self.call("add_phone", number=number)
        return result

    def phones(self) -> list[dict[str, Any]]:
        """Return every phone: number, whether it is on, its companions' JIDs."""
        result: list[dict[str, Any]] = self.call("phones")
        return result

    def phone_power(self, number: str, on: bool) -> None:
        """Switch a phone on or off; a phone that comes on receives what waited for it."""
        self.call("phone_power", number=number, on=on)

    def waiting(self) -> list[dict[str, Any]]:
        """Return the devices that wait to be linked: their QR references, and the number a code was asked for."""
        result: list[dict[str, Any]] = self.call("waiting")
        return result

    def scan(self, number: str, qr_text: str) -> str:
        """Scan a QR code with a phone; return the linked device's JID."""
        result: str = self.call("scan", number=number, qr=qr_text)
        return result

    def enter_code(self, number: str, code: str) -> str:
        """Type a pairing code into a phone; return the linked device's JID."""
        result: str = self.call("enter_code", number=number, code=code)
        return result

    def inbox(self, number: str) -> list[dict[str, Any]]:
        """Return what a phone received.

        Each entry has id, sender, sender_jid, text, kind, time (seconds since the epoch) and secret; media have
        media_sha256, mimetype, file_name and caption, and media_error when they could not be opened.
        """
        result: list[dict[str, Any]] = self.call("inbox", number=number)
        return result

    def sent(self, number: str) -> list[dict[str, Any]]:
        """Return the copies a phone has of what its own companions sent; each also has ``to``."""
        result: list[dict[str, Any]] = self.call("sent", number=number)
        return result

    def all_inboxes(self) -> dict[str, list[dict[str, Any]]]:
        """Return what every phone received, by number."""
        result: dict[str, list[dict[str, Any]]] = self.call("all_inboxes")
        return result

    def say(self, sender: str, to: str, text: str) -> str:
        """Let a phone send a text to a number or to one companion's JID; return the message id."""
        result: str = self.call("say", sender=sender, to=to, text=text)
        return result

    def read(self, number: str, message_id: str | None = None) -> int:
        """Let a phone read its messages, or one; return how many read receipts left."""
        result: int = self.call("read", number=number, message_id=message_id)
        return result

    def queued(self, jid_or_number: str) -> int:
        """Return how many stanzas a device has not acknowledged yet."""
        result: int = self.call("queued", jid=jid_or_number)
        return result

    def unlink(self, jid_or_number: str) -> int:
        """Remove a device from its phone's list of linked devices; return how many were removed."""
        result: int = self.call("unlink", jid=jid_or_number)
        return result

    def fault(self, kind: str, jid: str | None = None, seconds: float | None = None) -> int:
        """Set a fault; return how many connections it struck at once.

        Args:
            kind: one of ``faults()``; ``clear`` ends them.
            jid: a companion's JID, or a number for all its companions; None: everybody.
            seconds: how long; None: until cleared.
        """
        result: int = self.call("fault", kind=kind, jid=jid, seconds=seconds)
        return result

    def faults(self) -> dict[str, str]:
        """Return the kinds of faults, one line each."""
        result: dict[str, str] = self.call("faults")
        return result

    def platform_fault(self, name: str, kind: str, seconds: float | None = None) -> None:
        """Set a fault on a platform."""
        self.call("platform_fault", name=name, kind=kind, seconds=seconds)

    def platform_callback(self, name: str, url: str) -> None:
        """Let a platform report each message's stages to ``url`` on loopback ("": nowhere)."""
        self.call("platform_callback", name=name, url=url)

    def platform_faults(self) -> dict[str, str]:
        """Return the kinds of faults of the platforms, one line each."""
        result: dict[str, str] = self.call("platform_faults")
        return result

    def stats(self) -> dict[str, Any]:
        """Return all figures: see ``simulator.whatsapp.statistics``."""
        result: dict[str, Any] = self.call("stats")
        return result

    def timeline(self) -> dict[str, Any]:
        """Return ``logged_in_at`` (by JID, seconds since the epoch) and ``connects`` (pairs of second and number)."""
        result: dict[str, Any] = self.call("timeline")
        return result

    def platform_log(self, name: str) -> list[dict[str, Any]]:
        """Return the requests a platform accepted."""
        result: list[dict[str, Any]] = self.call("platform_log", name=name)
        return result

    def seed(self, companions: list[dict[str, Any]]) -> int:
        """Link companions whose keys were made elsewhere; see ``Network.seed`` for their keys."""
        result: int = self.call("seed", companions=companions)
        return result


def simulator_info(directory: Path) -> dict[str, Any]:
    """Return what the simulator on ``directory`` wrote when it was ready.

    Raises:
        SimulatorNotRunning: it has written nothing (yet), or has stopped.
    """
    try:
        info: dict[str, Any] = json.loads((directory / INFO_FILE).read_text())
    except (OSError, ValueError):
        raise SimulatorNotRunning(directory) from None
    return info
