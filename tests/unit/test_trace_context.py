"""Where a request belongs in a trace, by the standard's own rules."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.trace_context import TraceContext, TracedRequest

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_traceparent_names_a_trace_and_the_span_that_led_here() -> None:
    context = TraceContext.parse(f"00-{TRACE}-{SPAN}-01")
    assert context is not None
    assert (context.trace_id.hex(), context.span_id and context.span_id.hex()) == (TRACE, SPAN)
    assert context.sampled
    assert context.request is None


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_the_caller_decides_whether_its_trace_is_recorded(flags: str, sampled: bool) -> None:
    context = TraceContext.parse(f"00-{TRACE}-{SPAN}-{flags}")
    assert context is not None
    assert context.sampled is sampled


def test_a_later_version_may_say_more_and_this_one_may_not() -> None:
    assert TraceContext.parse(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings") is not None
    assert TraceContext.parse(f"00-{TRACE}-{SPAN}-01-what-the-future-brings") is None


@pytest.mark.parametrize(
    "said",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01.",
    ],
)
def test_what_is_no_traceparent_is_ignored(said: str) -> None:
    assert TraceContext.parse(said) is None


@given(st.text())
def test_no_header_makes_it_fail(said: str) -> None:
    TraceContext.parse(said)


def test_a_request_is_a_span_of_its_own_in_its_callers_trace() -> None:
    caller = TraceContext(secrets.token_bytes(16), secrets.token_bytes(8))
    request = TracedRequest("POST /v1/messages", caller.span_id, datetime.now(UTC))
    context = caller.within(request)
    assert context.trace_id == caller.trace_id
    assert context.span_id not in {None, caller.span_id}
    assert context.request is request


def test_a_share_of_the_traces_that_begin_here_is_recorded() -> None:
    assert not TraceContext.begin(0.0).sampled
    assert TraceContext.begin(1.0).sampled
    assert 300 < sum(TraceContext.begin(0.5).sampled for _ in range(1000)) < 700
