"""Many lanes at once on a real server: what a turn records, holds and claims, and that repeating it changes nothing."""

from __future__ import annotations

import secrets

import pytest

from storage import care, deliveries, devices, dispatch, outbox
from storage.care import Limits
from storage.database import Connection, Database
from storage.deliveries import Report, reference_of
from storage.dispatch import Ended, Head, Hold
from storage.outbox import Claim, Outbox
from tests.support.outbox import accept_texts, claim_next, new_device, state_of, story_of

OWNER = "platform/one"


@pytest.fixture
def lane(connection: Connection) -> int:
    return new_device(connection, "waha")


def claims_of(database: Database, *device_ids: int, again: dict[int, bytes] | None = None) -> list[Head]:
    attempts = again or {device_id: secrets.token_bytes(32) for device_id in device_ids}
    with database.transaction() as connection:
        return dispatch.exchange(connection, OWNER, secrets=attempts, again=again is not None)


def claim_of(database: Database, device_id: int) -> Claim:
    (head,) = claims_of(database, device_id)
    assert head.claim is not None
    return head.claim


def ended(claim: Claim, state: str, external_id: str | None = None, reason: str = "so it is") -> Ended:
    reference = reference_of(claim.message_id, claim.secret)
    return Ended(claim.message_id, claim.attempt_id, claim.device_id, reference, state, state, reason, external_id)


def record(database: Database, *outcomes: Ended, holds: tuple[Hold, ...] = ()) -> None:
    with database.transaction() as connection:
        dispatch.exchange(connection, OWNER, ended=outcomes, holds=holds)


def test_the_heads_of_many_lanes_are_claimed_together(connection: Connection, database: Database) -> None:
    lanes = [new_device(connection, "waha") for _ in range(20)]
    firsts = {
        device_id: accept_texts(connection, device_id, f"first of {device_id}", "second")[0] for device_id in lanes
    }
    heads = claims_of(database, *lanes)
    found = {head.lane.device_id: head.claim for head in heads}
    assert {each: claim.message_id for each, claim in found.items() if claim} == firsts
    assert all(claim is not None and claim.body == f"first of {each}" for each, claim in found.items())
    assert {state_of(connection, message_id) for message_id in firsts.values()} == {"sending"}
    assert all(story_of(connection, message_id) == ["queued", "sending"] for message_id in firsts.values())


def test_a_claim_takes_what_the_outbox_itself_would_take(connection: Connection, database: Database, lane: int) -> None:
    accept_texts(connection, lane, "plain")
    accept_texts(connection, lane, "urgent", priority=5)
    claim = claim_of(database, lane)
    assert (claim.body, claim.attempt, claim.device_id) == ("urgent", 1, lane)
    message = outbox.message(connection, claim.message_id)
    assert message is not None
    assert [each["number"] for each in message["attempts_made"]] == [1]


@pytest.mark.parametrize("why", ["paused", "held", "removed", "empty"])
def test_nothing_is_claimed_from_a_lane_that_must_not_send(
    connection: Connection, database: Database, lane: int, why: str
) -> None:
    if why != "empty":
        accept_texts(connection, lane, "hello")
    if why == "held":
        record(database, holds=(Hold(lane, 60.0, "throttled"),))
    if why == "paused":
        device = devices.by_id(connection, lane)
        assert device is not None
        devices.set_desired_state(connection, device, "paused")
    if why == "removed":
        devices.remove(connection, lane)
    assert [head.claim for head in claims_of(database, lane)] == [None]


def test_a_lane_with_limits_of_its_own_is_left_to_its_rules(
    connection: Connection, database: Database, lane: int
) -> None:
    accept_texts(connection, lane, "hello")
    care.set_limits(connection, lane, Limits(per_day=5))
    (head,) = claims_of(database, lane)
    assert (head.claim, head.limited) == (None, True)


def test_a_recipient_that_opted_out_is_not_claimed_and_the_lane_goes_on(
    connection: Connection, database: Database, lane: int
) -> None:
    (message_id,) = accept_texts(connection, lane, "hello")
    accept_texts(connection, lane, "and to somebody else")
    connection.execute("update outbox set recipient = '60999' where id = %s", [message_id])
    connection.execute("insert into opt_out (number, source) values ('60999', 'operator')")
    (head,) = claims_of(database, lane)
    assert (head.claim, head.again) == (None, True)
    assert state_of(connection, message_id) == "cancelled"
    assert claim_of(database, lane).body == "and to somebody else"


def test_a_claim_whose_answer_was_lost_is_given_again(connection: Connection, database: Database, lane: int) -> None:
    other = new_device(connection, "waha")
    accept_texts(connection, lane, "one", "two")
    attempts = {lane: secrets.token_bytes(32), other: secrets.token_bytes(32)}
    with database.transaction() as first:
        dispatch.exchange(first, OWNER, secrets=attempts)
    accept_texts(connection, other, "meanwhile")
    heads = {head.lane.device_id: head.claim for head in claims_of(database, again=attempts)}
    assert {each: claim and claim.body for each, claim in heads.items()} == {lane: "one", other: "meanwhile"}
    assert all(claim is not None and claim.attempt == 1 for claim in heads.values())


def test_outcomes_are_recorded_together_and_each_once(connection: Connection, database: Database) -> None:
    claims = {}
    for state in ("sent", "failed", "queued", "in_doubt"):
        device_id = new_device(connection, "waha")
        accept_texts(connection, device_id, state)
        claims[state] = claim_of(database, device_id)
    outcomes = [ended(claim, state, "3EB0" if state == "sent" else None) for state, claim in claims.items()]
    for _ in range(2):
        record(database, *outcomes)
        for state, claim in claims.items():
            assert story_of(connection, claim.message_id) == ["queued", "sending", state]
    message = outbox.message(connection, claims["sent"].message_id)
    assert message is not None
    assert (message["external_id"], message["attempts_made"][0]["outcome"]) == ("3EB0", "sent")


def test_an_outcome_that_comes_again_leaves_the_next_attempt_alone(
    connection: Connection, database: Database, lane: int
) -> None:
    accept_texts(connection, lane, "hello")
    first = ended(claim_of(database, lane), "queued")
    record(database, first)
    second = claim_of(database, lane)
    record(database, first)
    assert state_of(connection, second.message_id) == "sending"
    record(database, ended(second, "sent", "3EB1"))
    assert state_of(connection, second.message_id) == "sent"


def test_a_late_outcome_settles_a_doubt_but_a_lost_one_does_not_reopen_it(
    connection: Connection, database: Database, lane: int
) -> None:
    accept_texts(connection, lane, "hello")
    claim = claim_of(database, lane)
    record(database, ended(claim, "in_doubt"))
    record(database, ended(claim, "queued"))
    assert state_of(connection, claim.message_id) == "in_doubt"
    record(database, ended(claim, "sent", "3EB2"))
    assert state_of(connection, claim.message_id) == "sent"


def test_words_that_cannot_be_stored_fail_nothing(connection: Connection, database: Database, lane: int) -> None:
    accept_texts(connection, lane, "hello")
    claim = claim_of(database, lane)
    record(database, ended(claim, "failed", "id\x00\ud800", "no\x00\ud800"), holds=(Hold(lane, 1.0, "\x00"),))
    assert state_of(connection, claim.message_id) == "failed"


def test_a_hold_shows_why_and_until_when(connection: Connection, database: Database, lane: int) -> None:
    record(database, holds=(Hold(lane, 1.0, "first"), Hold(lane, 90.0, "throttled")))
    device = devices.by_id(connection, lane)
    assert device is not None
    assert device.is_held
    assert device.held_reason == "throttled"


def test_the_next_recipients_are_told_without_touching_a_message(
    connection: Connection, database: Database, lane: int
) -> None:
    accept_texts(connection, lane, "hello")
    empty = new_device(connection, "waha")
    assert dispatch.recipients(connection, [lane, empty]) == {lane: "60123456789"}


# --- delivery reports ------------------------------------------------------------------------------------


def deliver(database: Database, device_id: int, *reports: Report) -> dict[int, str]:
    with database.transaction() as connection:
        return deliveries.receive(connection, device_id, reports)


@pytest.fixture
def sent(connection: Connection, database: Database, lane: int) -> Claim:
    """A message that was sent under the id P1."""
    accept_texts(connection, lane, "hello")
    claim = claim_of(database, lane)
    record(database, ended(claim, "sent", "P1"))
    return claim


@pytest.mark.parametrize(
    ("stages", "final"),
    [
        (["sent", "delivered", "read"], "read"),
        (["read", "delivered", "sent"], "read"),
        (["delivered", "delivered"], "delivered"),
        (["sent"], "sent"),
        (["failed"], "failed"),
        (["failed", "sent"], "failed"),
        (["failed", "delivered"], "delivered"),
        (["delivered", "failed"], "delivered"),
        (["read", "failed", "sent"], "read"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_the_furthest_stage_counts_whatever_the_order(
    connection: Connection, database: Database, sent: Claim, stages: list[str], final: str, together: bool
) -> None:
    reports = [Report(stage, "P1", reason="undeliverable (131026)") for stage in stages]
    if together:
        deliver(database, sent.device_id, *reports)
    else:
        for report in reports:
            deliver(database, sent.device_id, report)
    message = outbox.message(connection, sent.message_id)
    assert message is not None
    assert message["state"] == final
    if final == "failed":
        assert (message["reason_code"], message["reason"]) == ("provider_failed", "undeliverable (131026)")
    count = connection.execute("select count(*) as events from event where device_id = %s", [sent.device_id]).fetchone()
    assert count is not None
    assert count["events"] == len(set(stages))


def test_a_report_that_overtakes_the_reply_is_applied_once_the_reply_is_recorded(
    connection: Connection, database: Database, lane: int
) -> None:
    accept_texts(connection, lane, "hello")
    claim = claim_of(database, lane)
    assert deliver(database, lane, Report("delivered", "P7")) == {}
    record(database, ended(claim, "sent", "P7"))
    assert story_of(connection, claim.message_id) == ["queued", "sending", "sent", "delivered"]


@pytest.mark.parametrize("provider_id", ["P8", None])
@pytest.mark.parametrize("first", ["report", "doubt"])
def test_a_report_with_our_reference_settles_a_lost_reply(
    connection: Connection, database: Database, lane: int, provider_id: str | None, first: str
) -> None:
    accept_texts(connection, lane, "hello")
    claim = claim_of(database, lane)
    report = Report("delivered", provider_id, reference_of(claim.message_id, claim.secret))
    if first == "report":
        deliver(database, lane, report)
    record(database, ended(claim, "in_doubt"))
    if first == "doubt":
        assert deliver(database, lane, report) == {claim.message_id: "delivered"}
    assert story_of(connection, claim.message_id) == ["queued", "sending", "in_doubt", "delivered"]
    if provider_id:
        assert deliver(database, lane, Report("read", provider_id)) == {claim.message_id: "read"}


def test_a_made_up_reference_moves_nothing(connection: Connection, database: Database, lane: int) -> None:
    accept_texts(connection, lane, "hello")
    claim = claim_of(database, lane)
    record(database, ended(claim, "in_doubt"))
    for reference in (f"{claim.message_id}-{'0' * 16}", f"{claim.message_id}", "-", "9" * 40):
        assert deliver(database, lane, Report("read", "P9", reference)) == {}
    other = new_device(connection, "waha")
    assert deliver(database, other, Report("read", "P9", reference_of(claim.message_id, claim.secret))) == {}
    assert state_of(connection, claim.message_id) == "in_doubt"


def test_reports_under_another_name_find_their_message(connection: Connection, database: Database, sent: Claim) -> None:
    assert deliver(database, sent.device_id, Report("delivered", alias="state-1")) == {}, "nobody knows whose it is"
    tied = deliver(database, sent.device_id, Report("sent", "P1", alias="state-1"))
    assert tied == {sent.message_id: "delivered"}
    assert deliver(database, sent.device_id, Report("read", alias="state-1")) == {sent.message_id: "read"}


def test_a_tie_made_before_the_reply_is_recorded_holds(connection: Connection, database: Database, lane: int) -> None:
    accept_texts(connection, lane, "hello")
    claim = claim_of(database, lane)
    deliver(database, lane, Report("sent", "P5", alias="state-5"))
    deliver(database, lane, Report("read", alias="state-5"))
    record(database, ended(claim, "sent", "P5"))
    assert state_of(connection, claim.message_id) == "read"


def test_an_unknown_message_is_written_down_and_moves_nothing(
    connection: Connection, database: Database, lane: int
) -> None:
    long = "x" * 5000
    assert deliver(database, lane, Report("read", "nobody's"), Report("read", long), Report("read", "nul\x00")) == {}
    count = connection.execute("select count(*) as events from event where device_id = %s", [lane]).fetchone()
    assert count is not None
    assert count["events"] == 3


def test_another_device_cannot_report_about_a_message(connection: Connection, database: Database, sent: Claim) -> None:
    assert deliver(database, new_device(connection, "waha"), Report("read", "P1")) == {}
    assert state_of(connection, sent.message_id) == "sent"


@pytest.mark.parametrize("state", ["queued", "cancelled", "expired"])
def test_what_did_not_leave_is_not_moved_by_a_report(
    connection: Connection, database: Database, sent: Claim, state: str
) -> None:
    connection.execute("update outbox set state = %s where id = %s", [state, sent.message_id])
    assert deliver(database, sent.device_id, Report("read", "P1")) == {}


def test_the_outboxs_own_claim_fits_in(connection: Connection, database: Database, lane: int) -> None:
    accept_texts(connection, lane, "hello")
    claim = claim_next(Outbox(database, OWNER), lane)
    record(database, ended(claim, "sent", "P3"))
    assert state_of(connection, claim.message_id) == "sent"
