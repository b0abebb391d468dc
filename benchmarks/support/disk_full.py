"""A full disk under the home: what is accepted stays accepted, what cannot be is refused, and it heals with room."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.fleet import Fleet
from benchmarks.support.attendant import Attendant
from benchmarks.support.checker import UNFINISHED, Asked, Verdict, judge
from benchmarks.support.trial import Trial, TrialFailed, until
from config.errors import SalamanderError
from config.home import Home

#: Room for the server, its log, and not much more.
_MEGABYTES = 320
_RECIPIENT = "60199000099"
#: How long the disk stays full, and how long one call may take meanwhile, in seconds.
_FULL_SECONDS = 15.0
_CALL_SECONDS = 4.0
#: How long the fleet may take to be as before, in seconds.
_HEAL_SECONDS = 120.0


class CannotMount(Exception):
    """This needs a small file system of its own, which only root may mount."""


@dataclass
class DiskFull:
    """What was found."""

    verdict: Verdict
    accepted_while_full: int
    refused_while_full: int
    #: From the moment there was room again until every message had an outcome and every device was online.
    heal_seconds: float
    words: list[str]


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """Mount a small tmpfs on ``directory``.

    Raises:
        CannotMount: the system does not let us.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux" or os.geteuid() != 0:
        raise CannotMount("only root can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        raise CannotMount(mounted.stderr.decode(errors="replace").strip())
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=False)


def run_disk_full(directory: Path, say: Callable[[str], None]) -> DiskFull:
    """Fill the disk under a running fleet, make room again, and judge.

    Raises:
        CannotMount: there is no small disk to be had.
    """
    with small_disk(directory) as disk:
        trial = Trial(Home(disk / "home"), {"max_shards": 2})
        attendant = Attendant(trial)
        try:
            trial.start()
            with Fleet(trial.home.path, timeout=60) as fleet:
                trial.add_devices(fleet, 2)
            attendant.start()
            return _run(trial, disk, say)
        finally:
            attendant.leave()
            trial.stop()


def _run(trial: Trial, disk: Path, say: Callable[[str], None]) -> DiskFull:
    asked: list[Asked] = []
    words: set[str] = set()
    calm, _ = _send(trial, asked, words, messages=20, seconds=60)
    if calm != 20:
        raise TrialFailed(f"only {calm} of 20 messages were accepted before the disk was full: {sorted(words)}")
    say("filling the disk")
    _fill(disk / "ballast")
    accepted, refused = _send(trial, asked, words, messages=1000, seconds=_FULL_SECONDS)
    say(f"while it was full, {accepted} were accepted and {refused} refused; making room")
    (disk / "ballast").unlink()
    began = time.monotonic()
    until(lambda: _is_calm(trial), _HEAL_SECONDS, "the fleet as before")
    seconds = time.monotonic() - began
    after, _ = _send(trial, asked, words, messages=20, seconds=60)
    if after != 20:
        raise TrialFailed(f"only {after} of 20 messages were accepted afterwards: {sorted(words)}")
    until(lambda: _is_calm(trial), _HEAL_SECONDS, "an outcome for every message")
    return DiskFull(judge(asked, trial.stories(), trial.arrivals()), accepted, refused, seconds, sorted(words))


def _send(trial: Trial, asked: list[Asked], words: set[str], *, messages: int, seconds: float) -> tuple[int, int]:
    """Send for so long; return how many were accepted and how many were not (they may be, unacknowledged)."""
    deadline = time.monotonic() + seconds
    accepted = refused = 0
    names = sorted(trial.numbers)
    while accepted < messages and time.monotonic() < deadline:
        number = len(asked)
        device, text, message_id = names[number % len(names)], f"disk {number:05d}", None
        try:
            with Fleet(trial.home.path, timeout=_CALL_SECONDS) as fleet:
                message_id = fleet.send(device, _RECIPIENT, text, idempotency_key=f"disk-{number}")
            accepted += 1
        except SalamanderError as error:
            refused += 1
            words.add(f"{error.code}: {error.sentence}")
            time.sleep(0.2)
        asked.append(Asked(device, _RECIPIENT, text, message_id))
    return accepted, refused


def _is_calm(trial: Trial) -> bool:
    busy = any(trial.unfinished().get(state) for state in UNFINISHED)
    return not busy and all(row.state == "online" for row in trial.devices() if row.is_whatsapp)


def _fill(ballast: Path) -> None:
    """Write until nothing more fits."""
    size = 1 << 20
    with ballast.open("wb", buffering=0) as file:
        while size >= 512:
            try:
                if file.write(b"\0" * size) < size:
                    size //= 2
            except OSError:
                size //= 2
