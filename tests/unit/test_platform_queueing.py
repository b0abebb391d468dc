"""Green-API, UltraMsg and version 2 of Wablas: services that queue, as they are documented."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from actors.platforms import green_api, ultramsg, wablas_v2
from actors.platforms.contract import Account, PlatformMessage
from actors.platforms.outcomes import Accepted, AccountState, Rejected, Retryable, Scope, Unknown
from actors.platforms.webhooks import DeliveryReport, Stage
from tests.support.requests import form_of, json_of

GREEN = Account("https://7103.api.greenapi.com", {"id_instance": "7103000001", "api_token": "invented-token"})
ULTRA = Account("https://api.ultramsg.com", {"instance_id": "instance1150", "token": "invented-token"})
WABLAS = Account("https://my.wablas.com", {"token": "invented-token", "secret_key": "invented-secret"})
TEXT = PlatformMessage(reference="m-1", to="6281234567890", kind="text", body="hello & 1+1=2")
DOCUMENT = replace(TEXT, kind="document", media_url="https://example.com/a.pdf?x=1", media_name="")


def body_of(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_green_api_takes_json_below_the_path_of_the_token() -> None:
    request = green_api.CONTRACT.build_request(TEXT, GREEN)
    assert request.url == "https://7103.api.greenapi.com/waInstance7103000001/sendMessage/invented-token"
    assert json_of(request) == {"chatId": "6281234567890@c.us", "message": TEXT.body}
    assert "invented" not in repr(request)
    document = green_api.CONTRACT.build_request(DOCUMENT, GREEN)
    assert document.url.endswith("/sendFileByUrl/invented-token")
    assert json_of(document) == {
        "chatId": "6281234567890@c.us",
        "urlFile": DOCUMENT.media_url,
        "fileName": "a.pdf",
        "caption": TEXT.body,
    }


@pytest.mark.parametrize(
    ("status", "body", "kind", "scope"),
    [
        (400, b'{"message": "Validation failed"}', Rejected, Scope.MESSAGE),
        (400, b"instance account is not authorized", Retryable, Scope.DEVICE),
        (400, b"Instance is expired", Retryable, Scope.ACCOUNT),
        (401, b"Unauthorized", Rejected, Scope.CREDENTIAL),
        (403, b"Forbidden", Rejected, Scope.CREDENTIAL),
        (429, b"", Retryable, Scope.ACCOUNT),
        (466, b'{"correspondentsStatus": {"status": "CORRESPONDENTS_QUOTE_EXCEEDED"}}', Retryable, Scope.ACCOUNT),
        (466, b"", Retryable, Scope.ACCOUNT),
    ],
)
def test_green_api_s_failures_are_told_apart(status: int, body: bytes, kind: type, scope: Scope) -> None:
    outcome = green_api.CONTRACT.parse_reply(status, {}, body)
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Rejected | Retryable)
    assert outcome.scope is scope


@pytest.mark.parametrize("status", [499, 500, 502])
def test_green_api_s_advice_to_repeat_a_502_is_not_taken(status: int) -> None:
    assert isinstance(green_api.CONTRACT.parse_reply(status, {}, b""), Unknown)


@pytest.mark.parametrize(
    ("said", "report"),
    [
        ("sent", DeliveryReport(Stage.SENT, "A")),
        ("read", DeliveryReport(Stage.READ, "A")),
        ("noAccount", DeliveryReport(Stage.FAILED, "A", code="noAccount", reason="noAccount", scope=Scope.MESSAGE)),
        ("yellowCard", DeliveryReport(Stage.FAILED, "A", code="yellowCard", reason="yellowCard", scope=Scope.ACCOUNT)),
        ("pending", None),
    ],
)
def test_green_api_s_statuses_are_stages_and_a_yellow_card_is_about_the_sender(
    said: str, report: DeliveryReport | None
) -> None:
    event = {"typeWebhook": "outgoingMessageStatus", "idMessage": "A", "status": said}
    expected = [] if report is None else [report]
    assert green_api.CONTRACT.parse_webhook({}, body_of(event), GREEN) == expected
    assert green_api.CONTRACT.parse_webhook({}, body_of({**event, "typeWebhook": "other"}), GREEN) == []


def test_ultramsg_takes_a_form_with_a_plus_and_a_reference() -> None:
    request = ultramsg.CONTRACT.build_request(TEXT, ULTRA)
    assert (request.method, request.url) == ("POST", "https://api.ultramsg.com/instance1150/messages/chat")
    assert form_of(request) == {
        "token": "invented-token",
        "to": "+6281234567890",
        "body": TEXT.body,
        "referenceId": "m-1",
    }
    assert request.reference == "m-1"
    document = form_of(ultramsg.CONTRACT.build_request(DOCUMENT, ULTRA))
    assert (document["document"], document["filename"], document["caption"]) == (
        DOCUMENT.media_url,
        "a.pdf",
        TEXT.body,
    )


def test_ultramsg_s_success_is_the_text_true() -> None:
    def reply(value: Any, status: int = 200) -> Any:
        return ultramsg.CONTRACT.parse_reply(status, {}, body_of(value))

    assert reply({"sent": "true", "message": "ok", "id": 58431}) == Accepted("58431", "ok")
    assert reply({"sent": True, "id": 1}) == Accepted("1", "")
    assert isinstance(reply({"sent": "false", "message": "no"}), Rejected)
    for unclear in ({"sent": 1}, {"sent": "yes"}, {"message": "ok", "id": 1}, {"error": ""}):
        assert isinstance(reply(unclear), Unknown)
    assert isinstance(reply({"sent": "true", "error": "invalid number"}), Rejected)
    assert isinstance(reply({"sent": "true", "id": 1}, 500), Unknown)
    for error in ("Wrong token", ["Wrong token"], {"message": "Wrong token"}, [{"token": "is required"}, "token"]):
        outcome = reply({"error": error})
        assert isinstance(outcome, Rejected)
        assert outcome.scope is (Scope.CREDENTIAL if "token" in repr(outcome.reason) else Scope.MESSAGE)


def test_ultramsg_s_list_settles_a_doubt() -> None:
    def look_up(rows: Any, status: int = 200) -> Any:
        return ultramsg.CONTRACT.parse_lookup(status, {}, body_of(rows), "m-1")

    request = ultramsg.CONTRACT.build_lookup("m-1", ULTRA)
    assert request is not None
    assert request.url == "https://api.ultramsg.com/instance1150/messages?token=invented-token&referenceId=m-1"
    row = {"id": 7, "referenceId": "m-1", "status": "queue"}
    assert look_up([row]) == look_up({"messages": [row]}) == Accepted("7", "queue")
    assert isinstance(look_up([{**row, "status": "invalid"}]), Rejected)
    assert look_up([{**row, "status": "expired"}, {**row, "id": 8, "status": "sent"}]) == Accepted("8", "sent")
    assert look_up({"messages": []}) is None
    assert isinstance(look_up([{**row, "referenceId": "other"}]), Unknown)
    for failed in ({"error": "x"}, "text", {"messages": 3}):
        assert isinstance(look_up(failed), Unknown)
    assert isinstance(look_up([row], 500), Unknown)


def test_ultramsg_s_acks_tie_the_reference_to_the_ids() -> None:
    event = {"event_type": "message_ack", "id": 7, "referenceId": "m-1", "data": {"id": "true_x", "ack": "device"}}
    assert ultramsg.CONTRACT.parse_webhook({}, body_of(event), ULTRA) == [
        DeliveryReport(Stage.DELIVERED, "7", "m-1", "true_x")
    ]
    for other in ({"event_type": "message_received"}, {"data": {"ack": "pending"}}, {"data": None}):
        assert ultramsg.CONTRACT.parse_webhook({}, body_of(event | other), ULTRA) == []


def test_wablas_v2_sends_a_list_of_one() -> None:
    request = wablas_v2.CONTRACT.build_request(TEXT, WABLAS)
    assert (request.method, request.url) == ("POST", "https://my.wablas.com/api/v2/send-message")
    assert request.headers["Authorization"] == "invented-token.invented-secret"
    assert json_of(request) == {"data": [{"phone": TEXT.to, "message": TEXT.body, "ref_id": "m-1"}]}
    document = wablas_v2.CONTRACT.build_request(DOCUMENT, WABLAS)
    assert document.url == "https://my.wablas.com/api/v2/send-document"
    assert json_of(document)["data"] == [
        {"phone": TEXT.to, "document": DOCUMENT.media_url, "caption": TEXT.body, "ref_id": "m-1"}
    ]
    assert document.reference == "m-1"


def test_wablas_s_tracking_events_are_stages() -> None:
    def stages(**event: Any) -> list[Stage]:
        return [each.stage for each in wablas_v2.CONTRACT.parse_webhook({}, body_of(event), WABLAS)]

    assert stages(id="u", status="received") == [Stage.DELIVERED]
    assert stages(id="u", status="reject", note="no") == [Stage.FAILED]
    assert stages(id="u", status="pending") == stages(status="sent") == []
    assert stages(id="u", status="sent", message="an incoming message") == []


@pytest.mark.parametrize(
    ("contract", "body", "state"),
    [
        (green_api.CONTRACT, {"stateInstance": "authorized"}, AccountState.CONNECTED),
        (green_api.CONTRACT, {"stateInstance": "yellowCard"}, AccountState.DISCONNECTED),
        (green_api.CONTRACT, {"stateInstance": "new"}, AccountState.UNKNOWN),
        (ultramsg.CONTRACT, {"status": {"accountStatus": {"status": "authenticated"}}}, AccountState.CONNECTED),
        (ultramsg.CONTRACT, {"status": {"accountStatus": {"status": "qr"}}}, AccountState.DISCONNECTED),
        (ultramsg.CONTRACT, {"error": "Wrong token."}, AccountState.REFUSED),
        (ultramsg.CONTRACT, {"status": "?"}, AccountState.UNKNOWN),
    ],
)
def test_the_checks_read_the_instance(contract: Any, body: Any, state: AccountState) -> None:
    assert contract.parse_check(200, {}, body_of(body)).state is state
