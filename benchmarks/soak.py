#!/usr/bin/env python3
"""The soak: half an hour of sends, refreshes and broken sockets; memory, descriptors and connections over time.

    benchmarks/soak.py --minutes 30 --json

What is compared is the first fifth after the warm-up with the last fifth. A fleet that leaks shows it there.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.bench import Benchmark
from benchmarks.support.endurance import Pace, await_finished, doubled, growth, work_for
from benchmarks.support.fleet_trial import bring_up
from benchmarks.support.seeding import make_links, seed_home

#: Growth of the product's memory after the warm-up that is still called flat, in percent.
_FLAT_PERCENT = 5.0


def main() -> int:
    """Work, print the table, and return the exit status: 0 when memory is flat and nothing was lost."""
    bench = Benchmark("soak", __doc__)
    bench.parser.add_argument("--whatsapp", type=int, default=60, help="WhatsApp devices (default: 60)")
    bench.parser.add_argument("--minutes", type=float, default=1.0, help="how long it works")
    bench.parser.add_argument("--warm-up", type=float, default=0.2, help="the share of that which is warm-up")
    bench.parser.add_argument("--sends", type=float, default=10.0, help="messages a second")
    bench.parser.add_argument("--refreshes", type=float, default=1.0, help="refreshes a second")
    bench.parser.add_argument("--resets", type=float, default=0.5, help="sockets reset a second")
    arguments = bench.parse()
    seconds = arguments.minutes * 60
    links = list(make_links("shop", arguments.whatsapp))
    with bench.trial() as trial:
        seed_home(trial.home, links)
        bring_up(trial, len(links), 600)
        pace = Pace(arguments.sends, arguments.refreshes, arguments.resets)
        work = work_for(trial, [link.name for link in links], [link.jid for link in links], seconds, pace, bench.say)
        states = await_finished(trial)
        twice = doubled(trial)
    grown = growth(work.samples, arguments.warm_up * seconds)
    lost = work.sent - sum(states.values())
    bench.failed = lost != 0 or twice != 0 or grown["product_mb"]["percent"] > _FLAT_PERCENT
    figures = {
        "whatsapp": arguments.whatsapp,
        "minutes": arguments.minutes,
        "settings": bench.settings,
        "work": {name: getattr(work, name) for name in ("sent", "refreshes", "resets", "refused")},
        "states": states,
        "lost": lost,
        "doubled": twice,
        "growth": grown,
        "goal_percent": _FLAT_PERCENT,
        "samples": [dataclasses.asdict(sample) for sample in work.samples],
    }
    rows = [[name, each["first"], each["last"], f"{each['percent']:+.1f} %"] for name, each in grown.items()]
    return bench.finish(figures, ("what", "after the warm-up", "in the end", "growth"), rows)


if __name__ == "__main__":
    sys.exit(main())
