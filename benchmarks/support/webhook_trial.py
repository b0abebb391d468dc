"""A run of webhooks: devices send and are written to, the receiver fails, and who tells it is killed now and then."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil

from actors.fleet import Fleet
from benchmarks.support.trial import PLATFORM_DEVICES, PROJECT, Trial, TrialFailed, until
from benchmarks.support.webhook_judge import Due, judge
from benchmarks.support.webhook_receiver import FailingReceiver
from benchmarks.support.webhook_weather import Weather, forecast
from config.errors import SalamanderError
from config.settings import load_settings
from storage.database import PooledConnections, Row, database_url

#: How often the plain callback is given what happened, in seconds.
_FEED_SECONDS = 0.25
#: With every so manieth message somebody writes to its device, or its connection breaks.
_WRITES, _BREAKS = 20, 150
_FRIEND = "60199000099"
#: Rows this far back are looked at again: one with a smaller id may be committed after one with a larger.
_LOOK_BACK = 500
#: How long what waits may take to be told once the receiver is well again: a wait between attempts may be long by then.
_END_SECONDS = 1800.0
_PLAIN_END_SECONDS = 90.0


class WebhookTrial:
    """A fleet whose events are told to a failing receiver, and by a plain callback to another that fails alike."""

    def __init__(self, trial: Trial, seed: int, devices: int, say: Callable[[str], None]) -> None:
        self._trial = trial
        self._seed = seed
        self._say = say
        self._ended = threading.Event()
        self.receiver, self._plain_receiver = FailingReceiver(seed), FailingReceiver(seed)
        trial.start()
        with Fleet(trial.home.path, timeout=60) as fleet:
            trial.add_devices(fleet, devices)
            self._endpoint, self.receiver.secret = fleet.endpoints.add(self.receiver.url)
        # For two threads: the one that calls the plain callback, and the one that waits for the end.
        self._database = PooledConnections(database_url(trial.home, load_settings(trial.home)), 2)
        self._plain = self._plain_callback()
        self.sent = self.refused = self.kills = 0

    def run(self, seconds: float, a_second: float) -> dict[str, Any]:
        """Work for so long, let everything come to its end, and return the figures."""
        weather = forecast(self._seed, seconds)
        feeding = threading.Thread(target=self._feed_plain, name="feed", daemon=True)
        striking = threading.Thread(target=self._strike, args=(weather, seconds), name="weather", daemon=True)
        feeding.start()
        striking.start()
        try:
            self._send(seconds, a_second)
            striking.join()
            self._say("letting everything come to its end")
            for each in (self.receiver, self._plain_receiver):
                each.fails = False
            seconds_to_end = self._come_to_an_end()
        finally:
            self._ended.set()
            feeding.join()
            self._end_plain()
            for each in (self.receiver, self._plain_receiver):
                each.close()
        rows = self._rows(0)
        due = [Due(row["id"], _webhook_id(row), row["lane"], row["created_at"].timestamp()) for row in rows]
        self._database.close()
        return {
            "sent": self.sent,
            "refused": self.refused,
            "gateway_kills": self.kills,
            "outages": [round(ended - began, 1) for began, ended in weather.outages],
            "requests": dict(sorted(self.receiver.came.items())),
            "forged": self.receiver.forged,
            "dead_letters": sum(row["state"] == "dead" for row in rows),
            "pending_in_the_end": sum(row["state"] == "pending" for row in rows),
            "most_attempts": max((row["attempts"] for row in rows), default=0),
            "events": dict(sorted(Counter(row["type"] for row in rows).items())),
            "seconds_to_end": round(seconds_to_end, 1),
            "told": judge(due, self.receiver.taken),
            "plain": judge(due, self._plain_receiver.taken),
            "plain_requests": dict(sorted(self._plain_receiver.came.items())),
        }

    # --- what happens ------------------------------------------------------------------------------------

    def _send(self, seconds: float, a_second: float) -> None:
        senders = itertools.cycle([*self._trial.numbers, *PLATFORM_DEVICES])
        began = time.monotonic()
        with Fleet(self._trial.home.path, timeout=60) as fleet:
            while (elapsed := time.monotonic() - began) < seconds:
                while self.sent < elapsed * a_second:
                    device, number = next(senders), self.sent
                    self.sent += 1
                    to = f"601990000{number % 20 + 10}"
                    try:
                        fleet.send(device, to, f"message {number}", idempotency_key=f"{number}")
                    except SalamanderError:
                        self.refused += 1
                    if device in self._trial.numbers:
                        self._disturb(self._trial.numbers[device], number)
                    if number % 600 == 0:
                        self._say(f"{number} sent, {len(self.receiver.taken)} events taken")
                time.sleep(0.1)

    def _disturb(self, phone: str, number: int) -> None:
        """Let more happen to a device than that it sends."""
        simulator = self._trial.simulator
        if number % _WRITES == 0:
            simulator.add_phone(_FRIEND)
            simulator.say(_FRIEND, phone, f"Thank you for {number}!")
        if number % _BREAKS == 1:
            simulator.fault("reset", phone)

    def _strike(self, weather: Weather, seconds: float) -> None:
        """Let both receivers go down and come up, and kill both senders, at their times."""
        began = time.monotonic()
        kills = list(weather.kills)
        down = False
        while (elapsed := time.monotonic() - began) < seconds and not self._ended.wait(0.1):
            if weather.is_down(elapsed) != down:
                down = not down
                for each in (self.receiver, self._plain_receiver):
                    each.go_down() if down else each.come_up()
                self._say("the receiver is down" if down else "the receiver is up again")
            if kills and elapsed >= kills[0]:
                kills.pop(0)
                self._kill()
        if down:
            for each in (self.receiver, self._plain_receiver):
                each.come_up()

    def _kill(self) -> None:
        self._plain.kill()
        for process in self._trial.processes("gateway"):
            with contextlib.suppress(psutil.Error):
                process.kill()
                self.kills += 1
                self._say("💥 kill -9 gateway")

    # --- the plain callback ------------------------------------------------------------------------------

    def _plain_callback(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.support.plain_webhooks", self._plain_receiver.url],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def _feed_plain(self) -> None:
        """Call back with each event soon after it was committed; one that was killed is started again at once."""
        told: set[int] = set()
        newest = 0
        while not self._ended.wait(_FEED_SECONDS):
            for row in self._rows(newest - _LOOK_BACK):
                if row["id"] in told:
                    continue
                told.add(row["id"])
                newest = max(newest, row["id"])
                if self._plain.poll() is not None:
                    self._plain = self._plain_callback()
                assert self._plain.stdin is not None
                with contextlib.suppress(OSError):
                    self._plain.stdin.write(json.dumps([_webhook_id(row), row["body"]]) + "\n")

    def _end_plain(self) -> None:
        assert self._plain.stdin is not None
        with contextlib.suppress(OSError):
            self._plain.stdin.close()
        try:
            self._plain.wait(_PLAIN_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._plain.kill()
            self._plain.wait()

    # --- the end -----------------------------------------------------------------------------------------

    def _come_to_an_end(self) -> float:
        """Wait until nothing is to be sent or told any more; return how long that took, in seconds."""
        began = time.monotonic()
        with contextlib.suppress(TrialFailed):  # the figures say what is left
            until(lambda: not self._trial.unfinished() and not self._pending(), _END_SECONDS, "the end")
        return time.monotonic() - began

    def _pending(self) -> bool:
        with self._database.transaction() as connection:
            found = connection.execute("select from endpoint_delivery where state = 'pending' limit 1").fetchone()
            return found is not None

    def _rows(self, after: int) -> list[Row]:
        with self._database.transaction() as connection:
            return connection.execute(
                "select id, event_id, lane, type, body, state, attempts, created_at from endpoint_delivery"
                " where endpoint_id = %s and id > %s order by id",
                [self._endpoint, after],
            ).fetchall()


def _webhook_id(row: Row) -> str:
    return f"evt_{row['event_id'].hex}"
