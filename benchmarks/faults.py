#!/usr/bin/env python3
"""The fault benchmark: messages flow while processes, sockets, PostgreSQL and platforms are killed and broken.

    benchmarks/faults.py --kills 1000 --messages 20000 --seed 7

It starts a daemon with the loopback simulator on a home of its own, strikes as the seed says, and then compares what
was accepted with what each recipient decrypted and each platform recorded. Beside it, plain neonize scripts with a
retry loop get messages and strikes of the same kinds. With --disk-full, the disk under another fleet's home is
filled (this needs root). The exit status is 0 only when nothing was lost, doubled, misplaced or left undecided.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.campaign import Campaign, Outcome
from benchmarks.support.disk_full import CannotMount, run_disk_full
from benchmarks.support.naive import KINDS, NaiveRun
from benchmarks.support.plan import WEIGHTS, Strike, plan
from config.home import Home

#: Several devices share a shard, so that one's trouble could reach another.
SETTINGS = {"max_shards": 3}
#: The comparison: so many scripts, and at most so many messages.
BASELINE_NUMBERS = 3
BASELINE_MESSAGES = 300


def main() -> int:
    """Run, print the table, and return the exit status."""
    arguments = _arguments()
    directory = Path(tempfile.mkdtemp(prefix="salamander-faults-"))
    began = time.monotonic()

    def say(text: str) -> None:
        if not arguments.quiet:
            print(f"{time.monotonic() - began:8.1f} s  {text}", file=sys.stderr, flush=True)

    say(f"seed {arguments.seed}, home {directory / 'home'}")
    campaign = Campaign(
        Home(directory / "home"),
        _strikes(arguments),
        messages=arguments.messages,
        seed=arguments.seed,
        devices=arguments.devices,
        settings=SETTINGS | _settings(arguments.set),
        longest_outage=arguments.outage,
        say=say,
    )
    kept = True
    try:
        outcome = campaign.run()
        kept = arguments.keep or not outcome.verdict.good or bool(outcome.never_healed)
    finally:
        if kept:
            print(f"The home is kept: {directory / 'home'}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    report: dict[str, Any] = {**outcome.as_dict(), "seed": arguments.seed, "devices": arguments.devices}
    good = _is_good(outcome)
    if arguments.disk_full:
        say("filling the disk under another home")
        report["disk_full"], disk_is_good = _disk_full(say)
        good = good and disk_is_good
    if not arguments.no_baseline:
        say("the same kinds of strikes against plain scripts with a retry loop")
        report["baseline"] = _baseline(arguments)
    for line in outcome.findings():
        print(line, file=sys.stderr)
    _print(report)
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False), flush=True)
    return 0 if good else 1


def _is_good(outcome: Outcome) -> bool:
    return outcome.verdict.good and not outcome.never_healed and not outcome.sending.key_mismatches


def _baseline(arguments: argparse.Namespace) -> dict[str, int]:
    """Run the plain scripts, on fewer messages when there are many: they are slow when something breaks."""
    messages = min(arguments.messages, BASELINE_MESSAGES)
    usable = [strike for strike in _strikes(arguments) if strike.kind in KINDS]
    strikes = usable[: max(1, round(len(usable) * messages / arguments.messages))]
    with tempfile.TemporaryDirectory(prefix="salamander-baseline-", ignore_cleanup_errors=True) as directory:
        run = NaiveRun(Path(directory) / "home", numbers=BASELINE_NUMBERS, seed=arguments.seed)
        return run.run(strikes, messages).as_dict()


def _disk_full(say: Callable[[str], None]) -> tuple[dict[str, Any] | str, bool]:
    """Run the full disk; return its figures and whether all was well, or why it could not be run."""
    with tempfile.TemporaryDirectory(prefix="salamander-disk-", ignore_cleanup_errors=True) as directory:
        try:
            found = run_disk_full(Path(directory) / "disk", say)
        except CannotMount as error:
            return f"skipped: {error}", True
    verdict = found.verdict
    figures = {
        "accepted": verdict.accepted,
        "lost": len(verdict.lost),
        "duplicated": len(verdict.duplicated),
        "in_doubt": len(verdict.in_doubt),
        "accepted_while_full": found.accepted_while_full,
        "refused_while_full": found.refused_while_full,
        "heal_seconds": round(found.heal_seconds, 1),
    }
    return figures, verdict.good


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how many strikes (default: 50)")
    parser.add_argument("--messages", type=int, default=1000, help="how many messages (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="decides which strikes come, and what is sent")
    parser.add_argument("--devices", type=int, default=6, help="WhatsApp devices (default: 6)")
    parser.add_argument("--outage", type=float, default=6.0, help="PostgreSQL's longest outage, in seconds")
    parser.add_argument("--only", action="append", choices=sorted(WEIGHTS), help="strike only so (repeatable)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the daemon")
    parser.add_argument("--keep", action="store_true", help="keep the home (a run that went wrong keeps it anyway)")
    parser.add_argument("--no-baseline", action="store_true", help="do not compare with plain scripts")
    parser.add_argument("--disk-full", action="store_true", help="also fill the disk under a fleet (needs root)")
    parser.add_argument("--quiet", action="store_true", help="do not tell what happens")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


def _strikes(arguments: argparse.Namespace) -> list[Strike]:
    strikes = plan(arguments.seed, arguments.kills)
    if not arguments.only:
        return strikes
    kinds = arguments.only
    return [Strike(kinds[number % len(kinds)], each.target, each.length) for number, each in enumerate(strikes)]


def _settings(given: list[str]) -> dict[str, Any]:
    pairs = (each.partition("=") for each in given)
    return {name: json.loads(value) for name, _, value in pairs}


def _print(report: dict[str, Any]) -> None:
    width = max(map(len, report))
    print("\nWhat was accepted, against what recipients decrypted and platforms recorded")
    for name, value in report.items():
        shown = ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value
        print(f"  {name.replace('_', ' '):{width}}  {shown}")


if __name__ == "__main__":
    sys.exit(main())
