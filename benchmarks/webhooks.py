#!/usr/bin/env python3
"""The webhooks' benchmark: a receiver fails at random, for as long as you like, and shall get every event.

    benchmarks/webhooks.py --minutes 60 --json

Several devices send and are written to at a modest rate. The receiver answers some requests with 500, 503, 429 and a
Retry-After or a redirect, breaks connections before and after it took an event, answers after every time-out, and is
down for minutes at a time; the gateway is killed now and then. In the end the events that were due are compared with
those that came. Beside it, a plain callback that posts each event and tries three times more is given the same events,
a receiver that fails alike, and the same kills.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.bench import Benchmark
from benchmarks.support.webhook_trial import WebhookTrial

#: What must be none, of our figures.
_NONE = ("lost", "unrecognised_duplicates", "unexpected", "out_of_order")


def main() -> int:
    """Work, print the table, and return the exit status: 0 when every event came, in order, and none was given up."""
    bench = Benchmark("webhooks", __doc__)
    bench.parser.add_argument("--minutes", type=float, default=2.0, help="how long it works")
    bench.parser.add_argument("--whatsapp", type=int, default=6, help="WhatsApp devices, beside two of platforms")
    bench.parser.add_argument("--sends", type=float, default=2.0, help="messages a second")
    bench.parser.add_argument("--seed", type=int, default=1, help="decides what fails when")
    arguments = bench.parse()
    with bench.trial(max_shards=2) as trial:
        bench.say("starting the daemon and pairing devices")
        run = WebhookTrial(trial, arguments.seed, arguments.whatsapp, bench.say)
        found = run.run(arguments.minutes * 60, arguments.sends)
        told = found["told"]
        left = found["dead_letters"] + found["pending_in_the_end"] + found["forged"] + found["refused"]
        bench.failed = bool(left or any(told[name] for name in _NONE))
    figures: dict[str, Any] = {
        "minutes": arguments.minutes,
        "seed": arguments.seed,
        "whatsapp": arguments.whatsapp,
        "a_second": arguments.sends,
        **found,
    }
    rows = [[name.replace("_", " "), value, found["plain"][name]] for name, value in told.items()]
    rows.append(["dead letters", found["dead_letters"], ""])
    return bench.finish(figures, ("events", "Salamander", "plain callback"), rows)


if __name__ == "__main__":
    sys.exit(main())
