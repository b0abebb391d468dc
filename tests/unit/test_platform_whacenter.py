"""Whacenter, form by form as it was seen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from actors.platforms.contract import Account, PlatformMessage
from actors.platforms.outcomes import Accepted, AccountState, Rejected, Retryable, Scope, Unknown
from actors.platforms.whacenter import CONTRACT

ACCOUNT = Account("https://api.whacenter.com/api", {"device_id": "invented-device"})
TEXT = PlatformMessage(reference="m-1", to="6281234567890", kind="text", body="hello & 1+1=2")


def reply(value: Any, status: int = 200) -> Any:
    return CONTRACT.parse_reply(status, {"Content-Type": "text/html"}, json.dumps(value).encode())


def fields(body: bytes | None) -> dict[str, str]:
    assert body is not None
    return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True))


@pytest.mark.parametrize("number", ["6281234567890", "60123456789", "14155550123", "0000000"])
def test_a_text_is_one_form_post_and_the_number_is_not_touched(number: str) -> None:
    request = CONTRACT.build_request(replace(TEXT, to=number), ACCOUNT)
    assert (request.method, request.url) == ("POST", "https://api.whacenter.com/api/send")
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert fields(request.body) == {"device_id": "invented-device", "number": number, "message": TEXT.body}
    assert request.reference is None


@pytest.mark.parametrize("kind", ["image", "document", "video", "audio"])
def test_media_of_any_kind_is_a_file_with_the_message_as_its_caption(kind: str) -> None:
    message = replace(TEXT, kind=kind, media_url="https://example.com/a.jpg")
    request = CONTRACT.build_request(message, ACCOUNT)
    expected = {"device_id": "invented-device", "number": TEXT.to, "file": "https://example.com/a.jpg"}
    assert fields(request.body) == expected | {"message": TEXT.body}
    assert fields(CONTRACT.build_request(replace(message, body=""), ACCOUNT).body) == expected


def test_the_credential_stands_in_no_address_of_a_send() -> None:
    assert "invented-device" not in CONTRACT.build_request(TEXT, ACCOUNT).url


def test_only_true_is_a_success_and_it_has_no_id() -> None:
    assert reply({"status": True}) == Accepted(None, "")
    assert reply({"status": True, "data": {"id": 7}, "message": "sent"}) == Accepted(None, "sent")
    statuses: list[Any] = ["true", 1, None, "success", []]
    for status in statuses:
        assert isinstance(reply({"status": status}), Unknown)
    assert isinstance(reply({"code": 200, "message": "sent"}), Unknown)
    assert isinstance(reply({"status": True}, 500), Unknown)


@pytest.mark.parametrize(
    ("body", "status", "kind", "scope"),
    [
        ({"status": False, "data": {}, "message": "Invalid API Key"}, 401, Rejected, Scope.CREDENTIAL),
        ({"status": False, "msg": "Invalid API Key"}, 200, Rejected, Scope.CREDENTIAL),
        ({"status": False, "message": "device not connected or not found"}, 200, Retryable, Scope.DEVICE),
        ({"status": False, "msg": "device not connected", "data": []}, 200, Retryable, Scope.DEVICE),
        ({"status": False, "message": "number is wrong"}, 200, Rejected, Scope.MESSAGE),
        ({"status": False}, 200, Rejected, Scope.MESSAGE),
        ({"status": False, "message": "new words"}, 422, Rejected, Scope.MESSAGE),
        ({"status": False, "message": "new words"}, 403, Rejected, Scope.CREDENTIAL),
        ({"status": False, "message": "slow down"}, 429, Retryable, Scope.ACCOUNT),
    ],
)
def test_a_failure_is_told_by_its_text_then_by_the_status(body: Any, status: int, kind: type, scope: Scope) -> None:
    outcome = reply(body, status)
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Rejected | Retryable)
    assert outcome.scope is scope


@pytest.mark.parametrize("status", [408, 500, 502, 503])
def test_a_failure_with_unknown_words_under_a_server_error_is_in_doubt(status: int) -> None:
    assert isinstance(reply({"status": False, "message": "new words"}, status), Unknown)


def test_the_words_are_found_in_either_field() -> None:
    assert reply({"status": False, "message": "from message"}).reason == "from message"
    assert reply({"status": False, "msg": "from msg"}).reason == "from msg"


def test_nothing_can_be_looked_up() -> None:
    assert CONTRACT.build_lookup("m-1", ACCOUNT) is None


def check(value: Any, status: int = 200) -> AccountState:
    state = CONTRACT.parse_check(status, {"Content-Type": "text/html"}, json.dumps(value).encode())
    assert state is not None
    return state.state


def test_the_check_reads_the_device_s_status_though_it_is_served_as_html() -> None:
    assert check({"status": True, "data": {"status": "CONNECTED"}}) is AccountState.CONNECTED
    assert check({"status": True, "data": {"status": "NOT CONNECTED"}}) is AccountState.DISCONNECTED
    assert check({"status": False, "message": "device not connected or not found"}) is AccountState.DISCONNECTED
    assert check({"status": False, "message": "Invalid API Key"}, 401) is AccountState.REFUSED
    assert check("not an object", 403) is AccountState.REFUSED
    assert check({"status": True}) is AccountState.UNKNOWN
    request = CONTRACT.build_check(ACCOUNT)
    assert request is not None
    assert request.url == "https://api.whacenter.com/api/statusDevice?device_id=invented-device"
