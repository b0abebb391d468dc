"""What is told of a traced message: which span, whose child, with which outcome, and nothing that is not to be told."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from config.trace_context import TraceContext, TracedRequest
from gateway.tracing import requests as tracing
from gateway.tracing import spans
from gateway.tracing.requests import AnsweredRequest, AnsweredRequests
from storage.traces import Request, Step

T = datetime(2026, 11, 25, 9, 0, 0, 123456, tzinfo=UTC)
TRACE, PARENT = bytes(range(16)), bytes(range(8))
ACCEPTED = Step(
    1, 17, T + timedelta(seconds=1), "queued", "accepted", TRACE, PARENT, T, None, None, "shop-1", "whatsapp", None
)


def step(former: str, state: str, code: str = "", **fields: Any) -> Step:
    changed = {"id": 2, "former": former, "former_at": ACCEPTED.at, "at": ACCEPTED.at + timedelta(seconds=2), **fields}
    return dataclasses.replace(ACCEPTED, state=state, code=code, **changed)


def told(step: Step) -> spans.Span:
    span = spans.of_step(step)
    assert span is not None
    return span


def test_the_acceptance_hangs_below_whatever_handed_the_message_over() -> None:
    span = told(ACCEPTED)
    assert (span.name, span.trace_id, span.parent_id) == ("router accept", TRACE, PARENT)
    assert (span.began_ns, span.ended_ns) == (1_795_597_200_123_456_000, 1_795_597_201_123_456_000)
    assert span.attributes == {
        "salamander.message.id": 17,
        "salamander.device": "shop-1",
        "salamander.platform": "whatsapp",
    }


def test_what_follows_hangs_below_the_acceptance_of_its_message() -> None:
    steps = [step("queued", "sending", "attempt"), step("sending", "sent", "sent", id=3, attempt=1)]
    assert {told(each).parent_id for each in steps} == {told(ACCEPTED).span_id}
    assert len({told(each).span_id for each in [ACCEPTED, *steps]}) == 3
    assert told(dataclasses.replace(steps[0], message_id=18)).parent_id != told(ACCEPTED).span_id


def test_a_span_has_the_same_id_whenever_it_is_made() -> None:
    assert told(step("sending", "sent")) == told(step("sending", "sent"))


@pytest.mark.parametrize(
    ("former", "state", "code", "name", "error"),
    [
        ("queued", "sending", "attempt", "outbox wait", None),
        ("queued", "expired", "expired", "outbox wait", "expired"),
        ("queued", "cancelled", "cancelled", "outbox wait", None),
        ("queued", "queued", "rerouted", "outbox wait", None),
        ("sending", "sent", "sent", "send attempt", None),
        ("sending", "failed", "not_on_whatsapp", "send attempt", "not_on_whatsapp"),
        ("sending", "in_doubt", "no_answer", "send attempt", "no_answer"),
        ("sending", "queued", "throttled", "send attempt", "throttled"),
        ("in_doubt", "delivered", "receipt", "in doubt", None),
        ("in_doubt", "queued", "resolved", "in doubt", None),
        ("sent", "delivered", "receipt", "delivery", None),
    ],
)
def test_an_outcome_is_told_by_its_state_and_its_code(
    former: str, state: str, code: str, name: str, error: str | None
) -> None:
    span = told(step(former, state, code, attempt=2 if former == "sending" else None))
    assert (span.name, span.error) == (name, error)
    assert span.attributes["salamander.outcome"] == state
    assert span.attributes.get("salamander.code", state) == code
    assert span.attributes.get("salamander.attempt") == (2 if former == "sending" else None)


def test_what_comes_after_the_delivery_is_not_told() -> None:
    assert spans.of_step(step("delivered", "read", "receipt")) is None


def test_clocks_that_differ_make_no_span_end_before_it_began() -> None:
    span = told(step("queued", "sending", at=T - timedelta(seconds=5)))
    assert span.began_ns == span.ended_ns


def answered(status: int) -> AnsweredRequest:
    request = TracedRequest("POST /v1/messages", PARENT, T)
    return AnsweredRequest(TraceContext(TRACE, b"ourspan!", request=request), request, status, T + timedelta(seconds=1))


@pytest.mark.parametrize(("status", "error"), [(202, None), (422, None), (503, "503")])
def test_a_request_is_told_with_its_answer(status: int, error: str | None) -> None:
    span = spans.of_answered(answered(status))
    assert (span.span_id, span.parent_id, span.kind, span.error) == (b"ourspan!", PARENT, spans.Kind.SERVER, error)
    assert span.attributes["http.response.status_code"] == status


def test_a_request_whose_answer_nobody_knows_is_told_under_the_same_id() -> None:
    row = Request(b"ourspan!", TRACE, PARENT, "POST /v1/messages", T, T + timedelta(milliseconds=5))
    span, known = spans.of_unanswered(row), spans.of_answered(answered(202))
    assert (span.trace_id, span.span_id, span.parent_id, span.name) == (
        known.trace_id,
        known.span_id,
        known.parent_id,
        known.name,
    )
    assert span.attributes["salamander.outcome"] == "unknown"


def test_answers_that_cannot_be_exported_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_KEPT", 3)
    kept = AnsweredRequests()
    for status in (200, 201):
        kept.add(answered(status))
    taken = kept.take()
    assert kept.take() == []
    for status in (202, 203):
        kept.add(answered(status))
    kept.put_back(taken)
    assert [each.status for each in kept.take()] == [201, 202, 203]
