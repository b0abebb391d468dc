"""Turns: what the lanes of a WhatsApp shard want of the outbox at one moment, for all of them together.

One transaction and a handful of statements, which travel together, serve as many lanes as have something to record or
to claim. Each message's order of rows is the same as with the outbox's own methods: it is claimed and committed before
anything is sent, and again when its outcome is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from storage import dispatch, events, outbox
from storage.database import Connection
from storage.dispatch import Ended, Head
from storage.events import Event


@dataclass(frozen=True)
class Receipt:
    """What a recipient's phone confirmed of one message: the event to keep, and the stage (sent, delivered, read)."""

    event: Event
    external_id: str
    stage: str


@dataclass(frozen=True)
class Turn:
    """What one device wants.

    Attributes:
        sent: an attempt that WhatsApp took, with its id there.
        receipts: what was confirmed to the device.
        secret: claim the head of its lane, with this as the proof of the attempt.
    """

    device_id: int
    sent: Ended | None = None
    receipts: tuple[Receipt, ...] = ()
    secret: bytes | None = None


def sent(claim: outbox.Claim, external_id: str) -> Ended:
    """Return the outcome of an attempt that WhatsApp took under ``external_id``."""
    return Ended(claim.message_id, claim.attempt_id, claim.device_id, "", "sent", "sent", "", external_id)


def take(connection: Connection, owner: str, turns: Sequence[Turn], *, again: bool = False) -> list[Head | None]:
    """Do what ``turns`` want; return what each found at the head of its lane (None: it did not ask, or has no lane).

    Args:
        connection: an open transaction.
        owner: this process instance, as it stands in the attempts.
        turns: at most one of them claims for each device.
        again: the answer to the same turns was lost: what they claimed is given again. Nothing else counts twice.
    """
    ended = [turn.sent for turn in turns if turn.sent is not None]
    receipts = [(turn.device_id, receipt) for turn in turns for receipt in turn.receipts]
    told: list[tuple[int, str, str | None]] = [(of, each.external_id, each.stage) for of, each in receipts]
    # A receipt may have overtaken the answer.
    told += [(each.device_id, each.external_id, None) for each in ended if each.external_id is not None]
    secrets = {turn.device_id: turn.secret for turn in turns if turn.secret is not None}
    heads = dispatch.claimed_before(connection, secrets) if again else []
    for head in heads:
        del secrets[head.lane.device_id]
    moved = None
    with connection.pipeline():
        if told:
            outbox.lock_external_ids(connection, [external_id for _, external_id, _ in told])
        if receipts:
            events.record_of(connection, [of for of, _ in receipts], [each.event for _, each in receipts])
        if ended:
            moved = dispatch.record(connection, ended)
        if told:
            outbox.apply_receipts(connection, told)
        if secrets:
            heads += dispatch.claim(connection, owner, secrets)
    if again and secrets:
        # The transaction whose answer was lost may have been committed only while these statements waited for it.
        heads += dispatch.claimed_before(connection, secrets)
    settled = {row["id"] for row in moved} if moved is not None else set()
    for each in ended:
        if each.message_id not in settled and each.external_id is not None:
            outbox.count_late_answer(connection, each, each.external_id)
    found = {head.lane.device_id: head for head in heads}
    return [found.get(turn.device_id) if turn.secret is not None else None for turn in turns]
