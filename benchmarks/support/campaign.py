"""One fault run from its beginning to its verdict: callers send, the nemesis strikes, the checker judges."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.fleet import Fleet
from benchmarks.support.attendant import Attendant
from benchmarks.support.checker import Verdict, judge, percentiles
from benchmarks.support.files import file_server
from benchmarks.support.nemesis import DATABASE_AWAY, Nemesis, Struck
from benchmarks.support.observer import Observer, attempts_while_logged_out, falls_during
from benchmarks.support.plan import Strike
from benchmarks.support.sender import Caller, Sending
from benchmarks.support.trial import PLATFORM_DEVICES, UNASKABLE, Trial
from config.errors import SalamanderError
from config.home import Home

#: The pause between two strikes, at least, in seconds.
PACE_SECONDS = 1.0
#: How long nothing at all may move at the end before what is unfinished counts as stuck, and how long receipts
#: may still settle what is in doubt, in seconds.
_STUCK_SECONDS = 120.0
_RECEIPT_SECONDS = 25.0
#: How long half-open sockets may take to be found and healed, in seconds.
_HALF_OPEN_SECONDS = 60.0
#: How long a whole end may take.
_END_SECONDS = 900.0


@dataclass
class Outcome:
    """Everything a run has found."""

    verdict: Verdict
    sending: Sending
    struck: list[Struck]
    missed: list[str]
    heal_seconds: list[float]
    heal_seconds_from_last_strike: list[float]
    heal_seconds_undisturbed: list[float]
    half_open_seconds: list[float]
    never_healed: list[str]
    statistics: dict[str, Any]
    falls_while_database_away: list[str]
    resume_seconds: list[float]
    attempts_while_logged_out: list[str]
    seconds: float
    troubles: list[str] = field(default_factory=list)
    #: The stories of messages that went wrong.
    evidence: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How many strikes were carried out."""
        return len(self.struck)

    def findings(self) -> list[str]:
        """Return what a person should look at, one line each."""
        named = {
            "the nemesis missed": self.missed,
            "the operator had trouble": self.troubles,
            "refused": self.sending.refused,
            "a key with two ids": self.sending.key_mismatches,
            "fell while PostgreSQL was away": self.falls_while_database_away,
            "tried while logged out": self.attempts_while_logged_out,
        }
        return [*self.evidence, *(f"{what}: {line}" for what, lines in named.items() for line in lines)]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, for machines."""
        verdict, statistics = self.verdict, self.statistics
        return {
            "accepted": verdict.accepted,
            "delivered": verdict.delivered,
            "lost": len(verdict.lost) + len(verdict.unknown_ids),
            "duplicated": len(verdict.duplicated),
            "unexpected": len(verdict.unexpected),
            "recovered": verdict.recovered,
            "out_of_order": len(verdict.out_of_order),
            "stuck": len(verdict.stuck),
            "given_up": len(verdict.given_up),
            "in_doubt": len(verdict.in_doubt),
            "in_doubt_delivered": verdict.in_doubt_delivered,
            "in_doubt_unaskable": verdict.in_doubt_unaskable,
            "unanswered_attempts": verdict.unanswered,
            "settled_by_evidence": verdict.settled_by_evidence,
            "settled_never_left": verdict.settled_never_left,
            "settled_sent": verdict.settled_sent,
            "recognised": round(verdict.recognised, 4),
            "kills": self.kills,
            "kinds": dict(sorted(Counter(each.strike.kind for each in self.struck).items())),
            "missed": len(self.missed),
            "heal_seconds": percentiles(self.heal_seconds),
            "heal_samples": len(self.heal_seconds),
            "heal_seconds_from_last_strike": percentiles(self.heal_seconds_from_last_strike),
            "heal_seconds_undisturbed": percentiles(self.heal_seconds_undisturbed),
            "heal_samples_undisturbed": len(self.heal_seconds_undisturbed),
            "half_open_seconds": [round(each, 1) for each in self.half_open_seconds],
            "devices_not_online": len(self.never_healed),
            "live_clients_per_jid": statistics.get("most_live_per_jid"),
            "conflicts": statistics.get("conflicts", 0),
            "peak_connects_per_second": statistics.get("peak_connects_per_second"),
            "attempts_on_logged_out_devices": len(self.attempts_while_logged_out),
            # Among these is what no client can avoid: the process that was told of the logout was killed with it.
            "logins_of_unlinked_companions": statistics.get("logged_out_attempts", 0),
            "database_outages": sum(each.strike.kind in DATABASE_AWAY for each in self.struck),
            "longest_resume_seconds": round(max(self.resume_seconds), 1) if self.resume_seconds else None,
            "falls_while_database_away": len(self.falls_while_database_away),
            "repeated_keys": self.sending.repeated_keys,
            "key_mismatches": len(self.sending.key_mismatches),
            "refused": len(self.sending.refused),
            "repeated_calls": self.sending.repeated_calls,
            "posted": self.sending.posted,
            "repeated_posts": self.sending.repeated_posts,
            "longest_call": round(self.sending.longest_call, 1),
            "seconds": round(self.seconds, 1),
        }


class Campaign:
    """One run. ``say`` is told what happens."""

    def __init__(
        self,
        home: Home,
        strikes: list[Strike],
        *,
        messages: int,
        seed: int,
        devices: int,
        settings: dict[str, Any],
        longest_outage: float,
        say: Callable[[str], None],
    ) -> None:
        self.trial = Trial(home, settings)
        self._strikes = strikes
        self._messages = messages
        self._seed = seed
        self._devices = devices
        self._say = say
        self._observer = Observer(self.trial)
        self._nemesis = Nemesis(self.trial, self._on_strike)
        self._nemesis.longest_outage = longest_outage
        self._interval = messages / (len(strikes) + 1)
        self._begun = 0
        self._ended = threading.Event()
        self._caller: Caller | None = None

    def run(self) -> Outcome:
        """Run it to the verdict; the daemon is stopped in any case."""
        began = time.monotonic()
        try:
            self._say("starting the daemon and pairing devices")
            self.trial.start()
            with Fleet(self.trial.home.path, timeout=60) as fleet:
                self.trial.add_devices(fleet, self._devices)
            attendant = Attendant(self.trial)
            self._observer.start()
            attendant.start()
            with file_server() as files:
                sending = self._send_and_strike(files)
                self._say("letting everything come to its end")
                self._let_half_open_be_found()
                self._nemesis.end_everything()
                never_healed = self._come_to_an_end()
            self._observer.leave()
            attendant.leave()
            return self._judge(sending, never_healed, attendant, time.monotonic() - began)
        finally:
            self._ended.set()
            self.trial.stop()

    # --- sending and striking ----------------------------------------------------------------------------

    def _send_and_strike(self, files: str) -> Sending:
        devices = [*self.trial.numbers, *PLATFORM_DEVICES]
        self._caller = Caller(self.trial, self._seed, devices, files)
        striking = threading.Thread(target=self._strike_all, name="nemesis", daemon=True)
        striking.start()
        self._caller.send_all(self._messages, self._may_go_on)
        striking.join()
        return self._caller.sending

    def _may_go_on(self, count: int) -> None:
        """Keep the callers no more than one strike ahead of the plan."""
        while count >= (self._begun + 2) * self._interval and not self._ended.is_set():
            time.sleep(0.02)

    def _strike_all(self) -> None:
        try:
            for number, strike in enumerate(self._strikes):
                while self._caller is not None and self._caller.count < (number + 1) * self._interval:
                    if self._ended.wait(0.02):
                        return
                self._nemesis.strike(strike)
                # A strike that found nothing to hit counts as begun, too: the messages must go on.
                self._begun = number + 1
                time.sleep(PACE_SECONDS)
        finally:
            self._begun = len(self._strikes)

    def _on_strike(self, struck: Struck) -> None:
        self._begun += 1
        self._say(f"{len(self._nemesis.struck):4d} 💥 {struck.as_line()}")
        self._observer.on_strike(struck)

    def _let_half_open_be_found(self) -> None:
        """Leave half-open sockets as they are until they are healed: that takes most of a minute."""
        end = time.monotonic() + _HALF_OPEN_SECONDS
        while self._observer.waits_for_half_open() and time.monotonic() < end:
            time.sleep(0.25)

    # --- the end -----------------------------------------------------------------------------------------

    def _come_to_an_end(self) -> list[str]:
        """Wait until every message has an outcome and every device is online; return the devices that are not."""
        end = time.monotonic() + _END_SECONDS
        moved, last = time.monotonic(), ({"": 0}, {"": ""})
        settled_since: float | None = None
        while time.monotonic() < end:
            try:
                unfinished = self.trial.unfinished()
                states = {row.name: row.state for row in self.trial.devices() if row.is_whatsapp}
            except SalamanderError:
                time.sleep(0.5)
                continue
            if (unfinished, states) != last:
                moved, last = time.monotonic(), (unfinished, states)
            away = [name for name, state in states.items() if state != "online"]
            busy = unfinished.get("queued", 0) + unfinished.get("sending", 0)
            if not busy and not away:
                settled_since = settled_since or time.monotonic()
                if not unfinished or time.monotonic() - settled_since > _RECEIPT_SECONDS:
                    return []
            else:
                settled_since = None
            if time.monotonic() - moved > _STUCK_SECONDS:
                break
            time.sleep(0.25)
        return [row.name for row in self.trial.devices() if row.is_whatsapp and row.state != "online"]

    def _judge(self, sending: Sending, never_healed: list[str], attendant: Attendant, seconds: float) -> Outcome:
        verdict = judge(sending.asked, self.trial.stories(), self.trial.arrivals(), UNASKABLE)
        observer = self._observer
        healed = [each for each in observer.shard_healings if each.seconds is not None]
        away = [(each.began, each.ended) for each in self._nemesis.struck if each.strike.kind in DATABASE_AWAY]
        wrong = {
            "LOST": verdict.lost,
            "UNKNOWN": verdict.unknown_ids,
            "DUPLICATED": verdict.duplicated,
            "STUCK": verdict.stuck,
            "OUT OF ORDER": verdict.out_of_order,
            "GIVEN UP": verdict.given_up,
        }
        evidence = [
            f"{what}: message {message_id}\n{self.trial.story_of(message_id)}"
            for what, ids in wrong.items()
            for message_id in ids[:20]
        ]
        # A platform may have no way to be asked; of our own devices, whatever stays in doubt is worth a look.
        platforms = {each.message_id for each in sending.asked if each.device in PLATFORM_DEVICES}
        evidence += [
            f"IN DOUBT: message {message_id}\n{self.trial.story_of(message_id)}"
            for message_id in [each for each in verdict.in_doubt if each not in platforms][:20]
        ]
        evidence += [f"UNEXPECTED: {each}" for each in verdict.unexpected[:20]]
        evidence += [f"NOT ONLINE: {row}" for row in self.trial.devices() if row.name in never_healed]
        return Outcome(
            verdict=verdict,
            sending=sending,
            struck=self._nemesis.struck,
            missed=self._nemesis.missed,
            heal_seconds=[each.seconds for each in healed if each.seconds is not None],
            heal_seconds_from_last_strike=[
                each.from_last_strike for each in healed if each.from_last_strike is not None
            ],
            heal_seconds_undisturbed=[each.seconds for each in healed if each.seconds is not None and each.undisturbed],
            half_open_seconds=[
                each.seconds for each in observer.half_open_healings if each.seconds is not None and each.undisturbed
            ],
            never_healed=never_healed,
            statistics=self.trial.simulator.stats(),
            falls_while_database_away=falls_during(self.trial.home.log_file, away),
            resume_seconds=self.trial.resumed_after([ended for _, ended in away]),
            attempts_while_logged_out=attempts_while_logged_out(self.trial.home.log_file),
            seconds=seconds,
            troubles=attendant.troubles,
            evidence=evidence,
        )
