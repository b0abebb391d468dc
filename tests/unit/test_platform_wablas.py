"""Wablas, documented form by documented form."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from actors.platforms.contract import Account, PlatformMessage
from actors.platforms.outcomes import Accepted, AccountState, Rejected, Retryable, Scope, Unknown
from actors.platforms.wablas import CONTRACT

ACCOUNT = Account("https://my.wablas.com", {"token": "invented-token", "secret_key": "invented-secret"})
TEXT = PlatformMessage(reference="m-1", to="6281234567890", kind="text", body="Apa kabar? 🦎 1+1=2 & 50%\nline, two")
IMAGE = replace(TEXT, kind="image", body="a caption", media_url="https://example.com/a b.jpg?x=1&y=2".replace(" ", "_"))
QUEUED = "Message is pending and waiting to be processed"


def reply(value: Any, status: int = 200) -> Any:
    return CONTRACT.parse_reply(status, {}, json.dumps(value).encode())


def fields(body: bytes | None) -> dict[str, str]:
    assert body is not None
    pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_a_text_is_one_form_post_with_the_documented_fields() -> None:
    request = CONTRACT.build_request(TEXT, ACCOUNT)
    assert (request.method, request.url) == ("POST", "https://my.wablas.com/api/send-message")
    assert request.headers["Authorization"] == "invented-token.invented-secret"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert fields(request.body) == {"phone": "6281234567890", "message": TEXT.body, "ref_id": "m-1"}
    assert request.reference == "m-1"


@pytest.mark.parametrize("kind", ["image", "document", "video", "audio"])
def test_media_goes_to_the_path_and_field_of_its_kind(kind: str) -> None:
    caption = "" if kind == "audio" else "a caption"
    request = CONTRACT.build_request(replace(IMAGE, kind=kind, body=caption), ACCOUNT)
    assert request.url == f"https://my.wablas.com/api/send-{kind}"
    expected = {"phone": "6281234567890", kind: IMAGE.media_url, "ref_id": "m-1"}
    assert fields(request.body) == (expected | {"caption": caption} if caption else expected)


def test_a_group_is_marked_as_one() -> None:
    request = CONTRACT.build_request(replace(TEXT, to="120363012345678901@g.us", to_group=True), ACCOUNT)
    assert fields(request.body)["isGroup"] == "true"
    assert fields(request.body)["phone"] == "120363012345678901@g.us"


def test_an_old_device_sends_its_token_alone() -> None:
    request = CONTRACT.build_request(TEXT, Account("https://my.wablas.com", {"token": "invented-token"}))
    assert request.headers["Authorization"] == "invented-token"


def test_no_credential_stands_in_the_address_of_a_send_or_a_look_up() -> None:
    lookup = CONTRACT.build_lookup("m-1", ACCOUNT)
    assert lookup is not None
    for request in (CONTRACT.build_request(TEXT, ACCOUNT), lookup):
        assert "invented" not in request.url


@pytest.mark.parametrize(
    ("body", "provider_id"),
    [
        (
            {
                "status": True,
                "message": QUEUED,
                "data": {
                    "device_id": "DEV1",
                    "quota": 88,
                    "messages": [{"id": "u-1", "phone": "628", "message": "hi", "status": "pending", "ref_id": ""}],
                },
            },
            "u-1",
        ),
        (
            {
                "status": True,
                "data": {"messages": [{"id": "u-2", "phone": 628, "message": None, "image": "a.jpg"}]},
            },
            "u-2",
        ),
        ({"status": True, "data": {"messages": {"id": "u-3"}}}, "u-3"),
        ({"status": True, "data": {"message": [{"id": "u-4"}]}}, "u-4"),
        (
            {"status": True, "data": [{"device_id": "D", "message": {"id": "u-5", "status": "pending"}}]},
            "u-5",
        ),
        ({"status": True, "data": [{"messages": {"id": "u-6"}}, {"message": {"id": "u-7"}}]}, "u-6"),
        ({"status": True, "data": {"messages": [{"id": 7}]}}, "7"),
        ({"status": True, "message": QUEUED, "data": []}, None),
        ({"status": True, "message": QUEUED}, None),
    ],
)
def test_every_documented_form_of_success_is_accepted(body: Any, provider_id: str | None) -> None:
    outcome = reply(body)
    assert isinstance(outcome, Accepted)
    assert outcome.provider_id == provider_id


@pytest.mark.parametrize(
    "body", [{"status": True}, {"status": True, "data": {"messages": []}}, {"status": True, "message": "ok"}]
)
def test_a_success_that_names_no_message_is_in_doubt(body: Any) -> None:
    assert isinstance(reply(body), Unknown)


@pytest.mark.parametrize("status", [302, 400, 429, 500, 502])
def test_a_success_under_a_failing_status_is_in_doubt(status: int) -> None:
    body = {"status": True, "message": QUEUED, "data": {"messages": [{"id": "u-1"}]}}
    assert isinstance(reply(body, status), Unknown)


@pytest.mark.parametrize("state", ["cancel", "reject", "rejected"])
def test_a_message_that_is_dropped_at_once_is_rejected(state: str) -> None:
    outcome = reply({"status": True, "data": {"messages": [{"id": "u-1", "status": state}]}})
    assert isinstance(outcome, Rejected)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize(
    ("text", "kind", "scope"),
    [
        ("token invalid or device expired", Rejected, Scope.CREDENTIAL),
        ("Token Invalid", Rejected, Scope.CREDENTIAL),
        ("secret key invalid", Rejected, Scope.CREDENTIAL),
        ("need secret key, not authorized", Rejected, Scope.CREDENTIAL),
        ("device not found", Rejected, Scope.CREDENTIAL),
        ("device disconnected, need to scan qr code again", Retryable, Scope.DEVICE),
        ("param invalid, phone is required", Rejected, Scope.MESSAGE),
        ("your quota is exhausted", Retryable, Scope.ACCOUNT),
    ],
)
def test_a_known_failure_is_told_by_its_text_whatever_the_status(
    status: int, text: str, kind: type, scope: Scope
) -> None:
    outcome = reply({"status": False, "message": text}, status)
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Rejected | Retryable)
    assert outcome.scope is scope
    assert outcome.reason == text


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, Rejected),
        (400, Rejected),
        (401, Rejected),
        (429, Retryable),
        (408, Unknown),
        (500, Unknown),
        (503, Unknown),
    ],
)
def test_a_failure_with_an_unknown_text_is_told_by_the_status(status: int, kind: type) -> None:
    assert isinstance(reply({"status": False, "message": "something new"}, status), kind)
    assert isinstance(reply({"status": False}, status), kind)
    assert isinstance(reply({"status": False, "message": {"phone": ["required"]}}, status), kind)


def report(*rows: dict[str, Any], status: int = 200, reference: str = "m-1") -> Any:
    body = {
        "status": True,
        "totalData": len(rows),
        "perPage": "100",
        "page": "1",
        "totalPage": 1,
        "message": list(rows),
    }
    return CONTRACT.parse_lookup(status, {}, json.dumps(body).encode(), reference)


def test_the_look_up_asks_the_report_for_the_reference() -> None:
    request = CONTRACT.build_lookup("m-1", ACCOUNT)
    assert request is not None
    parts = urlsplit(request.url)
    assert (request.method, parts.path, parts.query) == ("GET", "/api/report/message", "ref_id=m-1")
    assert request.headers["Authorization"] == "invented-token.invented-secret"


def test_a_reported_message_settles_the_doubt() -> None:
    for state in ("pending", "delivered", "received", "sent", "read"):
        assert report({"id": "u-1", "ref_id": "m-1", "status": state}) == Accepted("u-1", state)
    assert isinstance(report({"id": "u-1", "ref_id": "m-1", "status": "reject"}), Rejected)


def test_one_living_row_among_several_is_enough() -> None:
    outcome = report(
        {"id": "u-1", "ref_id": "m-1", "status": "cancel"}, {"id": "u-2", "ref_id": "m-1", "status": "sent"}
    )
    assert outcome == Accepted("u-2", "sent")


def test_an_empty_report_knows_nothing_of_the_message() -> None:
    assert report() is None


def test_a_report_of_other_messages_settles_nothing() -> None:
    assert isinstance(report({"id": "u-9", "ref_id": "another", "status": "sent"}), Unknown)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"status":false,"message":"token invalid"}', b'{"status":true}'])
def test_a_report_that_cannot_be_read_settles_nothing(body: bytes) -> None:
    assert isinstance(CONTRACT.parse_lookup(200, {}, body, "m-1"), Unknown)


def check(value: Any, status: int = 200) -> AccountState:
    state = CONTRACT.parse_check(status, {}, json.dumps(value).encode())
    assert state is not None
    return state.state


def test_the_check_asks_for_the_device_without_its_secret_key_in_the_address() -> None:
    request = CONTRACT.build_check(ACCOUNT)
    assert request is not None
    assert request.url == "https://my.wablas.com/api/device/info?token=invented-token"


def test_the_check_tells_connected_disconnected_refused_and_unknown_apart() -> None:
    assert check({"status": True, "data": {"status": "connected"}}) is AccountState.CONNECTED
    assert check({"status": True, "data": {"status": "disconnected"}}) is AccountState.DISCONNECTED
    assert check({"status": False, "message": "token invalid or device expired"}, 500) is AccountState.REFUSED
    assert check({"status": False, "message": "device disconnected"}, 500) is AccountState.DISCONNECTED
    assert check({}, 401) is AccountState.REFUSED
    bodies: list[Any] = [{}, {"status": True}, {"status": True, "data": {"status": "maybe"}}, []]
    for body in bodies:
        assert check(body) is AccountState.UNKNOWN
