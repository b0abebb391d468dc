"""A sender that goes on while things are killed, and the proof of what became of its messages."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from config.errors import DaemonNotRunning, NoAnswer, StorageUnavailable
from storage.outbox import FINAL_STATES
from tests.support.daemon import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.daemon import Daemon

#: The pause between two messages: a steady stream, not a benchmark.
_PAUSE_SECONDS = 0.03


@dataclass(frozen=True)
class Accepted:
    """One accepted message."""

    message_id: int
    device: str
    recipient: str
    text: str


class Sending:
    """Sends messages from ``devices`` in turn until the block ends. ``label`` makes their texts unique."""

    def __init__(self, daemon: Daemon, devices: Sequence[str], label: str) -> None:
        self.accepted: list[Accepted] = []
        self._daemon = daemon
        self._devices = devices
        self._label = label
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.await_more(2 * len(self._devices))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(90)
        assert not self._thread.is_alive(), "the sender hangs"
        if self._error is not None:
            raise self._error

    def await_more(self, number: int, seconds: float = 60.0) -> None:
        """Wait until so many further messages were accepted."""
        wanted = len(self.accepted) + number

        def enough() -> bool:
            if self._error is not None:
                raise self._error
            return len(self.accepted) >= wanted

        eventually(enough, seconds, f"{number} more messages to be accepted")

    def await_failure(self, seconds: float = 90.0) -> BaseException:
        """Wait until sending is no longer possible, and return the error that said so."""
        error = eventually(lambda: self._error, seconds, "the sender to fail")
        self._error = None
        return error

    def _run(self) -> None:
        try:
            with self._daemon.fleet() as fleet:
                for number in itertools.count():
                    if self._stop.is_set():
                        return
                    device = self._devices[number % len(self._devices)]
                    recipient = f"6019900{number % 7:03d}1"
                    text = f"{self._label} {number:04d} — déjà vu 🚚"
                    self.accepted.append(Accepted(fleet.send(device, recipient, text), device, recipient, text))
                    time.sleep(_PAUSE_SECONDS)
        except BaseException as error:
            self._error = error


@dataclass
class Proof:
    """What recipients decrypted and platforms recorded, against what was accepted."""

    accepted: int = 0
    lost: list[Accepted] = field(default_factory=list)
    doubled: list[Accepted] = field(default_factory=list)
    #: In doubt at the end, although it arrived.
    doubtful_arrived: list[Accepted] = field(default_factory=list)
    #: In doubt at the end, and it did not arrive.
    doubtful_missing: list[Accepted] = field(default_factory=list)
    other_states: list[tuple[Accepted, str]] = field(default_factory=list)


def prove(daemon: Daemon, accepted: Sequence[Accepted], *, seconds: float = 60.0, patience: float = 3.0) -> Proof:
    """Wait until each message has an outcome (doubts: ``patience`` longer, for receipts), then count arrivals."""
    ids = [each.message_id for each in accepted]
    settled = FINAL_STATES | {"in_doubt"}
    with daemon.fleet() as fleet:

        def waiting() -> list[int]:
            try:
                return [row["id"] for row in fleet.states(ids).values() if row["state"] not in settled]
            except (StorageUnavailable, DaemonNotRunning, NoAnswer):
                return ids

        eventually(lambda: not waiting(), seconds, "an outcome of every message")
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any(row["state"] == "in_doubt" for row in fleet.states(ids).values()):
            time.sleep(0.1)
        states = fleet.states(ids)
    arrived: Counter[tuple[str, str]] = Counter()
    for recipient in {each.recipient for each in accepted}:
        arrived.update((recipient, text) for text in daemon.texts(recipient))
    for platform in ("wablas", "whacenter"):
        arrived.update((row["to"], row["text"]) for row in daemon.simulator.platform_log(platform))
    proof = Proof(accepted=len(set(ids)))
    for each in accepted:
        count, state = arrived[each.recipient, each.text], states[each.message_id]["state"]
        if count > 1:
            proof.doubled.append(each)
        if state == "in_doubt":
            (proof.doubtful_arrived if count else proof.doubtful_missing).append(each)
        elif state not in {"sent", "delivered", "read"}:
            proof.other_states.append((each, state))
        elif count == 0:
            proof.lost.append(each)
    return proof
