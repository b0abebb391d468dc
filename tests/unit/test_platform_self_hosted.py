"""WAHA and Evolution API, as their sources and documentation say."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest

from actors.platforms import evolution, waha
from actors.platforms.contract import Account, PlatformMessage
from actors.platforms.outcomes import Accepted, AccountState, Rejected, Retryable, Scope, Unknown
from actors.platforms.webhooks import DeliveryReport, Stage
from tests.support.requests import json_of

WAHA = Account("https://waha.example.com", {"api_key": "invented-key", "webhook_key": "invented-hook"})
EVOLUTION = Account("https://evo.example.com", {"api_key": "invented-key", "instance": "my instance/1"})
TEXT = PlatformMessage(reference="m-1", to="6281234567890", kind="text", body="hello 🦎")
IMAGE = replace(TEXT, kind="image", media_url="https://example.com/a%20b.png?x=1")
VOICE = replace(TEXT, kind="audio", body="", media_url="https://example.com/voice")


def body_of(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_waha_takes_json_for_a_chat_of_a_session() -> None:
    request = waha.CONTRACT.build_request(TEXT, WAHA)
    assert (request.method, request.url) == ("POST", "https://waha.example.com/api/sendText")
    assert request.headers["X-Api-Key"] == "invented-key"
    assert json_of(request) == {"session": "default", "chatId": "6281234567890@c.us", "text": "hello 🦎"}
    group = replace(TEXT, to="120363012345678901@g.us", to_group=True)
    assert json_of(waha.CONTRACT.build_request(group, WAHA))["chatId"] == "120363012345678901@g.us"


def test_waha_s_media_is_a_file_with_a_type_and_a_name() -> None:
    image, voice = waha.CONTRACT.build_request(IMAGE, WAHA), waha.CONTRACT.build_request(VOICE, WAHA)
    assert image.url.endswith("/api/sendImage")
    assert json_of(image) == {
        "session": "default",
        "chatId": "6281234567890@c.us",
        "file": {"mimetype": "image/png", "filename": "a b.png", "url": IMAGE.media_url},
        "caption": "hello 🦎",
    }
    assert voice.url.endswith("/api/sendVoice")
    assert json_of(voice)["file"] == {"mimetype": "audio/mpeg", "filename": "voice.mp3", "url": VOICE.media_url}


def test_waha_s_500_tells_nothing_of_the_request_it_repeats() -> None:
    body = {"statusCode": 500, "exception": {"message": "boom"}, "request": {"body": {"text": "private words"}}}
    outcome = waha.CONTRACT.parse_reply(500, {}, body_of(body))
    assert isinstance(outcome, Unknown)
    assert "private" not in repr(outcome)


@pytest.mark.parametrize(
    ("status", "body", "kind", "scope"),
    [
        (422, {"error": "Session status is not as expected.", "status": "STOPPED"}, Retryable, Scope.DEVICE),
        (422, {"message": "The method is not implemented by the engine"}, Rejected, Scope.MESSAGE),
        (422, {"message": "Available in Plus version only"}, Rejected, Scope.MESSAGE),
        (401, {"message": "Unauthorized", "statusCode": 401}, Rejected, Scope.CREDENTIAL),
        (404, {"message": "Session not found"}, Rejected, Scope.DEVICE),
    ],
)
def test_waha_s_failures_are_told_apart(status: int, body: Any, kind: type, scope: Scope) -> None:
    outcome = waha.CONTRACT.parse_reply(status, {}, body_of(body))
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Rejected | Retryable)
    assert outcome.scope is scope


@pytest.mark.parametrize("identity", ["true_1@c.us_AB", {"_serialized": "true_1@c.us_AB"}])
def test_waha_s_id_is_found_in_each_engine_s_form(identity: Any) -> None:
    reply = body_of({"id": identity})
    assert waha.CONTRACT.parse_reply(201, {}, reply) == Accepted("true_1@c.us_AB")
    event = {"event": "message.ack", "session": "default", "payload": {"id": identity, "ack": 3, "fromMe": True}}
    assert waha.CONTRACT.parse_webhook({}, body_of(event), WAHA) == [DeliveryReport(Stage.READ, "true_1@c.us_AB")]


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"ack": -1}, [Stage.FAILED]),
        ({"ack": 0}, []),
        ({"ack": 1}, [Stage.SENT]),
        ({"ack": 2}, [Stage.DELIVERED]),
        ({"ack": 4}, [Stage.READ]),
        ({"ack": True}, []),
        ({"ack": 1, "fromMe": False}, []),
    ],
)
def test_waha_s_acks_are_stages(changes: dict[str, Any], stages: list[Stage]) -> None:
    event = {"event": "message.ack", "session": "default", "payload": {"id": "x", "fromMe": True, **changes}}
    assert [each.stage for each in waha.CONTRACT.parse_webhook({}, body_of(event), WAHA)] == stages
    other = {**event, "session": "another"}
    assert waha.CONTRACT.parse_webhook({}, body_of(other), WAHA) == []
    assert waha.CONTRACT.parse_webhook({}, body_of({**event, "event": "message"}), WAHA) == []


def test_waha_s_webhooks_are_believed_by_their_signature_where_a_key_was_agreed_upon() -> None:
    body = b'{"event": "message.ack"}'
    good = {"X-Webhook-Hmac": hmac.new(b"invented-hook", body, hashlib.sha512).hexdigest()}
    assert waha.CONTRACT.verify_webhook(good, body, "", WAHA)
    assert waha.CONTRACT.verify_webhook(good | {"X-Webhook-Hmac-Algorithm": "sha512"}, body, "", WAHA)
    assert not waha.CONTRACT.verify_webhook(good | {"X-Webhook-Hmac-Algorithm": "sha1"}, body, "", WAHA)
    assert not waha.CONTRACT.verify_webhook({}, body, "", WAHA)
    assert waha.CONTRACT.verify_webhook({}, body, "", Account(WAHA.base_url, {"api_key": "k"}))


def test_waha_is_asked_about_a_message_in_its_chat() -> None:
    request = waha.CONTRACT.build_status("true_1@c.us_AB", "6281234567890", WAHA)
    assert request is not None
    expected = "/api/default/chats/6281234567890%40c.us/messages/true_1%40c.us_AB?downloadMedia=false"
    assert request.url == WAHA.base_url + expected


def test_evolution_takes_json_for_a_number_through_its_instance() -> None:
    request = evolution.CONTRACT.build_request(TEXT, EVOLUTION)
    assert request.url == "https://evo.example.com/message/sendText/my%20instance%2F1"
    assert request.headers["apikey"] == "invented-key"
    assert json_of(request) == {"number": "6281234567890", "text": "hello 🦎"}
    image = evolution.CONTRACT.build_request(IMAGE, EVOLUTION)
    assert image.url == "https://evo.example.com/message/sendMedia/my%20instance%2F1"
    assert json_of(image) == {
        "number": "6281234567890",
        "mediatype": "image",
        "mimetype": "image/png",
        "fileName": "a b.png",
        "media": IMAGE.media_url,
        "caption": "hello 🦎",
    }


def test_evolution_s_failures_are_told_apart() -> None:
    def outcome(status: int, message: Any) -> Any:
        body = {"status": status, "error": "Error", "response": {"message": message}}
        return evolution.CONTRACT.parse_reply(status, {}, body_of(body))

    assert outcome(400, [{"exists": False, "number": "1"}]).code == "not_on_whatsapp"
    assert isinstance(outcome(400, ["Connection Closed"]), Retryable)
    assert outcome(400, [["instance requires property text"]]).scope is Scope.MESSAGE
    assert outcome(404, ['The "x" instance does not exist']).scope is Scope.DEVICE
    assert outcome(401, "Unauthorized").scope is Scope.CREDENTIAL
    assert isinstance(outcome(500, "Connection Closed"), Unknown)


def test_evolution_s_events_tell_stages_and_nothing_else() -> None:
    event = {
        "event": "messages.update",
        "instance": "my instance/1",
        "apikey": "invented-key",
        "data": [
            {"keyId": "A", "fromMe": True, "status": "DELIVERY_ACK"},
            {"key": {"id": "B", "fromMe": True}, "update": {"status": "READ"}},
            {"keyId": "C", "fromMe": True, "status": "PENDING"},
            {"keyId": "D", "fromMe": False, "status": "READ"},
            {"keyId": "E", "status": "ERROR"},
        ],
    }
    reports = evolution.CONTRACT.parse_webhook({}, body_of(event), EVOLUTION)
    assert [(each.provider_id, each.stage) for each in reports] == [
        ("A", Stage.DELIVERED),
        ("B", Stage.READ),
        ("E", Stage.FAILED),
    ]
    assert "invented-key" not in repr(reports)
    assert evolution.CONTRACT.parse_webhook({}, body_of({**event, "instance": "other"}), EVOLUTION) == []


@pytest.mark.parametrize(
    ("contract", "status", "body", "state"),
    [
        (waha.CONTRACT, 200, {"status": "WORKING"}, AccountState.CONNECTED),
        (waha.CONTRACT, 200, {"status": "SCAN_QR_CODE"}, AccountState.DISCONNECTED),
        (waha.CONTRACT, 200, {"status": "STARTING"}, AccountState.UNKNOWN),
        (waha.CONTRACT, 401, {"message": "Unauthorized"}, AccountState.REFUSED),
        (evolution.CONTRACT, 200, {"instance": {"state": "open"}}, AccountState.CONNECTED),
        (evolution.CONTRACT, 200, {"instance": {"state": "close"}}, AccountState.DISCONNECTED),
        (evolution.CONTRACT, 404, {}, AccountState.DISCONNECTED),
        (evolution.CONTRACT, 401, {}, AccountState.REFUSED),
    ],
)
def test_the_checks_read_the_session(contract: Any, status: int, body: Any, state: AccountState) -> None:
    assert contract.parse_check(status, {}, body_of(body)).state is state
