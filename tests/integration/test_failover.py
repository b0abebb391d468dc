"""Fail-over on a real PostgreSQL: which messages move, where to, and which never do."""

from __future__ import annotations

import secrets

import pytest

from storage import breakers, devices, fallbacks, outbox
from storage.database import Connection, Database
from storage.outbox import Outbox
from storage.sql import queries
from supervisors.failover import reroute
from tests.support.outbox import accept, accept_texts, claim_next, new_device, state_of, text


def online(connection: Connection, device_id: int) -> None:
    devices.set_state(connection, device_id, "online", "connected", "Connected.")


def logged_out(connection: Connection, device_id: int, seconds_ago: int) -> None:
    devices.set_state(connection, device_id, "logged_out", "logged_out", "The phone unlinked this device.")
    connection.execute(
        "update device set state_since = now() - make_interval(secs => %s) where id = %s", (seconds_ago, device_id)
    )


def route_of(connection: Connection, message_id: int) -> int:
    row = outbox.message(connection, message_id)
    assert row is not None
    return int(row["device_id"])


def move(connection: Connection) -> list[int]:
    return reroute(connection, patience=300.0, attempts=5)


def pair(connection: Connection, platform: str | None = None) -> tuple[int, int]:
    """A WhatsApp device that is logged out, and another that stands in for it."""
    first, second = new_device(connection), new_device(connection, platform)
    if platform is None:
        online(connection, second)
    fallbacks.replace(connection, first, [second])
    logged_out(connection, first, 301)
    return first, second


def test_messages_of_a_device_that_is_logged_out_for_long_go_by_its_fallback(connection: Connection) -> None:
    first, second = pair(connection)
    [message] = accept_texts(connection, first, "hello")
    assert move(connection) == [second]
    assert route_of(connection, message) == second
    row = outbox.message(connection, message)
    assert row is not None
    assert row["story"][-1]["reason_code"] == "rerouted"
    assert "The phone unlinked this device." in row["story"][-1]["reason"]


def test_within_the_patience_nothing_moves(connection: Connection) -> None:
    first, _ = pair(connection)
    logged_out(connection, first, 200)
    [message] = accept_texts(connection, first, "hello")
    assert move(connection) == []
    assert route_of(connection, message) == first


@pytest.mark.parametrize("outcome", ["sending", "in_doubt", "sent"])
def test_what_may_have_been_sent_never_moves(connection: Connection, database: Database, outcome: str) -> None:
    first, _ = pair(connection)
    [message] = accept_texts(connection, first, "hello")
    sender = Outbox(database, "owner")
    claim = claim_next(sender, first)
    if outcome == "in_doubt":
        sender.in_doubt(claim, "no_answer", "No answer.", None)
    elif outcome == "sent":
        sender.sent(claim, "3EB0")
    assert move(connection) == []
    assert route_of(connection, message) == first
    assert state_of(connection, message) == outcome


def test_a_message_goes_by_each_route_once(connection: Connection) -> None:
    first, second = pair(connection)
    fallbacks.replace(connection, second, [first])
    [message] = accept_texts(connection, first, "hello")
    move(connection)
    logged_out(connection, second, 1000)
    online(connection, first)
    assert move(connection) == []
    assert route_of(connection, message) == second


def test_a_fallback_that_cannot_send_is_passed_over(connection: Connection) -> None:
    first, second = pair(connection)
    third = new_device(connection)
    online(connection, third)
    fallbacks.replace(connection, first, [second, third])
    devices.set_state(connection, second, "conflict", "replaced", "Another program.")
    [message] = accept_texts(connection, first, "hello")
    assert move(connection) == [third]
    assert route_of(connection, message) == third


def test_people_are_written_to_from_the_number_they_were_last_reached_from(
    connection: Connection, database: Database
) -> None:
    first, second = pair(connection)
    third = new_device(connection)
    online(connection, third)
    fallbacks.replace(connection, first, [second, third])
    sender = Outbox(database, "owner")
    accept_texts(connection, third, "earlier")
    sender.sent(claim_next(sender, third), None)
    [message] = accept_texts(connection, first, "hello")
    move(connection)
    assert route_of(connection, message) == third


def test_an_open_breaker_moves_what_waits_behind_it_and_a_closed_one_nothing(connection: Connection) -> None:
    wablas, whatsapp = new_device(connection, "wablas"), new_device(connection)
    online(connection, whatsapp)
    fallbacks.replace(connection, wablas, [whatsapp])
    [message] = accept_texts(connection, wablas, "hello")
    assert move(connection) == []
    breakers.show(connection, "wablas", "", "open", "not reached", 5)
    try:
        assert move(connection) == [whatsapp]
    finally:
        breakers.show(connection, "wablas", "", "closed", "", 0)
    assert route_of(connection, message) == whatsapp


def test_the_breaker_of_one_of_a_platforms_addresses_moves_what_goes_there(connection: Connection) -> None:
    here, there, whatsapp = new_device(connection, "waha"), new_device(connection, "waha"), new_device(connection)
    online(connection, whatsapp)
    for device_id, url in ((here, "http://127.0.0.1:1"), (there, "http://127.0.0.1:2")):
        connection.execute("update device set base_url = %s where id = %s", [url, device_id])
        fallbacks.replace(connection, device_id, [whatsapp])
    [waits], [stays] = accept_texts(connection, here, "hello"), accept_texts(connection, there, "hello")
    breakers.show(connection, "waha", "http://127.0.0.1:1", "open", "not reached", 5)
    try:
        assert move(connection) == [whatsapp]
    finally:
        breakers.show(connection, "waha", "http://127.0.0.1:1", "closed", "", 0)
    assert (route_of(connection, waits), route_of(connection, stays)) == (whatsapp, there)


def test_a_long_lane_that_nobody_can_stand_in_for_keeps_no_other_from_moving(connection: Connection) -> None:
    stuck, away = new_device(connection), new_device(connection)
    fallbacks.replace(connection, stuck, [away])
    logged_out(connection, stuck, 301)
    waiting = accept_texts(connection, stuck, *(f"{number}" for number in range(250)))
    first, second = pair(connection)
    [message] = accept_texts(connection, first, "hello")
    assert move(connection) == [second]
    assert route_of(connection, message) == second
    assert {route_of(connection, each) for each in waiting} == {stuck}


def test_a_message_that_was_tried_often_enough_moves(connection: Connection, database: Database) -> None:
    wablas, whatsapp = new_device(connection, "wablas"), new_device(connection)
    online(connection, whatsapp)
    fallbacks.replace(connection, wablas, [whatsapp])
    accept_texts(connection, wablas, "hello")
    sender = Outbox(database, "owner")
    for attempt in range(5):
        assert move(connection) == [], f"attempt {attempt}"
        claim = claim_next(sender, wablas)
        sender.queued_again(claim, "throttled", "Too many requests.")
    sender.hold_lane(wablas, 60.0, "Too many requests.")
    assert move(connection) == [whatsapp]


def test_a_route_that_cannot_carry_the_message_does_not_get_it(connection: Connection) -> None:
    first, _ = pair(connection, "wablas")
    [answer] = accept(connection, text(first, "x" * 5000))
    assert move(connection) == []
    assert route_of(connection, answer.id) == first


def test_a_claimed_message_slips_through_the_move(connection: Connection, database: Database) -> None:
    first, _ = pair(connection)
    [message] = accept_texts(connection, first, "hello")
    every = fallbacks.stranded(connection, patience=300.0, attempts=5)
    stranded = next(row for row in every if row["id"] == message)
    [target] = fallbacks.candidates(connection, stranded)
    assert Outbox(database, "owner").claim(first, secrets.token_bytes(32)) is not None
    assert not fallbacks.move(connection, stranded, target)
    assert route_of(connection, message) == first


def test_the_sender_a_recipient_was_last_reached_from_is_found_by_an_index(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute("set local enable_seqscan = off")
        arguments = {"device_id": 1, "recipient": "60123456789", "left_routes": []}
        rows = connection.execute("explain " + queries("fallbacks")["candidates"], arguments).fetchall()
    assert any("outbox_reached" in row["QUERY PLAN"] for row in rows)
