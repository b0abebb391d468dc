"""How every contract reads replies: always an outcome, never a success without the provider's marker."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, get_args
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.platforms import contracts
from actors.platforms.contract import Account, PlatformContract
from actors.platforms.documented import DocumentedReply
from actors.platforms.outcomes import Accepted, AccountCheck, Outcome, Rejected, Retryable, Scope, Unknown
from actors.platforms.replies import all_text_of, id_of, judge_status, retry_after, text_of, value_at
from actors.platforms.webhooks import DeliveryReport

STATUSES = st.integers(100, 599) | st.sampled_from([200, 201, 302, 400, 401, 403, 404, 408, 429, 500, 502, 503, 504])
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "retry-after", "Content-Type", "Date", "X"]),
    st.text(max_size=30),
    max_size=4,
)
#: Every key and every text that any platform is known to use, so that an eleventh brings its own.
KNOWN: list[Any] = [reply.body for contract in contracts().values() for reply in contract.replies]


def keys_in(value: Any) -> set[str]:
    """Return every name in a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_in, value.values()))
    return set().union(*map(keys_in, value)) if isinstance(value, list) else set()


def scalars_in(value: Any) -> list[Any]:
    """Return every text, number and truth value in a JSON value."""
    if isinstance(value, dict | list):
        return [each for inner in (value.values() if isinstance(value, dict) else value) for each in scalars_in(inner)]
    return [value]


KEYS = st.sampled_from(
    [*sorted(keys_in(KNOWN)), "entry", "changes", "value", "statuses", "payload", "event", "event_type"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(max_size=20)
    | st.sampled_from(
        [*sorted(map(str, scalars_in(KNOWN))), "messages.update", "message.ack", "message_ack", "read", "failed"]
    )
    | st.sampled_from([each for each in scalars_in(KNOWN) if isinstance(each, int)])
)
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
#: Webhooks as they are documented, with the stages and the failures that they tell.
WEBHOOKS: list[Any] = [
    {"id": "W-1", "phone": "6281", "status": "delivered", "note": "", "sender": "62", "deviceId": "D"},
    {"device": "62", "id": "80367170", "stateid": "S-1", "status": "sent", "state": "read"},
    {
        "entry": [
            {
                "changes": [
                    {
                        "value": {
                            "statuses": [
                                {
                                    "id": "wamid.1",
                                    "status": "failed",
                                    "timestamp": "1",
                                    "recipient_id": "6281",
                                    "errors": [{"code": 131026, "title": "?", "error_data": {"details": "?"}}],
                                    "biz_opaque_callback_data": "1-abc",
                                }
                            ]
                        }
                    }
                ]
            }
        ]
    },
    {"event": "message.ack", "session": "default", "payload": {"id": "true_1", "fromMe": True, "ack": 2}},
    {"event": "messages.update", "instance": "my-instance", "data": {"keyId": "3EB0", "status": "READ"}},
    {"typeWebhook": "outgoingMessageStatus", "idMessage": "G-1", "status": "yellowCard", "description": "?"},
    {"event_type": "message_ack", "id": 1, "referenceId": "1-abc", "data": {"id": "true_1", "ack": "read"}},
    {"id": "1", "ref": "1-abc", "status": "read"},
]


@st.composite
def nearly(draw: st.DrawFn, documented: list[Any]) -> Any:
    """Draw a documented value with a few of its parts gone, or replaced by anything."""
    value = copy.deepcopy(draw(st.sampled_from(documented)))
    for _ in range(draw(st.integers(1, 3))):
        part = value
        while isinstance(part, dict | list) and part:
            key = draw(st.sampled_from(list(part) if isinstance(part, dict) else range(len(part))))
            if not isinstance(part[key], dict | list) or not part[key] or draw(st.booleans()):
                if draw(st.booleans()):
                    part[key] = draw(JSON_VALUES)
                else:
                    del part[key]
                break
            part = part[key]
    return value


FORMS = st.dictionaries(
    st.sampled_from(["MessageSid", "MessageStatus", "ErrorCode", "ErrorMessage", "To"]),
    st.sampled_from(["SM1", "read", "failed", "63016", "delivered"]) | st.text(max_size=10),
)
BODIES = (
    st.binary(max_size=200)
    | (JSON_VALUES | nearly(KNOWN) | nearly(WEBHOOKS)).flatmap(
        lambda value: st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-le"]).map(
            lambda encoding: json.dumps(value).encode(encoding)
        )
    )
    | st.sampled_from([json.dumps(value).encode() for value in KNOWN])
    | FORMS.map(lambda fields: urlencode(fields).encode())
    | st.integers(10, 10**6).map(lambda size: b'{"id":' + b"9" * (size % 6000) + b"}")
)
EVERY_CONTRACT = pytest.mark.parametrize("contract", contracts().values(), ids=lambda each: each.name)


def account_of(contract: PlatformContract) -> Account:
    """Return an account with the example of every credential."""
    return Account(
        "http://127.0.0.1:1", {field.name: field.example or "invented" for field in contract.credential_fields}
    )


def read(body: bytes) -> Any:
    """Return a body as JSON, or None."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _has_id(reply: Any, *path: str | int) -> bool:
    for step in path:
        try:
            reply = reply[step]
        except (TypeError, KeyError, IndexError):
            return False
    return (isinstance(reply, str) and reply != "") or (isinstance(reply, int) and not isinstance(reply, bool))


def _of_cloud_api(reply: Any) -> bool:
    return not isinstance(reply.get("error"), dict) and _has_id(reply, "messages", 0, "id")


#: The markers of a success once more, as the providers' documents say them and apart from the modules.
MARKERS: dict[str, Callable[[Any], bool]] = {
    "wablas": lambda reply: reply.get("status") is True,
    "wablas_v2": lambda reply: reply.get("status") is True,
    "whacenter": lambda reply: reply.get("status") is True,
    "fonnte": lambda reply: any(reply.get(key) is True or reply.get(key) == "true" for key in ("status", "Status")),
    "meta_cloud": _of_cloud_api,
    "dialog360": _of_cloud_api,
    "twilio": lambda reply: _has_id(reply, "sid") and type(reply.get("code")) is not int,
    "waha": lambda reply: any(_has_id(reply, *path) for path in (["id"], ["id", "_serialized"], ["key", "id"])),
    "evolution": lambda reply: _has_id(reply, "key", "id") and reply.get("status") != "ERROR",
    "green_api": lambda reply: _has_id(reply, "idMessage"),
    "ultramsg": lambda reply: (reply.get("sent") is True or reply.get("sent") == "true") and not reply.get("error"),
    "http": lambda reply: reply.get("ok") is True,
}


def test_the_marker_of_every_known_platform_is_told_apart_from_its_module() -> None:
    assert set(MARKERS) <= set(contracts())


@given(STATUSES | st.integers(200, 299), HEADERS, BODIES)
@settings(max_examples=400)
def test_any_reply_has_an_outcome_and_only_the_marker_under_200_is_a_success(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    for contract in contracts().values():
        outcome = contract.parse_reply(status, headers, body)
        assert isinstance(outcome, get_args(Outcome))
        if isinstance(outcome, Accepted):
            assert 200 <= status < 300
            assert contract.success.holds(read(body)), contract.name
            assert MARKERS.get(contract.name, contract.success.holds)(read(body)), contract.name
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
        report = contract.parse_status(status, headers, body, "m-1")
        assert report is None or isinstance(report, DeliveryReport)


@given(HEADERS, BODIES, st.text(max_size=30))
def test_any_webhook_gives_reports_or_none_but_never_raises(headers: dict[str, str], body: bytes, url: str) -> None:
    for contract in contracts().values():
        account = account_of(contract)
        assert isinstance(contract.verify_webhook(headers, body, url, account), bool)
        reports = contract.parse_webhook(headers, body, account)
        assert all(isinstance(report, DeliveryReport) for report in reports)
        assert all(report.provider_id or report.reference or report.alias for report in reports)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=4))
def test_no_signature_is_believed_that_was_not_made_with_the_secret(headers: dict[str, str]) -> None:
    names = ("X-Hub-Signature-256", "X-Twilio-Signature", "X-Webhook-Hmac")
    for contract in contracts().values():
        if contract.webhook_signature:
            for value in (*headers.values(), "", "sha256="):
                forged = headers | dict.fromkeys(names, value)
                assert not contract.verify_webhook(forged, b"{}", "http://127.0.0.1/hook", account_of(contract))


@EVERY_CONTRACT
def test_every_documented_reply_comes_to_its_outcome(contract: PlatformContract) -> None:
    def outcome_of(reply: DocumentedReply) -> Outcome:
        body = reply.body.encode() if isinstance(reply.body, str) else json.dumps(reply.body).encode()
        return contract.parse_reply(reply.status, {}, body)

    assert any(reply.outcome is Accepted for reply in contract.replies)
    for reply in contract.replies:
        outcome = outcome_of(reply)
        assert type(outcome) is reply.outcome, reply
        assert getattr(outcome, "scope", None) is reply.scope, reply
        if isinstance(outcome, Accepted):
            assert contract.success.holds(reply.body)


@EVERY_CONTRACT
@pytest.mark.parametrize("status", [301, 401, 404, 429, 500, 503])
def test_a_success_in_the_body_of_another_status_is_never_accepted(contract: PlatformContract, status: int) -> None:
    for reply in contract.replies:
        if reply.outcome is Accepted:
            assert not isinstance(contract.parse_reply(status, {}, json.dumps(reply.body).encode()), Accepted)


def test_places_and_texts_in_a_reply_are_found() -> None:
    value = {"messages": [{"id": "a"}, {"id": "b"}], "x": {"y": [["deep"], {"z": "deeper"}]}}
    assert value_at(value, "messages.1.id") == "b"
    assert [value_at(value, path) for path in ("messages.2.id", "messages.-1", "messages.id", "x.q.r", "")] == [
        None
    ] * 5
    assert all_text_of(value) == "a b deep deeper"


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
