"""The outbox: every message from its acceptance to its one honest end. All of its SQL is in queries/outbox.sql."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import Any, Protocol

import psycopg

from config.errors import StorageUnavailable
from storage import care, events
from storage.care import Pacing
from storage.database import Connection, Database, Row
from storage.sql import queries

#: States a message does not leave by itself any more (delivered may still become read).
FINAL_STATES = frozenset({"sent", "delivered", "read", "failed", "expired", "cancelled"})

_SQL = queries("outbox")


@dataclass(frozen=True)
class NewMessage:
    """A validated message, ready to be accepted."""

    device_id: int
    recipient: str
    kind: str
    body: str
    media_url: str = ""
    media_name: str = ""
    idempotency_key: str | None = None
    priority: int = 0
    not_before: datetime | None = None
    expires_at: datetime | None = None

    @cached_property
    def digest(self) -> bytes:
        """What the message says and to whom: the same key with another digest is another message."""
        parts = (self.device_id, self.recipient, self.kind, self.body, self.media_url, self.media_name)
        return hashlib.sha256(json.dumps(parts).encode()).digest()


@dataclass(frozen=True)
class Accepted:
    """The message is committed under ``id``; ``repeated`` says that its key was known already."""

    id: int
    repeated: bool = False


@dataclass(frozen=True)
class KeyConflict:
    """The idempotency key belongs to message ``id``, which says something else."""

    id: int


class NotAccepted(Enum):
    """Why a message was not written down."""

    DEVICE_GONE = "device_gone"
    OPTED_OUT = "opted_out"


Answer = Accepted | KeyConflict | NotAccepted


class Attempt(Protocol):
    """One attempt at a message, however it came to be known."""

    @property
    def message_id(self) -> int:
        """The message."""

    @property
    def attempt_id(self) -> int:
        """The attempt."""

    @property
    def device_id(self) -> int:
        """The device that made it."""


@dataclass(frozen=True)
class Claim:
    """A message that one owner may now send once, with the secret that will prove what became of it.

    ``on_whatsapp`` is what WhatsApp said lately about the recipient; None: it was not asked, or too long ago.
    """

    message_id: int
    attempt_id: int
    attempt: int
    device_id: int
    recipient: str
    kind: str
    body: str
    media_url: str
    media_name: str
    secret: bytes
    on_whatsapp: bool | None = None


@dataclass(frozen=True)
class Orphan:
    """An attempt whose owner died before it recorded an outcome.

    ``session_stands`` says that the device has not been linked anew since: what the session stored is still there.
    """

    message_id: int
    device_id: int
    attempt_id: int
    secret: bytes
    external_id: str | None
    session_stands: bool


def accept(connection: Connection, messages: Sequence[NewMessage]) -> list[Answer]:
    """Write ``messages`` (in order, all in one statement) and say for each what came of it.

    A key that is used twice, now or before, gives the first message's id, or a conflict when the contents differ.
    A message for a device that was removed, or to a recipient that opted out, is not written; it is known all the
    same when it was accepted before the recipient did.
    """
    first_with_key: dict[str, NewMessage] = {}
    fresh: list[NewMessage] = []
    for message in messages:
        key = message.idempotency_key
        if key is None or key not in first_with_key:
            fresh.append(message)
        if key is not None:
            first_with_key.setdefault(key, message)
    rows = connection.execute(_SQL["accept"], columns_of(fresh)).fetchall()
    keyless = iter(sorted(row["id"] for row in rows if row["id"] is not None and row["idempotency_key"] is None))
    inserted = {row["idempotency_key"]: row["id"] for row in rows if row["idempotency_key"] is not None}
    turned_away = {
        id(fresh[row["position"] - 1]): NotAccepted.OPTED_OUT if row["stands"] else NotAccepted.DEVICE_GONE
        for row in rows
        if row["position"] is not None
    }
    known = {key: (inserted[key], first.digest) for key, first in first_with_key.items() if key in inserted}
    earlier = [key for key in first_with_key if key not in inserted]
    if earlier:
        for row in connection.execute(_SQL["by_keys"], {"keys": earlier}):
            known[row["idempotency_key"]] = row["id"], bytes(row["content_digest"])
    answers: list[Answer] = []
    for message in messages:
        key = message.idempotency_key
        first = message if key is None else first_with_key[key]
        if key is None or key not in known:
            answers.append(turned_away[id(first)] if id(first) in turned_away else Accepted(next(keyless)))
            continue
        message_id, digest = known[key]
        if digest != message.digest:
            answers.append(KeyConflict(message_id))
        else:
            answers.append(Accepted(message_id, repeated=inserted.pop(key, None) is None))
    return answers


def columns_of(messages: Sequence[NewMessage]) -> dict[str, list[Any]]:
    """Return messages as the columns that the statement which accepts them takes."""
    return {
        "device_ids": [message.device_id for message in messages],
        "recipients": [message.recipient for message in messages],
        "kinds": [message.kind for message in messages],
        "bodies": [message.body for message in messages],
        "media_urls": [message.media_url for message in messages],
        "media_names": [message.media_name for message in messages],
        "keys": [message.idempotency_key for message in messages],
        "digests": [message.digest for message in messages],
        "priorities": [message.priority for message in messages],
        "not_before": [message.not_before for message in messages],
        "expires_at": [message.expires_at for message in messages],
    }


def lanes_with_work(connection: Connection, device_ids: Iterable[int]) -> list[int]:
    """Return which of these devices have a message that may go now."""
    return [row["id"] for row in connection.execute(_SQL["lanes_with_work"], {"device_ids": list(device_ids)})]


class OpenTransaction(Database):
    """A transaction that somebody else began, and will commit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run a block in it."""
        yield self._connection

    def close(self) -> None:
        """Leave it open: it is not this one's to end."""


class Outbox:
    """The outbox as a sender sees it. Each method is one committed transaction.

    Args:
        database: Salamander's tables.
        owner: this process instance, as it stands in the attempts.
        pacing: the rules that a claim must obey; None: none, not even a device's own.
    """

    def __init__(self, database: Database, owner: str, pacing: Pacing | None = None) -> None:
        self.database = database
        self.owner = owner
        self._pacing = pacing

    def within(self, connection: Connection) -> Outbox:
        """Return this outbox within a transaction that is open already: nothing is committed before that is."""
        return Outbox(OpenTransaction(connection), self.owner, self._pacing)

    def lanes_with_work(self, device_ids: Iterable[int]) -> list[int]:
        """Return which of these devices have a message that may go now, and expire those that came too late."""
        ids = list(device_ids)
        with self.database.transaction() as connection:
            connection.execute(_SQL["expire"], {"device_ids": ids})
            return lanes_with_work(connection, ids)

    def claim(self, device_id: int, secret: bytes, *, again: bool = True) -> Claim | None:
        """Take the head of a lane and mark it `sending`, with ``secret`` as the proof of this attempt.

        None: nothing is to be sent, or the lane must wait, and then its device's row says why and until when.
        Repeated with the same secret (the answer to the first was lost), it gives the same claim, if it is told that it
        is asked ``again``.

        Raises:
            StorageUnavailable: as ever, or the first claim was just being committed; ask again.
        """
        with self.database.transaction() as connection:
            row = connection.execute(_SQL["claimed_with"], {"secret": secret}).fetchone() if again else None
            try:
                row = row or self._claim_head(connection, device_id, secret)
            except psycopg.errors.UniqueViolation:
                raise StorageUnavailable("The same claim was being made.", "It is made again.") from None
        if row is None:
            return None
        return Claim(
            message_id=row["id"],
            attempt_id=row["attempt_id"],
            attempt=row["attempts"],
            device_id=device_id,
            recipient=row["recipient"],
            kind=row["kind"],
            body=row["body"],
            media_url=row["media_url"],
            media_name=row["media_name"],
            secret=secret,
            on_whatsapp=row["on_whatsapp"],
        )

    def _claim_head(self, connection: Connection, device_id: int, secret: bytes) -> Row | None:
        """Claim the first message that may go. A lane without any limit costs one statement a message."""
        pacing = self._pacing
        paced, lowest = pacing is None, -32768
        ask_first = pacing is not None and pacing.everywhere
        while True:
            if pacing is not None and ask_first:
                lane = care.lane_with_work(connection, device_id)
                if lane is None:
                    return None
                window = pacing.window_seconds(lane)
                wait = pacing.wait(lane, care.sends_of(connection, device_id, window) if window else care.Sends())
                if wait is not None:
                    care.hold(connection, device_id, wait)
                    return None
                paced, lowest = True, lane.priority
            arguments = {
                "device_id": device_id,
                "owner": self.owner,
                "secret": secret,
                "paced": paced,
                "lowest": lowest,
            }
            row = connection.execute(_SQL["claim"], arguments).fetchone()
            if row is None:
                return None
            if row["attempt_id"] is not None:
                return row
            cancelled = row["id"] is not None
            if not cancelled and (paced or not row["limited"]):
                return None
            ask_first = ask_first or bool(row["limited"])

    def sent(self, attempt: Attempt, external_id: str | None, reason: str = "") -> None:
        """Record that WhatsApp or the platform took the message, under its id there if it gave one.

        Receipts that came before this was recorded are applied at once. An attempt in doubt that is answered after
        its message went on (it was queued or sent again) counts like a receipt.
        """
        with self.database.transaction() as connection:
            lock_external_ids(connection, [] if external_id is None else [external_id])
            settled = _settle(connection, attempt, "sent", "sent", reason, external_id, ("sending", "in_doubt"))
            if external_id is None:
                return
            if settled:
                apply_receipts(connection, [(attempt.device_id, external_id, None)])
            else:
                count_late_answer(connection, attempt, external_id)

    def failed(self, attempt: Attempt, code: str, reason: str) -> None:
        """Record that the message was refused for good."""
        self._settle_one(attempt, "failed", code, reason, None, ("sending", "in_doubt"))

    def queued_again(self, attempt: Attempt, code: str, reason: str) -> None:
        """Record that the attempt certainly did not send the message; it is at the head of its lane again."""
        self._settle_one(attempt, "queued", code, reason, None, ("sending", "in_doubt"))

    def in_doubt(self, attempt: Attempt, code: str, reason: str, external_id: str | None) -> None:
        """Record that nobody can tell whether the attempt sent the message."""
        self._settle_one(attempt, "in_doubt", code, reason, external_id, ("sending",))

    def hold_lane(self, device_id: int, seconds: float, reason: str) -> None:
        """Let a device's lane wait ``seconds``, so that its order stays while its account cannot send."""
        with self.database.transaction() as connection:
            connection.execute(_SQL["hold_lane"], {"device_id": device_id, "seconds": seconds, "reason": reason})

    def orphans(self, device_ids: Iterable[int]) -> list[Orphan]:
        """Return the attempts on these devices that another owner left without an outcome."""
        return self._orphans("orphans", device_ids=list(device_ids), owner=self.owner)

    def stranded(self, device_ids: Iterable[int], seconds: float) -> list[Orphan]:
        """Return the attempts on these devices, whoever made them, that have no outcome after ``seconds``."""
        return self._orphans("stranded", device_ids=list(device_ids), seconds=seconds)

    def _orphans(self, query: str, **arguments: object) -> list[Orphan]:
        with self.database.transaction() as connection:
            rows = connection.execute(_SQL[query], arguments).fetchall()
        return [
            Orphan(
                row["message_id"],
                row["device_id"],
                row["attempt_id"],
                bytes(row["secret"]),
                row["external_id"],
                row["session_stands"],
            )
            for row in rows
        ]

    def end_patience(self, device_ids: Iterable[int], seconds: float) -> int:
        """Queue the messages of these devices again that were in doubt for ``seconds``; return how many."""
        arguments = {"device_ids": list(device_ids), "seconds": seconds}
        with self.database.transaction() as connection:
            return len(connection.execute(_SQL["end_patience"], arguments).fetchall())

    def apply_receipts(self, device_id: int, receipts: Sequence[tuple[str, str]]) -> int:
        """Apply (external id, stage) receipts, stage being sent, delivered or read; return how many moved."""
        with self.database.transaction() as connection:
            lock_external_ids(connection, [external_id for external_id, _ in receipts])
            moved = apply_receipts(connection, [(device_id, external_id, stage) for external_id, stage in receipts])
            return len(moved.fetchall())

    def _settle_one(
        self,
        attempt: Attempt,
        state: str,
        code: str,
        reason: str,
        external_id: str | None,
        origin: tuple[str, ...],
    ) -> None:
        """Settle what was not sent for certain; receipts that are known for any attempt in doubt say that it was."""
        with self.database.transaction() as connection:
            arguments = {"message_id": attempt.message_id}
            doubtful = [
                (row["device_id"], row["external_id"]) for row in connection.execute(_SQL["doubtful_ids"], arguments)
            ]
            if external_id is not None:
                doubtful.append((attempt.device_id, external_id))
            lock_external_ids(connection, [each for _, each in doubtful])
            if _settle(connection, attempt, state, code, reason, external_id, origin):
                for device_id, each in doubtful:
                    apply_receipts(connection, [(device_id, each, None)])


def _settle(
    connection: Connection,
    attempt: Attempt | int,
    state: str,
    code: str,
    reason: str,
    external_id: str | None,
    origin: tuple[str, ...],
) -> bool:
    """Move a message on, by the word of its last attempt, or (given by its id alone) of the operator."""
    row = connection.execute(
        _SQL["settle"],
        {
            "message_id": attempt if isinstance(attempt, int) else attempt.message_id,
            "attempt_id": None if isinstance(attempt, int) else attempt.attempt_id,
            "state": state,
            "code": code,
            "reason": reason,
            "external_id": external_id,
            "from_states": list(origin),
        },
    ).fetchone()
    return row is not None


def count_late_answer(connection: Connection, attempt: Attempt, external_id: str) -> None:
    """Take an answer that came after its attempt was in doubt and its message had moved on as a receipt."""
    arguments = {"attempt_id": attempt.attempt_id, "external_id": external_id}
    if connection.execute(_SQL["name_doubt"], arguments).fetchone() is None:
        return
    body = {"message_id": external_id, "stage": "sent"}
    events.record(connection, attempt.device_id, [events.Event("receipt", f"{external_id}:sent", body)])
    apply_receipts(connection, [(attempt.device_id, external_id, "sent")])


def lock_external_ids(connection: Connection, external_ids: Sequence[str]) -> None:
    """Let one at a time of those go on that learn a message's id and those that bring its receipts."""
    connection.execute(_SQL["lock_external_ids"], {"external_ids": list(external_ids)})


def apply_receipts(connection: Connection, receipts: Sequence[tuple[int, str, str | None]]) -> psycopg.Cursor[Row]:
    """Apply (device, external id, stage) receipts; return a cursor on the messages that moved.

    Stage None: whatever was reported of that id before.
    """
    arguments = {
        "device_ids": [device_id for device_id, _, _ in receipts],
        "external_ids": [external_id for _, external_id, _ in receipts],
        "stages": [stage for _, _, stage in receipts],
    }
    return connection.execute(_SQL["apply_receipts"], arguments)


def expire_everywhere(connection: Connection) -> None:
    """Expire whatever came too late, also on devices that are paused or unlinked."""
    connection.execute(_SQL["expire_everywhere"])


def end_removed(connection: Connection, seconds: float) -> None:
    """End what removed devices left behind: queued is cancelled, under way for ``seconds`` is in doubt."""
    connection.execute(_SQL["end_removed"], {"seconds": seconds})


def cancel(connection: Connection, message_id: int) -> bool:
    """Cancel a message that is still queued; say whether it was."""
    return connection.execute(_SQL["cancel"], {"message_id": message_id}).fetchone() is not None


def is_of_removed_device(connection: Connection, message_id: int) -> bool:
    """Return whether the device of a message was removed, so that nobody sends for it any more."""
    return connection.execute(_SQL["is_of_removed_device"], {"message_id": message_id}).fetchone() is not None


def resolve(connection: Connection, message_id: int, *, sent: bool) -> bool:
    """Settle an in-doubt message by the operator's word; say whether it was in doubt."""
    state, reason = (
        ("sent", "The operator says it was sent.")
        if sent
        else ("queued", "The operator says it was not sent; it is sent again.")
    )
    return _settle(connection, message_id, state, "resolved", reason, None, ("in_doubt",))


def message(connection: Connection, message_id: int) -> Row | None:
    """Return one message with its story and its attempts, or None."""
    row = connection.execute(_SQL["message"], {"message_id": message_id}).fetchone()
    if row is None:
        return None
    row["story"] = connection.execute(_SQL["story"], {"message_id": message_id}).fetchall()
    row["attempts_made"] = connection.execute(_SQL["attempts"], {"message_id": message_id}).fetchall()
    return row


def list_messages(
    connection: Connection, *, device: str | None, state: str | None, limit: int, key: str | None = None
) -> list[Row]:
    """Return messages, newest first (in-doubt ones oldest first); of an idempotency key there is one at most."""
    question = _SQL["list_of_key" if key is not None else "list" if device is None else "list_of_device"]
    return connection.execute(question, {"device": device, "state": state, "key": key, "limit": limit}).fetchall()


def counts(connection: Connection) -> dict[str, int]:
    """Return how many messages stand in each state."""
    return {row["state"]: row["messages"] for row in connection.execute(_SQL["counts"])}


def states(connection: Connection, message_ids: Sequence[int]) -> dict[int, Row]:
    """Return the state, with its reason, of each of these messages."""
    return {row["id"]: row for row in connection.execute(_SQL["states"], {"ids": list(message_ids)})}


def cancel_lane(connection: Connection, device_id: int) -> None:
    """Cancel everything a device has still to send."""
    connection.execute(_SQL["cancel_lane"], {"device_id": device_id})


def release_lane(connection: Connection, device_id: int) -> None:
    """End a lane's wait."""
    connection.execute(_SQL["release_lane"], {"device_id": device_id})


def unfinished_media(connection: Connection, urls: Sequence[str]) -> frozenset[str]:
    """Return which of these media are named by a message that has no outcome yet."""
    return frozenset(row["media_url"] for row in connection.execute(_SQL["unfinished_media"], {"urls": list(urls)}))
