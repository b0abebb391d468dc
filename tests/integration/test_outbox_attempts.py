"""A message with several attempts: each one's evidence counts, none ends another, what arrived is not resent."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from storage import deliveries, devices, events, outbox
from storage.database import Connection, Database
from storage.deliveries import Report, reference_of
from storage.events import Event
from storage.outbox import Claim, Outbox
from tests.support.outbox import accept_texts, claim_next, new_device, state_of, story_of


@pytest.fixture
def sender(database: Database) -> Outbox:
    return Outbox(database, "owner")


@pytest.fixture
def device_id(connection: Connection) -> int:
    return new_device(connection)


@pytest.fixture
def doubt(connection: Connection, sender: Outbox, device_id: int) -> Claim:
    """A first attempt, in doubt, that WhatsApp knows as 3EB0-1 of its device."""
    accept_texts(connection, device_id, "hello")
    claim = claim_next(sender, device_id)
    sender.in_doubt(claim, "no_answer", "No answer.", first_id(claim))
    return claim


def first_id(claim: Claim) -> str:
    return f"3EB0-{claim.message_id}-1"


def receive(connection: Connection, sender: Outbox, claim: Claim, stage: str = "delivered") -> None:
    """Let a receipt for the first attempt come, as the device takes it."""
    body = {"message_id": first_id(claim), "stage": stage}
    events.record(connection, claim.device_id, [Event("receipt", f"{first_id(claim)}:{stage}", body)])
    sender.apply_receipts(claim.device_id, [(first_id(claim), stage)])


def why(connection: Connection, claim: Claim) -> str:
    found = outbox.message(connection, claim.message_id)
    assert found is not None
    return str(found["story"][-1]["reason"])


def resend(connection: Connection, claim: Claim) -> None:
    assert outbox.resolve(connection, claim.message_id, sent=False)


def test_a_receipt_stops_a_message_that_waits_to_be_sent_again(
    connection: Connection, sender: Outbox, doubt: Claim
) -> None:
    resend(connection, doubt)
    receive(connection, sender, doubt)
    assert state_of(connection, doubt.message_id) == "delivered"
    assert "had arrived" in why(connection, doubt)
    assert sender.claim(doubt.device_id, secrets.token_bytes(32)) is None


@pytest.mark.parametrize("end", ["cancelled", "expired", "failed"])
def test_a_receipt_corrects_an_end_that_came_after_a_doubt(
    connection: Connection, sender: Outbox, doubt: Claim, end: str
) -> None:
    resend(connection, doubt)
    if end == "cancelled":
        assert outbox.cancel(connection, doubt.message_id)
    elif end == "expired":
        connection.execute("update outbox set expires_at = now() where id = %s", [doubt.message_id])
        outbox.expire_everywhere(connection)
    else:
        sender.failed(claim_next(sender, doubt.device_id), "no", "No.")
    assert state_of(connection, doubt.message_id) == end
    receive(connection, sender, doubt)
    assert state_of(connection, doubt.message_id) == "delivered"


def test_a_receipt_for_the_first_of_two_doubts_settles_the_message(
    connection: Connection, sender: Outbox, doubt: Claim
) -> None:
    resend(connection, doubt)
    sender.in_doubt(claim_next(sender, doubt.device_id), "no_answer", "No answer.", "3EB0-second")
    receive(connection, sender, doubt)
    assert (state_of(connection, doubt.message_id), why(connection, doubt)) == ("delivered", "Settled by a receipt.")


Outcome = Callable[[Outbox, Claim], None]

OUTCOMES: dict[str, Outcome] = {
    "never left": lambda sender, claim: sender.queued_again(claim, "never_left", "It never left."),
    "refused": lambda sender, claim: sender.failed(claim, "no", "No."),
    "in doubt": lambda sender, claim: sender.in_doubt(claim, "no_answer", "No answer.", "3EB0-second"),
    "in doubt, unnamed": lambda sender, claim: sender.in_doubt(claim, "no_answer", "No answer.", None),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_receipt_that_comes_while_the_second_attempt_is_under_way_counts_with_its_outcome(
    connection: Connection, sender: Outbox, doubt: Claim, outcome: str
) -> None:
    resend(connection, doubt)
    second = claim_next(sender, doubt.device_id)
    receive(connection, sender, doubt)
    assert state_of(connection, doubt.message_id) == "sending"
    OUTCOMES[outcome](sender, second)
    assert state_of(connection, doubt.message_id) == "delivered"
    assert sender.claim(doubt.device_id, secrets.token_bytes(32)) is None


def test_a_receipt_follows_a_message_to_its_fallback_device(
    connection: Connection, sender: Outbox, doubt: Claim
) -> None:
    resend(connection, doubt)
    elsewhere = new_device(connection)
    connection.execute("update outbox set device_id = %s where id = %s", [elsewhere, doubt.message_id])
    receive(connection, sender, doubt)
    assert state_of(connection, doubt.message_id) == "delivered"


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_late_outcome_of_the_first_attempt_does_not_end_the_second(
    connection: Connection, sender: Outbox, doubt: Claim, outcome: str
) -> None:
    resend(connection, doubt)
    second = claim_next(sender, doubt.device_id)
    OUTCOMES[outcome](sender, doubt)
    assert state_of(connection, doubt.message_id) == "sending"
    sender.sent(second, "3EB0-second")
    assert story_of(connection, doubt.message_id)[-2:] == ["sending", "sent"]


def test_a_late_answer_of_the_first_attempt_stops_the_second(
    connection: Connection, sender: Outbox, doubt: Claim
) -> None:
    resend(connection, doubt)
    sender.sent(doubt, first_id(doubt), "Answered late.")
    sender.sent(doubt, first_id(doubt), "Answered late.")
    assert state_of(connection, doubt.message_id) == "sent"
    assert sender.claim(doubt.device_id, secrets.token_bytes(32)) is None


def test_a_late_answer_counts_when_the_second_attempt_turns_out_not_to_have_left(
    connection: Connection, sender: Outbox, device_id: int
) -> None:
    accept_texts(connection, device_id, "hello")
    first = claim_next(sender, device_id)
    sender.in_doubt(first, "no_answer", "No answer.", None)  # what it is called is not known yet
    resend(connection, first)
    second = claim_next(sender, device_id)
    sender.sent(first, first_id(first), "Answered late.")
    assert state_of(connection, first.message_id) == "sending"
    sender.queued_again(second, "not_connected", "It never left.")
    assert state_of(connection, first.message_id) == "sent"


def test_an_attempt_that_was_answered_is_no_evidence_for_another_message_state(
    connection: Connection, sender: Outbox, device_id: int
) -> None:
    accept_texts(connection, device_id, "hello")
    claim = claim_next(sender, device_id)
    sender.sent(claim, "3EB0-answered")
    sender.sent(claim, "3EB0-answered")
    assert story_of(connection, claim.message_id) == ["queued", "sending", "sent"]


@pytest.mark.parametrize(("stage", "state"), [("sent", "sent"), ("delivered", "delivered"), ("failed", "queued")])
def test_a_platforms_report_stops_a_message_that_waits_to_be_sent_again(
    connection: Connection, sender: Outbox, stage: str, state: str
) -> None:
    device_id = new_device(connection, "waha")
    accept_texts(connection, device_id, "hello")
    claim = claim_next(sender, device_id)
    sender.in_doubt(claim, "no_answer", "No answer.", None)
    resend(connection, claim)
    reference = reference_of(claim.message_id, claim.secret)
    deliveries.receive(connection, device_id, [Report(stage, reference=reference)])
    assert state_of(connection, claim.message_id) == state


# --- what nobody is at any more ---------------------------------------------------------------------------


def test_an_attempt_under_way_for_too_long_is_stranded_whoever_made_it(
    connection: Connection, sender: Outbox, device_id: int
) -> None:
    accept_texts(connection, device_id, "old", "young")
    old = claim_next(sender, device_id)
    claim_next(sender, device_id)
    connection.execute("update attempt set started_at = now() - interval '5 minutes' where id = %s", [old.attempt_id])
    connection.execute("update device set linked_at = now() - interval '1 hour' where id = %s", [device_id])
    [found] = sender.stranded([device_id], 120.0)
    assert (found.attempt_id, found.secret, found.session_stands) == (old.attempt_id, old.secret, True)
    assert sender.orphans([device_id]) == []
    connection.execute("update device set linked_at = now() where id = %s", [device_id])
    assert [each.session_stands for each in sender.stranded([device_id], 120.0)] == [False]


def test_what_a_removed_device_left_behind_comes_to_an_end(
    connection: Connection, sender: Outbox, device_id: int
) -> None:
    accept_texts(connection, device_id, "under way", "queued again")
    under_way, never_left = claim_next(sender, device_id), claim_next(sender, device_id)
    devices.remove(connection, device_id)
    sender.queued_again(never_left, "not_connected", "It never left.")
    outbox.end_removed(connection, 60.0)
    states = [state_of(connection, each.message_id) for each in (under_way, never_left)]
    assert states == ["sending", "cancelled"]
    connection.execute("update device set removed_at = now() - interval '2 minutes' where id = %s", [device_id])
    connection.execute("update outbox set updated_at = now() - interval '2 minutes' where device_id = %s", [device_id])
    outbox.end_removed(connection, 60.0)
    assert story_of(connection, under_way.message_id) == ["queued", "sending", "in_doubt"]
    assert outbox.is_of_removed_device(connection, under_way.message_id)
    assert sender.stranded([device_id], 0.0) == []
