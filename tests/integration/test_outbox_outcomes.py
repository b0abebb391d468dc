"""The outbox on a real server: what becomes of messages, and the story that is told of each."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from storage import dispatch, events, outbox
from storage.database import Connection, Database, SingleConnection
from storage.events import Event
from storage.outbox import Claim, Outbox
from tests.integration.conftest import WaitUntil
from tests.support.outbox import accept_texts, claim_next, new_device, state_of, story_of

STATES = ("queued", "sending", "sent", "delivered", "read", "failed", "expired", "cancelled", "in_doubt")


@pytest.fixture
def sender(database: Database) -> Outbox:
    return Outbox(database, "owner")


@pytest.fixture
def device_id(connection: Connection) -> int:
    return new_device(connection)


@pytest.fixture
def claim(connection: Connection, sender: Outbox, device_id: int) -> Claim:
    """A message that is being sent."""
    accept_texts(connection, device_id, "hello")
    return claim_next(sender, device_id)


def record_receipt(connection: Connection, device_id: int, external_id: str, stage: str) -> None:
    """Record a receipt as the device does, before it is applied."""
    body = {"message_id": external_id, "stage": stage}
    events.record(connection, device_id, [Event("receipt", f"{external_id}:{stage}", body)])


# --- transitions -----------------------------------------------------------------------------------------

Move = Callable[[Outbox, Claim], object]

#: Each way out of a state, the state it leads to, and the states it may start from.
MOVES: dict[str, tuple[Move, str, set[str]]] = {
    "sent": (lambda sender, claim: sender.sent(claim, None), "sent", {"sending", "in_doubt"}),
    "failed": (
        lambda sender, claim: sender.failed(claim, "no", "No."),
        "failed",
        {"sending", "in_doubt"},
    ),
    "queued again": (
        lambda sender, claim: sender.queued_again(claim, "not_sent", "Not sent."),
        "queued",
        {"sending", "in_doubt"},
    ),
    "in doubt": (
        lambda sender, claim: sender.in_doubt(claim, "no_answer", "No answer.", None),
        "in_doubt",
        {"sending"},
    ),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("origin", STATES)
def test_only_the_allowed_states_are_left(
    connection: Connection,
    sender: Outbox,
    claim: Claim,
    origin: str,
    move: str,
) -> None:
    carry_out, target, origins = MOVES[move]
    connection.execute("update outbox set state = %s where id = %s", [origin, claim.message_id])
    before = story_of(connection, claim.message_id)
    carry_out(sender, claim)
    moved = origin in origins
    assert state_of(connection, claim.message_id) == (target if moved else origin)
    assert story_of(connection, claim.message_id) == before + [target] * moved


@pytest.mark.parametrize("origin", STATES)
def test_the_operator_settles_doubts_and_nothing_else(connection: Connection, claim: Claim, origin: str) -> None:
    connection.execute("update outbox set state = %s where id = %s", [origin, claim.message_id])
    assert outbox.resolve(connection, claim.message_id, sent=True) == (origin == "in_doubt")
    assert state_of(connection, claim.message_id) == ("sent" if origin == "in_doubt" else origin)


def test_the_story_of_a_message_tells_each_state_with_its_reason(
    connection: Connection, sender: Outbox, claim: Claim
) -> None:
    sender.queued_again(claim, "not_connected", "The device was not connected.")
    again = claim_next(sender, claim.device_id)
    sender.in_doubt(again, "no_answer", "WhatsApp did not answer in time.", "3EB0A1")
    assert outbox.resolve(connection, claim.message_id, sent=False)
    last = claim_next(sender, claim.device_id)
    sender.sent(last, "3EB0A2")
    sender.apply_receipts(claim.device_id, [("3EB0A2", "delivered")])
    sender.apply_receipts(claim.device_id, [("3EB0A2", "read")])
    found = outbox.message(connection, claim.message_id)
    assert found is not None
    assert [(each["state"], each["reason_code"]) for each in found["story"]] == [
        ("queued", "accepted"),
        ("sending", "attempt"),
        ("queued", "not_connected"),
        ("sending", "attempt"),
        ("in_doubt", "no_answer"),
        ("queued", "resolved"),
        ("sending", "attempt"),
        ("sent", "sent"),
        ("delivered", "receipt"),
        ("read", "receipt"),
    ]
    times = [each["at"] for each in found["story"]]
    assert times == sorted(times)
    assert [(each["number"], each["outcome"], each["reason"]) for each in found["attempts_made"]] == [
        (1, "queued", "The device was not connected."),
        (2, "in_doubt", "WhatsApp did not answer in time."),
        (3, "sent", ""),
    ]
    assert all(each["ended_at"] is not None for each in found["attempts_made"])
    assert (found["state"], found["attempts"], found["external_id"]) == ("read", 3, "3EB0A2")


def test_what_certainly_did_not_leave_is_at_the_head_of_its_lane_again(
    connection: Connection, sender: Outbox, claim: Claim
) -> None:
    accept_texts(connection, claim.device_id, "the next")
    sender.queued_again(claim, "not_sent", "Not sent.")
    again = claim_next(sender, claim.device_id)
    assert (again.message_id, again.attempt) == (claim.message_id, 2)
    assert again.secret != claim.secret


def test_a_doubt_does_not_block_its_lane(connection: Connection, sender: Outbox, claim: Claim) -> None:
    accept_texts(connection, claim.device_id, "the next")
    sender.in_doubt(claim, "no_answer", "No answer.", "3EB0B1")
    assert sender.lanes_with_work([claim.device_id]) == [claim.device_id]
    assert claim_next(sender, claim.device_id).body == "the next"


def test_a_message_that_does_not_exist_is_settled_by_nobody(
    connection: Connection, sender: Outbox, claim: Claim
) -> None:
    nobody = replace(claim, message_id=0)
    sender.failed(nobody, "no", "No.")
    sender.in_doubt(nobody, "no", "No.", "3EB0")
    assert not outbox.resolve(connection, 0, sent=True)
    assert outbox.message(connection, 0) is None
    assert outbox.states(connection, [0]) == {}


# --- what an owner leaves behind --------------------------------------------------------------------------


def test_attempts_of_another_owner_are_orphans(database: Database, connection: Connection, device_id: int) -> None:
    died, alive = Outbox(database, "died"), Outbox(database, "alive")
    accept_texts(connection, device_id, "first", "second", "third")
    lost, done = claim_next(died, device_id), claim_next(died, device_id)
    died.sent(done, None)
    claim_next(alive, device_id)
    [orphan] = alive.orphans([device_id])
    assert (orphan.message_id, orphan.attempt_id, orphan.secret) == (lost.message_id, lost.attempt_id, lost.secret)
    assert orphan.external_id is None
    alive.queued_again(orphan, "never_left", "It never left.")
    assert alive.orphans([device_id]) == []
    assert alive.orphans([new_device(connection)]) == []
    assert alive.orphans([]) == []


def test_doubts_are_listed_oldest_first_and_asked_about_with_the_secret_of_their_last_attempt(
    connection: Connection, sender: Outbox, device_id: int
) -> None:
    accept_texts(connection, device_id, "first", "second", "third")
    claims = [claim_next(sender, device_id) for _ in range(2)]
    sender.queued_again(claims[0], "not_sent", "Not sent.")
    claims[0] = claim_next(sender, device_id)
    for each in reversed(claims):
        sender.in_doubt(each, "no_answer", "No answer.", None)
    doubtful = dispatch.doubtful(connection, [device_id])
    assert {each.message_id: each.secret for each in doubtful} == {each.message_id: each.secret for each in claims}
    name = outbox.message(connection, claims[0].message_id)["device"]  # type: ignore[index]  # it is there
    listed = outbox.list_messages(connection, device=name, state="in_doubt", limit=10)
    assert [row["id"] for row in listed] == [each.message_id for each in claims]
    newest_first = [row["body"] for row in outbox.list_messages(connection, device=name, state=None, limit=2)]
    assert newest_first == ["third", "second"]


# --- receipts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "story"),
    [
        (["delivered"], ["delivered"]),
        (["delivered", "read"], ["delivered", "read"]),
        (["read", "delivered", "sent"], ["read"]),
        (["delivered", "delivered"], ["delivered"]),
        (["sent"], []),
        (["read", "read", "delivered"], ["read"]),
    ],
)
def test_receipts_move_a_sent_message_forward_only(
    connection: Connection, sender: Outbox, claim: Claim, stages: list[str], story: list[str]
) -> None:
    sender.sent(claim, "3EB0C1")
    moved = [sender.apply_receipts(claim.device_id, [("3EB0C1", stage)]) for stage in stages]
    assert sum(moved) == len(story)
    assert story_of(connection, claim.message_id) == ["queued", "sending", "sent", *story]


def test_of_several_receipts_at_once_the_furthest_counts(connection: Connection, sender: Outbox, claim: Claim) -> None:
    sender.sent(claim, "3EB0D1")
    receipts = [("3EB0D1", "delivered"), ("3EB0D1", "read"), ("3EB0D1", "sent"), ("unknown", "read")]
    assert sender.apply_receipts(claim.device_id, receipts) == 1
    assert story_of(connection, claim.message_id)[-2:] == ["sent", "read"]
    assert sender.apply_receipts(claim.device_id, []) == 0


def test_a_receipt_concerns_its_own_device_only(connection: Connection, sender: Outbox, claim: Claim) -> None:
    sender.sent(claim, "3EB0E1")
    assert sender.apply_receipts(new_device(connection), [("3EB0E1", "read")]) == 0
    assert state_of(connection, claim.message_id) == "sent"


def test_receipts_that_came_before_the_acknowledgement_count(
    connection: Connection, sender: Outbox, claim: Claim
) -> None:
    for stage in ("delivered", "read"):
        record_receipt(connection, claim.device_id, "3EB0F1", stage)
        assert sender.apply_receipts(claim.device_id, [("3EB0F1", stage)]) == 0
    sender.sent(claim, "3EB0F1")
    assert story_of(connection, claim.message_id)[-2:] == ["sent", "read"]


@pytest.mark.parametrize("final", ["failed", "expired", "cancelled", "queued", "sending"])
def test_a_receipt_leaves_other_states_alone(connection: Connection, sender: Outbox, claim: Claim, final: str) -> None:
    sender.sent(claim, "3EB0G1")
    connection.execute("update outbox set state = %s where id = %s", [final, claim.message_id])
    assert sender.apply_receipts(claim.device_id, [("3EB0G1", "read")]) == 0
    assert state_of(connection, claim.message_id) == final


@pytest.mark.parametrize("stage", ["sent", "delivered", "read"])
@pytest.mark.parametrize("early", [True, False], ids=["before the doubt", "after the doubt"])
def test_a_receipt_settles_a_doubt(
    connection: Connection, sender: Outbox, claim: Claim, stage: str, early: bool
) -> None:
    def receive() -> None:
        record_receipt(connection, claim.device_id, "3EB0H1", stage)
        sender.apply_receipts(claim.device_id, [("3EB0H1", stage)])

    if early:
        receive()
    sender.in_doubt(claim, "process_ended", "Its process ended.", "3EB0H1")
    if not early:
        receive()
    found = outbox.message(connection, claim.message_id)
    assert found is not None
    assert (found["state"], found["reason"]) == (stage, "Settled by a receipt.")
    assert story_of(connection, claim.message_id) == ["queued", "sending", "in_doubt", stage]


class _LateCommit(Database):
    """A connection whose transactions are committed only when they are told to be."""

    def __init__(self, url: str) -> None:
        self._single = SingleConnection(url)
        self.work_done = threading.Event()
        self.may_commit = threading.Event()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self._single.transaction() as connection:
            yield connection
            self.work_done.set()
            assert self.may_commit.wait(20)

    def close(self) -> None:
        self._single.close()


@pytest.mark.parametrize("outcome", ["sent", "in_doubt"])
def test_a_receipt_that_meets_an_outcome_being_committed_is_not_lost(
    storage_url: str,
    connection: Connection,
    sender: Outbox,
    claim: Claim,
    outcome: str,
    wait_until: WaitUntil,
) -> None:
    late = _LateCommit(storage_url)
    writer = Outbox(late, "owner")

    def write() -> None:
        if outcome == "sent":
            writer.sent(claim, "3EB0J1")
        else:
            writer.in_doubt(claim, "no_answer", "No answer.", "3EB0J1")

    def receive() -> None:
        sender.apply_receipts(claim.device_id, [("3EB0J1", "delivered")])

    writing, receiving = threading.Thread(target=write), threading.Thread(target=receive)
    writing.start()
    assert late.work_done.wait(20)
    record_receipt(connection, claim.device_id, "3EB0J1", "delivered")
    receiving.start()
    waiting = "select 1 from pg_locks where not granted"
    wait_until(
        lambda: not receiving.is_alive() or connection.execute(waiting).fetchone() is not None,
        "the receipt is applied, or waits for the outcome",
    )
    late.may_commit.set()
    writing.join(20)
    receiving.join(20)
    late.close()
    assert state_of(connection, claim.message_id) == "delivered"
