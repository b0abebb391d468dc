"""The outbox on a real server: what is accepted, and in which order it goes."""

from __future__ import annotations

import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from storage import devices, outbox
from storage.database import Connection, Database, SingleConnection
from storage.outbox import Accepted, KeyConflict, Outbox
from tests.support.outbox import accept, accept_texts, claim_next, drain, new_device, state_of, story_of, text

SOON = timedelta(hours=1)


def secret() -> bytes:
    return secrets.token_bytes(32)


@pytest.fixture
def sender(database: Database) -> Outbox:
    return Outbox(database, "owner")


@pytest.fixture
def device_id(connection: Connection) -> int:
    return new_device(connection)


# --- accepting -------------------------------------------------------------------------------------------


def test_a_batch_is_accepted_in_its_order(connection: Connection, sender: Outbox, device_id: int) -> None:
    bodies = [f"message {number}" for number in range(100)]
    messages = [
        text(device_id, body, idempotency_key=secret().hex() if number % 3 == 0 else None)
        for number, body in enumerate(bodies)
    ]
    answers = accept(connection, *messages)
    ids = [answer.id for answer in answers]
    assert ids == sorted(set(ids))
    assert answers == [Accepted(id_) for id_ in ids]
    assert [outbox.message(connection, id_)["body"] for id_ in ids] == bodies  # type: ignore[index]  # all are there
    assert drain(sender, device_id) == bodies


def test_an_empty_batch_is_accepted(connection: Connection) -> None:
    assert accept(connection) == []


def test_a_known_key_answers_with_the_first_message(connection: Connection, device_id: int) -> None:
    key = secret().hex()
    [first] = accept(connection, text(device_id, idempotency_key=key))
    [second] = accept(connection, text(device_id, idempotency_key=key))
    assert (first, second) == (Accepted(first.id), Accepted(first.id, repeated=True))
    assert story_of(connection, first.id) == ["queued"]


def test_a_key_twice_in_a_batch_is_one_message(connection: Connection, sender: Outbox, device_id: int) -> None:
    key, other = secret().hex(), secret().hex()
    answers = accept(
        connection,
        text(device_id, "one", idempotency_key=key),
        text(device_id, "two"),
        text(device_id, "one", idempotency_key=key),
        text(device_id, "three", idempotency_key=other),
        text(device_id, "another", idempotency_key=key),
    )
    first, two, again, three, conflict = answers
    assert (first, again) == (Accepted(first.id), Accepted(first.id, repeated=True))
    assert conflict == KeyConflict(first.id)
    assert not {first.id, two.id, three.id} & ({first.id} & {two.id, three.id})
    assert drain(sender, device_id) == ["one", "two", "three"]


def test_a_known_key_with_other_content_is_a_conflict(connection: Connection, device_id: int) -> None:
    key = secret().hex()
    [first] = accept(connection, text(device_id, "one", idempotency_key=key))
    neighbour = new_device(connection)
    for other in (
        text(device_id, "two", idempotency_key=key),
        text(neighbour, "one", idempotency_key=key),
        text(device_id, "one", media_url="https://example.com/a.png", idempotency_key=key),
    ):
        assert accept(connection, other) == [KeyConflict(first.id)]
    # The schedule is no content: a repeated request may give another one.
    assert accept(connection, text(device_id, "one", priority=5, idempotency_key=key)) == [
        Accepted(first.id, repeated=True)
    ]


def test_contents_that_share_their_letters_are_still_different() -> None:
    assert text(1, "a", media_url="b\x1fc").digest != text(1, "a\x1fb", media_url="c").digest


def test_the_same_key_at_the_same_moment_is_one_message(storage_url: str, connection: Connection) -> None:
    device_id, key = new_device(connection), secret().hex()

    def send(_: int) -> Accepted | KeyConflict:
        database = SingleConnection(storage_url)
        try:
            with database.transaction() as own:
                return accept(own, text(device_id, idempotency_key=key))[0]
        finally:
            database.close()

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(send, range(8)))
    assert len({answer.id for answer in answers}) == 1
    assert sorted(isinstance(answer, Accepted) and answer.repeated for answer in answers) == [False] + [True] * 7


def test_what_is_rolled_back_was_never_accepted(connection: Connection, sender: Outbox, device_id: int) -> None:
    def accept_and_fail() -> None:
        with connection.transaction():
            outbox.accept(connection, [text(device_id)])
            raise InterruptedError

    with pytest.raises(InterruptedError):
        accept_and_fail()
    assert sender.lanes_with_work([device_id]) == []


@pytest.mark.parametrize(
    "body", ["", "  spaces  ", "line\r\nbreaks\t", "Ünïcödé 🎉 \u202e", "'; drop table outbox; --"]
)
def test_a_text_is_stored_as_it_is(connection: Connection, sender: Outbox, device_id: int, body: str) -> None:
    accept_texts(connection, device_id, body)
    assert claim_next(sender, device_id).body == body


# --- the order of a lane ---------------------------------------------------------------------------------


def test_a_higher_priority_overtakes_and_equals_keep_their_order(
    connection: Connection, sender: Outbox, device_id: int
) -> None:
    accept_texts(connection, device_id, "campaign 1", "campaign 2")
    accept_texts(connection, device_id, "code 1", "code 2", priority=10)
    accept_texts(connection, device_id, "newsletter", priority=-10)
    assert drain(sender, device_id) == ["code 1", "code 2", "campaign 1", "campaign 2", "newsletter"]


def test_a_scheduled_message_waits_for_its_time_and_holds_up_nobody(
    connection: Connection, sender: Outbox, device_id: int
) -> None:
    [later] = accept_texts(connection, device_id, "later", not_before=datetime.now(UTC) + SOON)
    assert sender.lanes_with_work([device_id]) == []
    assert sender.claim(device_id, secret()) is None
    accept_texts(connection, device_id, "now")
    assert drain(sender, device_id) == ["now"]
    connection.execute("update outbox set not_before = now() where id = %s", [later])
    assert sender.lanes_with_work([device_id]) == [device_id]
    assert drain(sender, device_id) == ["later"]


def test_a_message_whose_time_ran_out_is_not_sent(connection: Connection, sender: Outbox, device_id: int) -> None:
    [late] = accept_texts(connection, device_id, "late", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    [good] = accept_texts(connection, device_id, "good", expires_at=datetime.now(UTC) + SOON)
    assert claim_next(sender, device_id).message_id == good
    assert state_of(connection, late) == "queued"
    assert sender.lanes_with_work([device_id]) == []
    assert story_of(connection, late) == ["queued", "expired"]


def test_a_held_lane_waits_until_it_is_released(connection: Connection, sender: Outbox, device_id: int) -> None:
    neighbour = new_device(connection)
    accept_texts(connection, device_id, "held")
    accept_texts(connection, neighbour, "free")
    sender.hold_lane(device_id, 60, "The account is throttled.")
    assert sender.lanes_with_work([device_id, neighbour]) == [neighbour]
    assert sender.claim(device_id, secret()) is None
    held = devices.by_id(connection, device_id)
    assert held is not None
    assert held.held_reason == "The account is throttled."
    outbox.release_lane(connection, device_id)
    assert sender.lanes_with_work([device_id]) == [device_id]
    sender.hold_lane(device_id, 0, "This wait is over at once.")
    assert drain(sender, device_id) == ["held"]


def test_a_paused_device_sends_nothing(connection: Connection, sender: Outbox, device_id: int) -> None:
    accept_texts(connection, device_id, "waiting")
    device = devices.by_id(connection, device_id)
    assert device is not None
    devices.set_desired_state(connection, device, "paused")
    assert sender.lanes_with_work([device_id]) == []
    assert sender.claim(device_id, secret()) is None
    devices.set_desired_state(connection, device, "running")
    assert drain(sender, device_id) == ["waiting"]


def test_cancelling_reaches_what_is_queued_and_nothing_else(
    connection: Connection, sender: Outbox, device_id: int
) -> None:
    first, second, third = accept_texts(connection, device_id, "first", "second", "third")
    claim_next(sender, device_id)
    assert not outbox.cancel(connection, first)
    assert outbox.cancel(connection, second)
    assert not outbox.cancel(connection, second)
    assert not outbox.cancel(connection, 0)
    assert story_of(connection, second) == ["queued", "cancelled"]
    outbox.cancel_lane(connection, device_id)
    assert [state_of(connection, each) for each in (first, second, third)] == ["sending", "cancelled", "cancelled"]
    assert story_of(connection, third) == ["queued", "cancelled"]


# --- claiming --------------------------------------------------------------------------------------------


def test_a_claim_is_committed_before_it_is_given(connection: Connection, sender: Outbox, device_id: int) -> None:
    [message_id] = accept_texts(connection, device_id, "hello")
    proof = secret()
    claim = sender.claim(device_id, proof)
    assert claim is not None
    assert (claim.message_id, claim.attempt, claim.secret, claim.body) == (message_id, 1, proof, "hello")
    assert story_of(connection, message_id) == ["queued", "sending"]
    [attempt] = outbox.message(connection, message_id)["attempts_made"]  # type: ignore[index]  # it is there
    assert (attempt["number"], attempt["ended_at"], attempt["outcome"]) == (1, None, None)


@pytest.mark.parametrize("waiting", [0, 1, 5])
def test_a_claim_repeated_with_its_secret_is_the_same_claim(
    connection: Connection, sender: Outbox, device_id: int, waiting: int
) -> None:
    accept_texts(connection, device_id, "first", *["more"] * waiting)
    proof = secret()
    first = sender.claim(device_id, proof)
    assert first is not None
    assert sender.claim(device_id, proof) == first
    assert outbox.message(connection, first.message_id)["attempts"] == 1  # type: ignore[index]  # it is there
    assert story_of(connection, first.message_id) == ["queued", "sending"]


def test_a_secret_that_has_served_claims_nothing_again(connection: Connection, sender: Outbox, device_id: int) -> None:
    accept_texts(connection, device_id, "first", "second")
    proof = secret()
    claim = sender.claim(device_id, proof)
    assert claim is not None
    sender.sent(claim, None)
    assert sender.claim(device_id, proof) is None
    assert claim_next(sender, device_id).body == "second"


def test_an_empty_lane_gives_no_claim(sender: Outbox, device_id: int) -> None:
    assert sender.claim(device_id, secret()) is None


def test_four_claimers_at_once_send_each_message_once_and_each_lane_in_order(
    storage_url: str, connection: Connection
) -> None:
    lanes = [new_device(connection) for _ in range(50)]
    accepted = {
        device_id: accept_texts(connection, device_id, *(str(number) for number in range(40))) for device_id in lanes
    }

    def work(number: int) -> list[tuple[int, int]]:
        shuffled = random.Random(number)  # noqa: S311 - no secret
        single = SingleConnection(storage_url)
        sender = Outbox(single, f"owner-{number}")
        done = []
        while found := sender.lanes_with_work(lanes):
            shuffled.shuffle(found)
            for device_id in found:
                claim = sender.claim(device_id, secret())
                if claim is not None:
                    sender.sent(claim, None)
                    done.append((device_id, claim.message_id))
        single.close()
        return done

    with ThreadPoolExecutor(4) as threads:
        done = [pair for pairs in threads.map(work, range(4)) for pair in pairs]
    assert sorted(done) == sorted((device_id, id_) for device_id in lanes for id_ in accepted[device_id])
    attempts = connection.execute(
        "select o.device_id, a.message_id from attempt a join outbox o on o.id = a.message_id"
        " where o.device_id = any(%s) order by a.id",
        [lanes],
    ).fetchall()
    for device_id in lanes:
        assert [row["message_id"] for row in attempts if row["device_id"] == device_id] == accepted[device_id]
