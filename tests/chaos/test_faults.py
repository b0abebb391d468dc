"""The short form of the fault benchmark: nothing lost, nothing doubled, whatever is killed or broken meanwhile.

The long form is ``benchmarks/faults.py``.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.support.campaign import Campaign, Outcome
from benchmarks.support.disk_full import CannotMount, run_disk_full
from benchmarks.support.plan import Strike, plan
from config.home import Home

#: Several devices share a shard, so that one's trouble could reach another.
SETTINGS = {"max_shards": 2}

#: What an operator meets most, in one go, the costly ones (a new start, PostgreSQL away) among them.
EVERYDAY = (
    "shard-kill", "router-kill", "reset", "lost-ack", "platform-reset-after", "simulator-kill", "shard-crash",
    "platform-kill", "postgres-kill", "logged-out", "fleet-kill", "watchdog-kill", "router-crash", "banned",
    "watchdog-stop", "stream-503", "gateway-kill", "gateway-stop",
)  # fmt: skip


def run(tmp_path: Path, strikes: list[Strike], *, messages: int, seed: int) -> Outcome:
    told: list[str] = []
    campaign = Campaign(
        Home(tmp_path / "home"),
        strikes,
        messages=messages,
        seed=seed,
        devices=4,
        settings=SETTINGS,
        longest_outage=4.0,
        say=told.append,
    )
    outcome = campaign.run()
    print(*told, *outcome.findings(), json.dumps(outcome.as_dict()), sep="\n")  # noqa: T201 - shown when it fails
    return outcome


def everything_held(outcome: Outcome, messages: int) -> None:
    verdict, report = outcome.verdict, outcome.as_dict()
    assert verdict.accepted == messages, outcome.sending.refused
    broken: dict[str, Any] = {
        "lost": verdict.lost,
        "unknown": verdict.unknown_ids,
        "duplicated": verdict.duplicated,
        "unexpected": verdict.unexpected,
        "out of order": verdict.out_of_order,
        "stuck": verdict.stuck,
        "given up": verdict.given_up,
        "not online": outcome.never_healed,
        "two ids for one key": outcome.sending.key_mismatches,
    }
    assert not {what: found for what, found in broken.items() if found}
    assert report["live_clients_per_jid"] <= 1


def test_everyday_strikes_lose_and_double_nothing(tmp_path: Path) -> None:
    strikes = [Strike(kind, target, 0.3) for kind, target in zip(EVERYDAY, itertools.cycle([0.1, 0.9, 0.5, 0.3]))]
    outcome = run(tmp_path, strikes, messages=250, seed=41)
    everything_held(outcome, 250)
    assert outcome.kills == len(strikes), outcome.missed
    assert outcome.sending.posted > 50


@pytest.mark.parametrize("seed", [36])
def test_strikes_at_random_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    """Without half-open sockets: finding one takes most of a minute, and has a test of its own (test_healing.py)."""
    strikes = [strike for strike in plan(seed, 12) if strike.kind != "half-open"][:10]
    everything_held(run(tmp_path, strikes, messages=200, seed=seed), 200)


def test_a_full_disk_loses_nothing_and_heals_with_room(tmp_path: Path) -> None:
    try:
        found = run_disk_full(tmp_path / "disk", lambda _text: None)
    except CannotMount as error:
        pytest.skip(f"A small disk is needed: {error}")
    assert found.verdict.good, found.verdict
    assert not found.verdict.given_up
    assert found.heal_seconds < 60
