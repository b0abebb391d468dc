"""How every contract reads replies: always an outcome, never a success without the provider's marker."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.platforms import contracts
from actors.platforms.outcomes import Accepted, AccountCheck, Outcome, Rejected, Retryable, Scope, Unknown
from actors.platforms.replies import id_of, judge_status, retry_after, text_of

STATUSES = st.integers(100, 599) | st.sampled_from([200, 201, 302, 400, 401, 403, 404, 408, 429, 500, 502, 503, 504])
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "retry-after", "Content-Type", "Date", "X"]),
    st.text(max_size=30),
    max_size=4,
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(max_size=20)
    | st.sampled_from(["true", "pending", "cancel", "token invalid", "device disconnected", "quota", "CONNECTED"])
)
KEYS = st.sampled_from(["status", "message", "msg", "data", "messages", "id", "ref_id", "phone"]) | st.text(max_size=8)
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
BODIES = st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode())


def holds_true_status(body: bytes) -> bool:
    """Say whether ``body`` is a JSON object whose ``status`` is the boolean true."""
    try:
        value: Any = json.loads(body)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("status") is True


@given(STATUSES, HEADERS, BODIES)
def test_any_reply_has_an_outcome_and_only_the_marker_under_200_is_a_success(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    for contract in contracts().values():
        outcome = contract.parse_reply(status, headers, body)
        assert isinstance(outcome, get_args(Outcome))
        if isinstance(outcome, Accepted):
            assert 200 <= status < 300
            assert holds_true_status(body)
        if isinstance(outcome, Retryable):
            assert 1 <= outcome.after_seconds <= 86_400
        if not isinstance(outcome, Accepted):
            assert outcome.code
            assert outcome.reason.isprintable()
            assert len(outcome.reason) < 500


@given(STATUSES, HEADERS, BODIES)
def test_any_reply_to_a_look_up_or_a_check_is_understood_or_not_but_never_raises(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    for contract in contracts().values():
        found = contract.parse_lookup(status, headers, body, "m-1")
        assert found is None or isinstance(found, Accepted | Rejected | Unknown)
        state = contract.parse_check(status, headers, body)
        assert state is None or isinstance(state, AccountCheck)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"status":true,"n":' + b"9" * 5000 + b"}",
        b"\xff\xfe\x00",
        b"null",
        b'"true"',
        b"true",
        b"[true]",
        b'{"Status":true}',
        b'{"status":"true"}',
        b'{"status":1}',
        b'{"status":null,"message":"Message is pending and waiting to be processed"}',
        b"{}",
        b"",
    ],
    ids=range(14),
)
def test_a_hostile_or_half_right_body_under_200_is_in_doubt(body: bytes) -> None:
    for contract in contracts().values():
        assert isinstance(contract.parse_reply(200, {}, body), Unknown), contract.name


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway</html>", b"{}", b'{"error":"x"}'])
def test_a_server_error_without_a_verdict_is_in_doubt(status: int, body: bytes) -> None:
    for contract in contracts().values():
        assert isinstance(contract.parse_reply(status, {}, body), Unknown)


@pytest.mark.parametrize(
    ("status", "kind", "scope"),
    [
        (301, Rejected, Scope.CONFIG),
        (302, Rejected, Scope.CONFIG),
        (308, Rejected, Scope.CONFIG),
        (400, Rejected, Scope.MESSAGE),
        (401, Rejected, Scope.CREDENTIAL),
        (403, Rejected, Scope.CREDENTIAL),
        (404, Rejected, Scope.MESSAGE),
        (413, Rejected, Scope.MESSAGE),
        (415, Rejected, Scope.MESSAGE),
        (422, Rejected, Scope.MESSAGE),
        (429, Retryable, Scope.ACCOUNT),
    ],
)
def test_a_status_alone_means_what_the_rules_say(status: int, kind: type, scope: Scope) -> None:
    for contract in contracts().values():
        outcome = contract.parse_reply(status, {}, b"<html>")
        assert isinstance(outcome, kind)
        assert isinstance(outcome, Rejected | Retryable)
        assert outcome.scope is scope


@pytest.mark.parametrize("status", [100, 200, 204, 402, 405, 409, 410, 418, 500, 599])
def test_a_status_without_a_rule_is_in_doubt(status: int) -> None:
    assert isinstance(judge_status(status, {}), Unknown)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"RETRY-AFTER": "0"}, 1),
        ({"Retry-After": "999999999"}, 86_400),
        ({"Retry-After": "9" * 40}, 30),
        ({"Retry-After": "-5"}, 30),
        ({"Retry-After": "soon"}, 30),
        ({"Retry-After": "²"}, 30),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:27:30 GMT"}, 30),
        ({"Retry-After": "Wed, 21 Oct 2026 07:29:00 GMT", "Date": "Wed, 21 Oct 2026 07:27:00 GMT"}, 120),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 09:00:00 GMT"}, 1),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 -0000"}, 30),
        ({}, 30),
    ],
)
def test_retry_after_is_read_in_every_form_and_kept_within_bounds(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds
    outcome = judge_status(429, headers)
    assert isinstance(outcome, Retryable)
    assert outcome.after_seconds == seconds


def test_texts_and_ids_are_made_fit_for_a_log_line_and_a_column() -> None:
    assert text_of("a\x00b\nc\ud800d") == "a b c d"
    assert len(text_of("x" * 10_000)) == 300
    assert text_of({"not": "text"}) == ""
    assert id_of("abc") == "abc"
    assert id_of(58431) == "58431"
    no_ids: list[Any] = ["", None, True, False, 1.5, [], "x" * 201, "a\x00b", "a\nb", "\ud800", 10**300]
    assert [value for value in no_ids if id_of(value) is not None] == []
