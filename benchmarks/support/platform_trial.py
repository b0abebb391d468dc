"""Platform accounts on trial: a daemon, a slow stand-in, and messages from the router to the stand-in's answer."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import requests

from actors.fleet import Fleet
from actors.messages import MessageAccepted, SendMessage
from benchmarks.support.consumption import consumption_of, cpu_seconds_of
from benchmarks.support.trial import Trial, TrialFailed

_PROJECT = Path(__file__).resolve().parents[2]
#: The platform whose accounts may live on this machine without the simulator, and that documents no rate.
_PLATFORM = "waha"
_BATCH = 500
#: How often the stand-in is asked how far it is, and memory is looked at, in seconds.
_LOOK_SECONDS = 0.2
_SAMPLE_SECONDS = 2.0


@dataclass(frozen=True)
class Sample:
    """The platform actor's memory after so many messages."""

    messages: int
    pss_mb: float


@dataclass(frozen=True)
class Measure:
    """One run: how many messages in how many seconds, from the first call to the last answer."""

    accounts: int
    messages: int
    seconds: float
    cpu: dict[str, float]
    memory: tuple[Sample, ...] = ()

    @property
    def per_second(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {
            "accounts": self.accounts,
            "messages": self.messages,
            "seconds": round(self.seconds, 3),
            "per_second": round(self.per_second, 1),
            "cpu_seconds": self.cpu,
            "memory": [asdict(sample) for sample in self.memory],
        }


@contextlib.contextmanager
def slow_platform(latency: float) -> Iterator[str]:
    """Run a fresh stand-in in a process of its own; yield its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.support.slow_platform", "--latency", str(latency)],
        cwd=_PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def measure_plain(accounts: int, messages: int, latency: float) -> Measure:
    """Return what a plain pool of as many threads as there are accounts does."""
    with slow_platform(latency) as url:
        finished = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.support.plain_pool",
                url,
                "--messages",
                str(messages),
                "--concurrency",
                str(accounts),
            ],
            cwd=_PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
    if finished.returncode != 0:
        raise TrialFailed(f"the plain pool: {finished.stderr.strip()}")
    told = json.loads(finished.stdout)
    return Measure(accounts, messages, told["seconds"], {"pool": round(told["cpu_seconds"], 2)})


def measure_fleet(trial: Trial, accounts: int, messages: int, latency: float, longest: float) -> Measure:
    """Send ``messages`` by ``accounts`` fresh accounts in turn and return how long it took until all were answered.

    Raises:
        TrialFailed: not all were sent in time, or one was sent twice.
    """
    with slow_platform(latency) as url, Fleet(trial.home.path, timeout=60) as fleet:
        names = [f"account-{os.getpid()}-{time.monotonic_ns()}-{number}" for number in range(accounts)]
        for name in names:
            fleet.add_device(name, platform=_PLATFORM, base_url=url, credentials={"api_key": "invented-key"})
        _warm_up(fleet, names, url)
        before = {"sent": _count(url)["sent"], **_cpu(trial)}
        caller = _Caller(trial, names, messages)
        began = time.time()
        caller.start()
        memory = _await(trial, url, int(before["sent"]), messages, began + longest)
        caller.join()
        count = _count(url)
        if caller.failure or count["sent"] - before["sent"] != messages:
            raise TrialFailed(f"{count['sent'] - before['sent']} of {messages} were sent. {caller.failure}")
        cpu = {name: round(seconds - before[name], 2) for name, seconds in _cpu(trial).items()}
        _await_states(fleet, messages)
        for name in names:
            fleet.tell_device(name, "remove")
        return Measure(accounts, messages, count["last"] - began, cpu, tuple(memory))


class _Caller(threading.Thread):
    """Gives the messages to the router in batches, as fast as it takes them."""

    def __init__(self, trial: Trial, names: list[str], messages: int) -> None:
        super().__init__(daemon=True)
        self._trial, self._names, self._messages = trial, names, messages
        self.failure = ""

    def run(self) -> None:
        with Fleet(self._trial.home.path, timeout=60) as fleet:
            for first in range(0, self._messages, _BATCH):
                numbers = range(first, min(first + _BATCH, self._messages))
                answers = fleet.send_batch([self._message(number) for number in numbers])
                if not all(isinstance(answer, MessageAccepted) for answer in answers):
                    self.failure = f"The router refused: {answers[0]}"
                    return

    def _message(self, number: int) -> SendMessage:
        return SendMessage(self._names[number % len(self._names)], "60123456789", f"message {number:06d}")


def _warm_up(fleet: Fleet, names: list[str], url: str) -> None:
    """Let one message of each account through: the actor starts, connections open, accounts are read."""
    fleet.send_batch([SendMessage(name, "60123456789", "warm-up") for name in names])
    deadline = time.monotonic() + 60
    while _count(url)["sent"] < len(names):
        if time.monotonic() > deadline:
            raise TrialFailed("The accounts did not begin to send.")
        time.sleep(_LOOK_SECONDS)
    _await_states(fleet, len(names))


def _await(trial: Trial, url: str, before: int, messages: int, deadline: float) -> list[Sample]:
    """Wait until the stand-in has answered every message; return the actor's memory meanwhile."""
    samples: list[Sample] = []
    next_sample = 0.0
    # Found once: looking through all processes takes time that the measured ones need.
    pids = [process.pid for process in trial.processes(f"platform-{_PLATFORM}"[:15])]
    while (sent := _count(url)["sent"] - before) < messages:
        if time.time() > deadline:
            return samples
        if time.monotonic() > next_sample:
            next_sample = time.monotonic() + _SAMPLE_SECONDS
            samples.append(Sample(sent, round(consumption_of(pids).pss_mb, 1)))
        time.sleep(_LOOK_SECONDS)
    return samples


def _await_states(fleet: Fleet, messages: int) -> None:
    """Wait until no outcome is left to be recorded."""
    deadline = time.monotonic() + 60
    while set(counts := fleet.message_counts()) != {"sent"}:
        if time.monotonic() > deadline:
            raise TrialFailed(f"Not every message of {messages} ended as sent: {counts}")
        time.sleep(_LOOK_SECONDS)


def _count(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(f"{url}/count", timeout=30).json()
    return answer


def _cpu(trial: Trial) -> dict[str, float]:
    """Return the CPU seconds so far of the processes that a message passes through."""
    groups = {
        "router": [process.pid for process in trial.processes("router")],
        "platform": [process.pid for process in trial.processes(f"platform-{_PLATFORM}"[:15])],
        "postgres": [process.pid for process in trial.postgres()],
    }
    return {name: cpu_seconds_of(pids) for name, pids in groups.items()}
