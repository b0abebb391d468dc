"""The callers of a trial: keyed messages, to the router or by HTTP, as one careful program sends them."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.fleet import Fleet
from actors.messages import Media, MessageAccepted, SendMessage
from benchmarks.support.checker import Asked
from benchmarks.support.http_sender import HttpSender
from benchmarks.support.trial import Trial
from config.errors import NoAnswer, Refused, SalamanderError

#: How long a call may take before the caller asks again with the same key, and how long he goes on, in seconds.
_CALL_SECONDS = 15.0
_PATIENCE_SECONDS = 300.0
#: The shares of messages that are sent in batches, carry a file, overtake, or are asked for twice; and of the single
#: ones, those that are posted to the gateway.
_BATCHES, _MEDIA, _URGENT, _REPEATED, _POSTED = 0.05, 0.03, 0.05, 0.05, 0.4
_BATCH = 8


@dataclass
class Sending:
    """What was asked for, and how the asking went."""

    asked: list[Asked] = field(default_factory=list)
    #: Calls that failed and were made again with the same key.
    repeated_calls: int = 0
    #: Messages that the gateway accepted, and posts that failed and were made again with the same key.
    posted: int = 0
    repeated_posts: int = 0
    #: Keys that were used again on purpose, and those that then answered with another id: a broken promise.
    repeated_keys: int = 0
    key_mismatches: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    longest_call: float = 0.0


class Caller:
    """Sends the messages of one run, in order."""

    def __init__(self, trial: Trial, seed: int, devices: list[str], files: str) -> None:
        self._trial = trial
        self._seed = seed
        self._devices = devices
        self._files = files
        self._chance = random.Random(seed + 1)  # noqa: S311 - a schedule, no secret
        self._fleet: Fleet | None = None
        self._http = HttpSender(trial, _CALL_SECONDS)
        self._serial = 0
        self._earlier: list[tuple[SendMessage, int]] = []
        self.sending = Sending()

    @property
    def count(self) -> int:
        """How many messages were asked for so far."""
        return len(self.sending.asked)

    def send_all(self, messages: int, may_go_on: Callable[[int], None]) -> None:
        """Send ``messages`` messages; ``may_go_on`` is asked before each and may wait."""
        while self.count < messages:
            may_go_on(self.count)
            size = _BATCH if self._chance.random() < _BATCHES / _BATCH else 1
            self._send([self._next() for _ in range(min(size, messages - self.count))])
            if self._earlier and self._chance.random() < _REPEATED:
                self._repeat()
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self._fleet is not None:
            with contextlib.suppress(SalamanderError):
                self._fleet.close()
            self._fleet = None

    def _next(self) -> SendMessage:
        self._serial += 1
        media = Media(f"{self._files}/parcel.png") if self._chance.random() < _MEDIA else None
        return SendMessage(
            device=self._chance.choice(self._devices),
            to=f"601990000{self._chance.randrange(10, 30)}",
            text=f"run {self._seed} message {self._serial:06d}",
            media=media,
            idempotency_key=f"key-{self._seed}-{self._serial}",
            priority=5 if self._chance.random() < _URGENT else 0,
        )

    def _send(self, messages: list[SendMessage]) -> None:
        ids = self._ask(messages)
        for message, message_id in zip(messages, ids, strict=True):
            self.sending.asked.append(Asked(message.device, message.to, message.text, message_id, message.priority))
            if message_id is not None:
                self._earlier.append((message, message_id))
        del self._earlier[:-500]

    def _repeat(self) -> None:
        """Ask for an earlier message again: the same key must answer with the same id."""
        message, message_id = self._chance.choice(self._earlier)
        self.sending.repeated_keys += 1
        (again,) = self._ask([message])
        if again != message_id:
            self.sending.key_mismatches.append(f"{message.idempotency_key}: {message_id}, then {again}")

    def _ask(self, messages: list[SendMessage]) -> list[int | None]:
        """Ask until there is an answer; return the ids (None: refused, or no answer within all patience)."""
        began = time.monotonic()
        # A repetition may come by the other way: the key is the same.
        posted = len(messages) == 1 and self._chance.random() < _POSTED
        while time.monotonic() - began < _PATIENCE_SECONDS:
            try:
                ids = self._post(messages[0]) if posted else self._call(messages)
            except Refused as error:
                self.sending.refused.append(f"{messages[0].idempotency_key}: {error.code}: {error.sentence}")
                return [None] * len(messages)
            except SalamanderError as error:
                # No answer, no daemon, no storage: the caller cannot know, and asks again with the same key.
                self.sending.repeated_calls += not posted
                self.sending.repeated_posts += posted
                if not isinstance(error, NoAnswer):
                    self.close()
                time.sleep(0.2)
            else:
                self.sending.longest_call = max(self.sending.longest_call, time.monotonic() - began)
                return ids
        self.sending.refused.append(f"{messages[0].idempotency_key}: no answer in {_PATIENCE_SECONDS:.0f} s")
        return [None] * len(messages)

    def _post(self, message: SendMessage) -> list[int | None]:
        message_id = self._http.send(message)
        self.sending.posted += 1
        return [message_id]

    def _call(self, messages: list[SendMessage]) -> list[int | None]:
        if self._fleet is None:
            self._fleet = Fleet(self._trial.home.path, timeout=_CALL_SECONDS)
        if len(messages) == 1:
            return [_send_one(self._fleet, messages[0])]
        answers = self._fleet.send_batch(messages)
        return [each.id if isinstance(each, MessageAccepted) else None for each in answers]


def _send_one(fleet: Fleet, message: SendMessage) -> int:
    return fleet.send(
        message.device,
        message.to,
        message.text,
        media=message.media,
        idempotency_key=message.idempotency_key,
        priority=message.priority,
    )
