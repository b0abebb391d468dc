"""PostgreSQL away for a while: nobody is restarted for it, and everything goes on when it is back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.fleet import Fleet
from benchmarks.support.checker import Asked, judge
from benchmarks.support.nemesis import Nemesis
from benchmarks.support.observer import falls_during
from benchmarks.support.plan import Strike
from benchmarks.support.trial import Trial, until
from config.home import Home

#: How long each outage lasts, in seconds: a server that hangs, for longer than the watchdog's patience with the actor
#: system's head; one that refuses, for longer than the supervisors' with a child.
OUTAGES = {"postgres-freeze": 24.0, "postgres-refuse": 12.0}
RECIPIENT = "60199000055"


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    trial = Trial(Home(tmp_path / "home"), {"max_shards": 1})
    try:
        trial.start()
        with Fleet(trial.home.path, timeout=60) as fleet:
            trial.add_devices(fleet, 2)
        yield trial
    finally:
        trial.stop()


@pytest.mark.parametrize("kind", sorted(OUTAGES))
def test_an_outage_of_postgresql_restarts_nobody_and_loses_nothing(trial: Trial, kind: str) -> None:
    nemesis = Nemesis(trial, lambda _struck: None)
    nemesis.longest_outage = OUTAGES[kind]
    asked: list[Asked] = []
    done = threading.Event()

    def send() -> None:
        with Fleet(trial.home.path, timeout=120) as fleet:
            while not done.is_set() or len(asked) < 20:
                number = len(asked)
                device = ("shop-1", "shop-2", "wablas-1")[number % 3]
                text = f"during {kind}, {number}"
                asked.append(Asked(device, RECIPIENT, text, fleet.send(device, RECIPIENT, text, idempotency_key=text)))
                done.wait(0.1)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        until(lambda: len(asked) >= 10, 30, "the first messages")
        nemesis.strike(Strike(kind, 0.0, 1.0))
        back = time.monotonic()
        sent_before = len(asked)
        until(lambda: len(asked) > sent_before + 3, 30, "messages accepted again")
    finally:
        done.set()
        sending.join()
    until(lambda: not trial.unfinished(), 30, "an outcome for every message")
    assert time.monotonic() - back < 30
    assert not nemesis.missed
    (struck,) = nemesis.struck
    assert not falls_during(trial.home.log_file, [(struck.began - 0.5, struck.ended + 5)])
    assert all(row.state == "online" for row in trial.devices() if row.is_whatsapp)
    verdict = judge(asked, trial.stories(), trial.arrivals())
    assert verdict.good, verdict
    assert verdict.delivered == verdict.accepted == len(asked)
