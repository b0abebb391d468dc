"""The judge of a fault run, in the style of Jepsen's total queue: what was accepted against what arrived.

Pure: it is given what was asked of the fleet, what the fleet says became of it, and what recipients and platforms
really got. Every message says something no other says, so its text tells which one it was.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

#: States in which the fleet says that a message went out.
WENT_OUT = frozenset({"sent", "delivered", "read"})
#: States in which it says, and gives a reason, that a message did not.
GIVEN_UP = frozenset({"failed", "expired", "cancelled"})
#: States a message must not be left in.
UNFINISHED = frozenset({"queued", "sending"})


@dataclass(frozen=True)
class Asked:
    """A message that was handed to the fleet. ``message_id`` is None when it was never acknowledged."""

    device: str
    recipient: str
    text: str
    message_id: int | None
    priority: int = 0


@dataclass(frozen=True)
class Step:
    """One line of a message's story."""

    state: str
    code: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Arrival:
    """A message as a recipient decrypted it or a platform recorded it, ``device`` being who sent it."""

    device: str
    recipient: str
    text: str


@dataclass
class Verdict:
    """What was found. Lists hold message ids, so that each can be looked into."""

    accepted: int = 0
    delivered: int = 0
    lost: list[int] = field(default_factory=list)
    duplicated: list[int] = field(default_factory=list)
    unexpected: list[Arrival] = field(default_factory=list)
    #: Never acknowledged to the caller, and yet there: harmless, since the caller would ask again with its key.
    recovered: int = 0
    #: Nobody knows, and the fleet says so; among them those that did arrive.
    in_doubt: list[int] = field(default_factory=list)
    in_doubt_delivered: int = 0
    #: Of these, the ones at a provider that cannot be asked: there no evidence can come.
    in_doubt_unaskable: int = 0
    in_doubt_unaskable_delivered: int = 0
    #: Given up with a reason; among them those that arrived all the same.
    given_up: list[int] = field(default_factory=list)
    given_up_delivered: list[int] = field(default_factory=list)
    #: Neither finished nor in doubt when the run ended.
    stuck: list[int] = field(default_factory=list)
    #: Said to be in the outbox by the caller's receipt, but not there.
    unknown_ids: list[int] = field(default_factory=list)
    out_of_order: list[int] = field(default_factory=list)
    #: Attempts that ended without an answer, and what evidence made of them.
    unanswered: int = 0
    settled_never_left: int = 0
    settled_sent: int = 0

    @property
    def settled_by_evidence(self) -> int:
        """How many attempts without an answer were settled without an operator."""
        return self.settled_never_left + self.settled_sent

    @property
    def recognised(self) -> float:
        """Of the unanswered attempts that had been delivered, the share that evidence recognised (1.0: all).

        Those at a provider that cannot be asked are left out.
        """
        delivered = self.settled_sent + self.in_doubt_delivered - self.in_doubt_unaskable_delivered
        return 1.0 if delivered == 0 else self.settled_sent / delivered

    @property
    def good(self) -> bool:
        """Whether every promise about messages held."""
        return not (
            self.lost
            or self.duplicated
            or self.unexpected
            or self.out_of_order
            or self.stuck
            or self.unknown_ids
            or self.given_up_delivered
        )


def judge(
    asked: Sequence[Asked],
    stories: Mapping[int, Sequence[Step]],
    arrivals: Sequence[Arrival],
    unaskable: Collection[str] = (),
) -> Verdict:
    """Compare what was asked with the fleet's own stories and with what arrived (in order, for each recipient).

    Args:
        asked: every message handed to the fleet, repetitions of one key left out.
        stories: each message's states from acceptance to now.
        arrivals: what arrived where, in the order in which each recipient got it.
        unaskable: devices whose provider cannot be asked what became of a message.
    """
    verdict = Verdict()
    by_text = {each.text: each for each in asked}
    counted: Counter[str] = Counter()
    for arrival in arrivals:
        message = by_text.get(arrival.text)
        if message is None or (message.device, message.recipient) != (arrival.device, arrival.recipient):
            verdict.unexpected.append(arrival)
        else:
            counted[arrival.text] += 1
    for message in asked:
        if message.message_id is None:
            verdict.recovered += counted[message.text] > 0
            continue
        _judge_one(verdict, message.message_id, stories.get(message.message_id, ()), counted[message.text])
        if message.device in unaskable and verdict.in_doubt[-1:] == [message.message_id]:
            verdict.in_doubt_unaskable += 1
            verdict.in_doubt_unaskable_delivered += counted[message.text] > 0
    verdict.out_of_order = _out_of_order(by_text, stories, arrivals)
    return verdict


def _judge_one(verdict: Verdict, message_id: int, story: Sequence[Step], copies: int) -> None:
    verdict.accepted += 1
    verdict.delivered += copies > 0
    state = story[-1].state if story else ""
    if not state:
        verdict.unknown_ids.append(message_id)
    elif state in UNFINISHED:
        verdict.stuck.append(message_id)
    elif state in GIVEN_UP:
        verdict.given_up.append(message_id)
        if copies:
            verdict.given_up_delivered.append(message_id)
    elif state == "in_doubt":
        verdict.in_doubt.append(message_id)
        verdict.in_doubt_delivered += copies > 0
    elif copies == 0:
        verdict.lost.append(message_id)
    if copies > 1 and not any(step.code == "resolved" for step in story):
        verdict.duplicated.append(message_id)
    _count_evidence(verdict, story)


def _count_evidence(verdict: Verdict, story: Sequence[Step]) -> None:
    """Count the attempts that ended without an answer, and those of them that evidence settled."""
    for before, after in zip_longest(story, story[1:]):
        if before.state == "sending" and after is not None and after.state == "queued":
            proved = after.code == "never_left" or "never left" in after.reason
            verdict.unanswered += proved
            verdict.settled_never_left += proved
        elif before.state == "in_doubt":
            verdict.unanswered += 1
            verdict.settled_sent += after is not None and after.state in WENT_OUT and after.code != "resolved"


def _out_of_order(
    by_text: Mapping[str, Asked], stories: Mapping[int, Sequence[Step]], arrivals: Iterable[Arrival]
) -> list[int]:
    """Return the messages that arrived after a later one of the same device, recipient and priority.

    A message that was in doubt does not block its lane, so its place is not promised; nor is that of a repetition.
    """
    latest: dict[tuple[str, str, int], int] = defaultdict(int)
    seen: set[str] = set()
    late = []
    for arrival in arrivals:
        message = by_text.get(arrival.text)
        if message is None or message.message_id is None or arrival.text in seen:
            continue
        seen.add(arrival.text)
        if any(step.state == "in_doubt" for step in stories.get(message.message_id, ())):
            continue
        lane = (message.device, message.recipient, message.priority)
        if message.message_id < latest[lane]:
            late.append(message.message_id)
        latest[lane] = max(latest[lane], message.message_id)
    return late


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return p50, p95 and p99 (nearest rank), or None for each when there are no values."""
    ordered = sorted(values)
    if not ordered:
        return {"p50": None, "p95": None, "p99": None}
    ranks = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
    return {name: round(ordered[max(0, -int(-share * len(ordered) // 1) - 1)], 3) for name, share in ranks.items()}
