#!/usr/bin/env python3
"""The healing benchmark: seconds until online again after each kind of fall, beside plain neonize in the same run.

    benchmarks/heal.py --whatsapp 3000 --json

Online again means: logged in at the (simulated) server, by its clock, and called online in Salamander's tables. Plain
neonize runs beside the fleet, on the same server: scripts of one number each, and one process with a loop over many.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.bench import Benchmark
from benchmarks.support.fleet_trial import bring_up
from benchmarks.support.healing import Healed, Healer, heal_by_itself, healer
from benchmarks.support.plain import orders_beside, plain_process
from benchmarks.support.seeding import make_links, seed_home
from benchmarks.support.trial import Trial

#: The library alone finds a dead socket after about 203 s; less patience would find nothing.
_PLAIN_HALF_OPEN_SECONDS = 240.0


def main() -> int:
    """Strike, print the table, and return the exit status: 0 when everything came back."""
    bench = Benchmark("heal", __doc__)
    bench.parser.add_argument("--whatsapp", type=int, default=60, help="WhatsApp devices (default: 60)")
    bench.parser.add_argument("--times", type=int, default=10, help="how often one device is reset, or goes half-open")
    bench.parser.add_argument("--kills", type=int, default=3, help="how often a shard, and PostgreSQL, are killed")
    bench.parser.add_argument("--loop", type=int, default=50, help="clients of the one plain process")
    bench.parser.add_argument("--only", default="", metavar="WORD", help="strike only what has this word in its name")
    bench.parser.add_argument("--longest", type=float, default=180.0, help="seconds until something counts as lost")
    bench.parser.add_argument("--await-plain", action="store_true", help="wait for plain neonize's half-open socket")
    arguments = bench.parse()
    links = list(make_links("shop", arguments.whatsapp))
    beside = list(make_links("plain", 2 + arguments.loop, first=len(links)))
    with bench.trial() as trial:
        bench.say("seeding")
        seed_home(trial.home, links, beside)
        bench.say("starting")
        start = bring_up(trial, arguments.whatsapp, 600)
        bench.say(f"{start.online} online after {start.start_seconds:.1f} s")
        jids = [link.jid for link in beside]
        with _plain(trial, jids, arguments.longest, bench) as plain:
            with healer(trial, {link.name: link.jid for link in links}, arguments.longest) as strikes:
                healed = list(_strike(strikes, arguments.times, arguments.kills, arguments.only, bench))
            if arguments.await_plain:
                plain.append(_await_half_open(trial, jids[0], plain[0].began, bench))
    bench.failed = bench.failed or any(each.lost for each in healed)
    figures = {
        "whatsapp": arguments.whatsapp,
        "budget_per_second": trial.settings.connects_per_second,
        "start_seconds": round(start.start_seconds, 2),
        "healed": {each.kind: each.as_dict() for each in healed},
        "plain": {each.kind: each.as_dict() for each in plain},
    }
    rows = [
        [whose, each.kind, len(each.seconds) + each.lost, *_times(each), each.lost, each.peak_connects]
        for whose, several in (("Salamander", healed), ("plain neonize", plain))
        for each in several
    ]
    headings = ("who", "what fell", "fallen", "p50 s", "p99 s", "longest s", "never back", "most connects in a second")
    return bench.finish(figures, headings, rows, arguments.only)


def _times(healed: Healed) -> list[float]:
    told = healed.as_dict()
    return [told["p50"], told["p99"], told["longest"]]


def _strike(strikes: Healer, times: int, kills: int, only: str, bench: Benchmark) -> Iterator[Healed]:
    kinds: dict[str, Callable[[], Healed]] = {
        "reset": lambda: strikes.reset_one(times),
        "half-open": lambda: strikes.half_open(times),
        "shard": lambda: strikes.kill_a_shard(kills),
        "postgres": lambda: strikes.kill_postgres(kills),
        "dropped": strikes.drop_all,
        "every": strikes.kill_every_shard,
        "admin": strikes.kill_the_admin,
    }
    for name, strike in kinds.items():
        if only not in name:
            continue
        healed = strike()
        told = healed.as_dict()
        bench.say(f"{healed.kind}: p50 {told['p50']} s, p99 {told['p99']} s, {healed.lost} not back")
        yield healed


@contextlib.contextmanager
def _plain(trial: Trial, jids: list[str], longest: float, bench: Benchmark) -> Iterator[list[Healed]]:
    """Strike plain clients beside the fleet; one of them, whose socket is half open, is waited for by the caller."""
    orders, simulator = orders_beside(trial), trial.simulator
    silent, killed, *looped = jids
    with contextlib.ExitStack() as running:
        bench.say("plain neonize: two scripts, and one process with a loop")
        first = running.enter_context(plain_process(orders, [silent], each_its_process=True))
        second = running.enter_context(plain_process(orders, [killed], each_its_process=True))
        running.enter_context(plain_process(orders, looped))
        found = [
            heal_by_itself("socket reset", simulator, [silent], lambda: simulator.fault("reset", silent), longest),
            heal_by_itself("a script SIGKILLed", simulator, [killed], second.kill, 10.0),
        ]

        def drop_all() -> None:
            for jid in looped:
                simulator.fault("reset", jid)

        found.append(heal_by_itself("all sockets of a process dropped", simulator, looped, drop_all, longest))
        simulator.fault("half-open", silent, seconds=_PLAIN_HALF_OPEN_SECONDS + 60.0)
        found[0].began = time.time()
        assert first.poll() is None
        yield found


def _await_half_open(trial: Trial, jid: str, began: float, bench: Benchmark) -> Healed:
    bench.say("waiting for plain neonize to find its half-open socket")
    healed = Healed("half-open socket")
    while time.time() - began < _PLAIN_HALF_OPEN_SECONDS:
        back = trial.simulator.timeline()["logged_in_at"].get(jid, 0.0)
        if back > began:
            healed.seconds.append(back - began)
            return healed
        time.sleep(1.0)
    healed.lost = 1
    return healed


if __name__ == "__main__":
    sys.exit(main())
