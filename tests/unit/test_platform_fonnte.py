"""Fonnte, form by form as it is documented."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from actors.platforms.contract import Account, PlatformMessage
from actors.platforms.fonnte import CONTRACT
from actors.platforms.outcomes import Accepted, AccountState, Rejected, Unknown
from actors.platforms.webhooks import DeliveryReport, Stage
from tests.support.requests import form_of

ACCOUNT = Account("https://api.fonnte.com", {"token": "invented-token"})
TEXT = PlatformMessage(reference="m-1", to="6281234567890", kind="text", body="hello & 1+1=2")


def reply(value: Any, status: int = 200) -> Any:
    return CONTRACT.parse_reply(status, {}, json.dumps(value).encode())


def test_a_text_is_one_form_post_to_one_number_that_nobody_rewrites() -> None:
    request = CONTRACT.build_request(TEXT, ACCOUNT)
    assert (request.method, request.url) == ("POST", "https://api.fonnte.com/send")
    assert request.headers["Authorization"] == "invented-token"
    assert form_of(request) == {"target": TEXT.to, "countryCode": "0", "message": TEXT.body}


def test_media_is_an_address_with_the_message_as_its_caption() -> None:
    message = replace(TEXT, kind="document", media_url="https://example.com/a.pdf", media_name="bill.pdf")
    assert form_of(CONTRACT.build_request(message, ACCOUNT)) == {
        "target": TEXT.to,
        "countryCode": "0",
        "message": TEXT.body,
        "url": "https://example.com/a.pdf",
        "filename": "bill.pdf",
    }


def test_the_verdict_is_read_in_each_of_its_spellings() -> None:
    assert reply({"status": True, "id": ["80367170"], "process": "pending"}) == Accepted("80367170", "pending")
    assert reply({"Status": "true", "id": ["1"]}) == Accepted("1", "")
    assert reply({"status": True, "detail": "queued"}) == Accepted(None, "queued")
    assert isinstance(reply({"status": "true"}), Unknown)
    assert isinstance(reply({"status": True, "id": ["1"]}, 500), Unknown)
    assert isinstance(reply({"Status": "false", "reason": "target invalid"}), Rejected)
    assert isinstance(reply({"status": False, "reason": "new words"}, 500), Unknown)


@pytest.mark.parametrize(
    ("event", "report"),
    [
        ({"id": "1", "stateid": "s", "status": "sent"}, DeliveryReport(Stage.SENT, "1", alias="s")),
        ({"stateid": "s", "state": "delivered"}, DeliveryReport(Stage.DELIVERED, alias="s")),
        ({"stateid": "s", "state": "read", "status": "sent"}, DeliveryReport(Stage.READ, alias="s")),
        (
            {"id": "1", "status": "url unreachable"},
            DeliveryReport(Stage.FAILED, "1", code="url_unreachable", reason="url unreachable"),
        ),
        ({"id": "1", "status": "waiting"}, None),
        ({"status": "sent"}, None),
    ],
)
def test_an_event_names_its_message_by_id_or_by_state_id(event: Any, report: DeliveryReport | None) -> None:
    assert CONTRACT.parse_webhook({}, json.dumps(event).encode(), ACCOUNT) == ([] if report is None else [report])


def test_a_message_and_the_device_can_be_asked_about() -> None:
    request = CONTRACT.build_status("80367170", TEXT.to, ACCOUNT)
    assert request is not None
    assert form_of(request) == {"id": "80367170"}
    answer = {"id": "80367170", "message_status": "expired", "status": True}
    report = CONTRACT.parse_status(200, {}, json.dumps(answer).encode(), "80367170")
    assert report == DeliveryReport(Stage.FAILED, "80367170", code="expired", reason="expired")
    answers: list[tuple[dict[str, Any], AccountState]] = [
        ({"status": True, "device_status": "connect"}, AccountState.CONNECTED),
        ({"status": True, "device_status": "disconnect"}, AccountState.DISCONNECTED),
        ({"status": False, "reason": "token invalid"}, AccountState.REFUSED),
        ({"status": True}, AccountState.UNKNOWN),
    ]
    for said, state in answers:
        check = CONTRACT.parse_check(200, {}, json.dumps(said).encode())
        assert check is not None
        assert check.state is state
