"""Traces on a real server, exported to a real receiver: every way of a message is told once, whatever is away."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from actors.messages import MessageAccepted, MessageRejected, SendMessage
from actors.tracing import Tracing
from config.trace_context import TraceContext, TracedRequest
from gateway.tracing import collector as collecting
from gateway.tracing import exporter as exporting
from gateway.tracing.requests import AnsweredRequest, AnsweredRequests
from storage import fallbacks, traces
from storage.database import Connection, Database, PooledConnections
from storage.outbox import Outbox
from tests.integration.conftest import WaitUntil
from tests.support.collector import Collector, Taken
from tests.support.outbox import accept_texts, claim_next, new_device

OWNER = "host/test"


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(exporting, "_FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(exporting, "_LONGEST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(traces, "_SETTLE_SECONDS", 0.05)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made


@pytest.fixture
def answered() -> AnsweredRequests:
    return AnsweredRequests()


@pytest.fixture
def export(
    storage_url: str, connection: Connection, collector: Collector, answered: AnsweredRequests
) -> Iterator[Callable[..., exporting.Exporter]]:
    """Start an exporter; what earlier tests left behind is not exported."""
    connection.execute("truncate traced_message, traced_request, trace_cursor")
    traces.begin(connection, OWNER)
    with ExitStack() as stack:

        def start(known: AnsweredRequests = answered) -> exporting.Exporter:
            database = PooledConnections(storage_url, 1)
            made = exporting.Exporter(database, OWNER, known, collecting.Collector(collector.url, "test"))
            stack.callback(database.close)
            stack.callback(made.leave, 20)
            made.start()
            return made

        yield start


def accept(connection: Connection, device_id: int, context: TraceContext, body: str = "hello") -> int:
    """Accept a traced message as the router does."""
    taken_at = datetime.now(UTC)
    with connection.transaction():
        (message,) = accept_texts(connection, device_id, body)
        traces.note(connection, OWNER, {message: context}, taken_at)
    return message


def requested(*, sampled: bool = True) -> TraceContext:
    """Return the place of a message that comes in an HTTP request."""
    caller = TraceContext(secrets.token_bytes(16), secrets.token_bytes(8), sampled)
    return caller.within(TracedRequest("POST /v1/messages", caller.span_id, datetime.now(UTC)))


def answer(answered: AnsweredRequests, context: TraceContext) -> None:
    """Answer a request, as the gateway does: once its messages are committed."""
    assert context.request is not None
    answered.add(AnsweredRequest(context, context.request, 202, datetime.now(UTC)))


def lines(spans: list[Taken]) -> list[tuple[str, Any]]:
    """Return spans in the order of their ends, each as its name and outcome."""
    return [(each.name, each.outcome) for each in sorted(spans, key=lambda each: each.ended_ns)]


def left(connection: Connection) -> int:
    row = connection.execute(
        "select (select count(*) from traced_message) + (select count(*) from traced_request) as n"
    ).fetchone()
    assert row is not None
    return int(row["n"])


def test_every_way_of_a_message_is_told(
    connection: Connection,
    database: Database,
    collector: Collector,
    answered: AnsweredRequests,
    export: Callable[..., exporting.Exporter],
    wait_until: WaitUntil,
) -> None:
    device_id, other_id = new_device(connection), new_device(connection, platform="wablas")
    context = requested()
    sender = Outbox(database, "me")
    export()
    message = accept(connection, device_id, context, body="a secret word")
    answer(answered, context)
    sender.queued_again(claim_next(sender, device_id), "throttled", "Wait for +60123456789.")
    connection.execute("update device set state = 'logged_out' where id = %s", [device_id])
    moved = {"message_id": message, "from": device_id, "to": other_id, "reason": "It is down."}
    connection.execute(fallbacks._SQL["move"], moved)
    sender.in_doubt(claim_next(sender, other_id), "no_answer", "Nobody knows.", "external-1")
    sender.apply_receipts(other_id, [("external-1", "sent")])
    sender.apply_receipts(other_id, [("external-1", "delivered")])
    wait_until(lambda: len(collector.of_trace(context.trace_id.hex())) == 9, "every span")
    wait_until(lambda: left(connection) == 0, "the rows to be gone")

    spans = collector.of_trace(context.trace_id.hex())
    assert lines([each for each in spans if each.message is not None]) == [
        ("router accept", None),
        ("outbox wait", "sending"),
        ("send attempt", "queued"),
        ("outbox wait", "queued"),
        ("outbox wait", "sending"),
        ("send attempt", "in_doubt"),
        ("in doubt", "sent"),
        ("delivery", "delivered"),
    ]
    by_name = {each.name: each for each in spans}
    request, acceptance = by_name["POST /v1/messages"], by_name["router accept"]
    assert request.id == (context.span_id or b"").hex()
    assert context.request is not None
    assert request.parent == (context.request.caller_id or b"").hex()
    assert request.attributes["http.response.status_code"] == 202
    assert acceptance.parent == request.id
    assert {each.parent for each in spans if each not in (request, acceptance)} == {acceptance.id}
    first, second = sorted((each for each in spans if each.name == "send attempt"), key=lambda each: each.ended_ns)
    assert (first.attributes["salamander.platform"], second.attributes["salamander.platform"]) == ("whatsapp", "wablas")
    assert (first.attributes["salamander.code"], second.attributes["salamander.code"]) == ("throttled", "no_answer")
    assert (first.failed, second.failed) == (True, True)
    assert request.resource["service.name"] == "salamander"
    assert len(collector.taken) == 9, "each was told once"
    for secret in (b"a secret word", b"6012345", b"external-1", b"Nobody knows"):
        assert not any(secret in body for body in collector.bodies)


def test_each_message_of_a_batch_hangs_below_its_request(
    connection: Connection,
    collector: Collector,
    answered: AnsweredRequests,
    export: Callable[..., exporting.Exporter],
    wait_until: WaitUntil,
) -> None:
    device_id, context = new_device(connection), requested()
    with connection.transaction():
        accepted = accept_texts(connection, device_id, "one", "two", "three")
        traces.note(connection, OWNER, dict.fromkeys(accepted, context), datetime.now(UTC))
    answer(answered, context)
    export()
    wait_until(lambda: len(collector.of_trace(context.trace_id.hex())) == 4, "every span")
    request, *messages = sorted(collector.of_trace(context.trace_id.hex()), key=lambda each: each.name)
    assert {each.parent for each in messages} == {request.id}
    assert {each.message for each in messages} == set(accepted)


def test_a_collector_that_is_away_costs_nothing_and_misses_nothing(
    connection: Connection,
    database: Database,
    collector: Collector,
    answered: AnsweredRequests,
    export: Callable[..., exporting.Exporter],
    wait_until: WaitUntil,
) -> None:
    device_id, context = new_device(connection), requested()
    sender = Outbox(database, "me")
    collector.behave = 503
    export()
    accept(connection, device_id, context)
    answer(answered, context)
    sender.failed(claim_next(sender, device_id), "not_on_whatsapp", "No.")
    wait_until(lambda: collector.asked > 3, "it to be asked again and again")
    assert left(connection) == 2
    collector.behave = 200
    wait_until(lambda: left(connection) == 0, "the rows to be gone")
    assert lines(collector.of_trace(context.trace_id.hex())) == [
        ("router accept", None),
        ("POST /v1/messages", None),
        ("outbox wait", "sending"),
        ("send attempt", "failed"),
    ]


def test_what_may_have_been_told_is_told_again_under_the_same_ids(
    connection: Connection,
    database: Database,
    collector: Collector,
    answered: AnsweredRequests,
    export: Callable[..., exporting.Exporter],
    wait_until: WaitUntil,
) -> None:
    device_id, context = new_device(connection), requested()
    sender = Outbox(database, "me")
    collector.behave = "lost"
    accept(connection, device_id, context)
    sender.failed(claim_next(sender, device_id), "not_on_whatsapp", "No.")
    killed = export()
    wait_until(lambda: collector.asked > 1, "it to be told twice")
    killed.leave(20)
    collector.behave = 200
    export(AnsweredRequests())  # the gateway that took the request is gone: nobody knows its answer
    wait_until(lambda: left(connection) == 0, "the rows to be gone")
    assert len({each.id for each in collector.taken}) == len(collector.of_trace(context.trace_id.hex())) == 4
    assert len(collector.taken) > 4
    (request,) = (each for each in collector.of_trace(context.trace_id.hex()) if each.name.startswith("POST"))
    assert request.outcome == "unknown"


def test_spans_that_are_refused_for_good_are_not_offered_for_ever(
    connection: Connection,
    collector: Collector,
    export: Callable[..., exporting.Exporter],
    wait_until: WaitUntil,
) -> None:
    device_id = new_device(connection)
    collector.behave = 400
    export()
    accept(connection, device_id, requested())
    wait_until(lambda: collector.asked >= 1, "it to be asked")
    collector.behave = 200
    context = requested()
    accept(connection, device_id, context)
    wait_until(lambda: bool(collector.of_trace(context.trace_id.hex())), "what came later")
    assert collector.asked < 5


def test_a_transaction_that_ends_late_is_not_missed(
    connection: Connection,
    database: Database,
    collector: Collector,
    export: Callable[..., exporting.Exporter],
    wait_until: WaitUntil,
) -> None:
    device_id, slow, quick = new_device(connection), requested(), requested()
    export()
    with database.transaction() as other:
        accept(other, device_id, slow)
        accept(connection, device_id, quick)
        time.sleep(0.3)  # what was accepted later is there, and must wait
        assert not collector.of_trace(quick.trace_id.hex())
    traced = [slow.trace_id.hex(), quick.trace_id.hex()]
    wait_until(lambda: all(collector.of_trace(trace) for trace in traced), "both")


def test_what_is_sent_to_the_collector_is_authorised_by_the_standards_own_variable(
    connection: Connection,
    collector: Collector,
    export: Callable[..., exporting.Exporter],
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20hush,x-tenant=shop")
    accept(connection, new_device(connection), requested())
    export()
    wait_until(lambda: bool(collector.taken), "a span")
    assert collector.headers[0]["authorization"] == "Bearer hush"
    assert collector.headers[0]["x-tenant"] == "shop"


def test_another_installations_messages_are_left_to_its_gateway(
    connection: Connection, collector: Collector, export: Callable[..., exporting.Exporter], wait_until: WaitUntil
) -> None:
    device_id, ours, theirs = new_device(connection), requested(), requested()
    with connection.transaction():
        first, second = accept_texts(connection, device_id, "one", "two")
        traces.note(connection, "host/other", {first: theirs}, datetime.now(UTC))
        traces.note(connection, OWNER, {second: ours}, datetime.now(UTC))
    export()
    wait_until(lambda: bool(collector.of_trace(ours.trace_id.hex())), "ours")
    assert not collector.of_trace(theirs.trace_id.hex())


@pytest.mark.parametrize(("state", "kept"), [("queued", True), ("in_doubt", True), ("sent", False), ("failed", False)])
def test_what_ended_a_day_ago_is_forgotten_and_what_is_unfinished_is_not(
    connection: Connection, export: Callable[..., exporting.Exporter], state: str, kept: bool
) -> None:
    message = accept(connection, new_device(connection), requested())
    two_days = datetime.now(UTC) - timedelta(days=2)
    connection.execute("update outbox set state = %s, updated_at = %s where id = %s", [state, two_days, message])
    traces.forget(connection)
    assert left(connection) == 2
    connection.execute("update traced_message set taken_at = %s", [two_days])
    connection.execute("update traced_request set recorded_at = %s", [two_days])
    traces.forget(connection)
    assert left(connection) == (1 if kept else 0)


def test_who_was_away_for_long_begins_anew_and_who_was_not_goes_on(
    connection: Connection, export: Callable[..., exporting.Exporter]
) -> None:
    def place() -> int:
        row = connection.execute("select exported from trace_cursor where owner = %s", [OWNER]).fetchone()
        assert row is not None
        return int(row["exported"])

    before = place()
    accept(connection, new_device(connection), requested())
    traces.begin(connection, OWNER)
    assert place() == before
    connection.execute("update transition set at = at - interval '2 days' where id > %s", [before])
    traces.begin(connection, OWNER)
    assert place() > before


def test_the_router_notes_what_is_new_and_sampled(
    connection: Connection, export: Callable[..., exporting.Exporter]
) -> None:
    def noted(share: float, *answers: MessageAccepted | MessageRejected, trace: TraceContext | None = None) -> int:
        before = left(connection)
        answered = [(SendMessage("shop-1", "+60123456789", "text", trace=trace), answer) for answer in answers]
        Tracing(OWNER, share).note(connection, answered, datetime.now(UTC))
        return left(connection) - before

    assert noted(1.0, MessageAccepted(1, "")) == 1
    assert noted(0.0, MessageAccepted(2, "")) == 0, "it begins here, and is not in the share"
    assert noted(0.0, MessageAccepted(3, ""), trace=requested()) == 2, "the caller decided"
    assert noted(1.0, MessageAccepted(4, ""), trace=requested(sampled=False)) == 0
    assert noted(1.0, MessageAccepted(5, "", repeated=True), MessageRejected("key_conflict", "It is.", "")) == 0
