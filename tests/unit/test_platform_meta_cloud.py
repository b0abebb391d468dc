"""Meta's Cloud API and 360dialog's door to it, as they are documented."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest

from actors.platforms import dialog360, meta_cloud
from actors.platforms.contract import Account, PlatformMessage
from actors.platforms.limits import TEMPLATE
from actors.platforms.outcomes import Accepted, Outcome, Rejected, Retryable, Scope, Unknown
from actors.platforms.webhooks import DeliveryReport, Stage
from tests.support.requests import json_of

CONTRACT = meta_cloud.CONTRACT
ACCOUNT = Account(
    "https://graph.facebook.com",
    {
        "access_token": "invented-token",
        "phone_number_id": "106540352242922",
        "app_secret": "invented-secret",
        "verify_token": "invented-word",
    },
)
DIALOG = Account("https://waba-v2.360dialog.io", {"api_key": "invented-key"})
TEXT = PlatformMessage(reference="m-1", to="6281234567890", kind="text", body="hello 🦎")
COMMON = {
    "messaging_product": "whatsapp",
    "recipient_type": "individual",
    "to": "6281234567890",
    "biz_opaque_callback_data": "m-1",
}
LINK = "https://example.com/a"


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (TEXT, {"type": "text", "text": {"body": "hello 🦎"}}),
        (
            replace(TEXT, kind="image", media_url=LINK, media_name="a.jpg"),
            {"type": "image", "image": {"link": LINK, "caption": "hello 🦎"}},
        ),
        (replace(TEXT, kind="video", body="", media_url=LINK), {"type": "video", "video": {"link": LINK}}),
        (replace(TEXT, kind="audio", body="", media_url=LINK), {"type": "audio", "audio": {"link": LINK}}),
        (
            replace(TEXT, kind="document", media_url=LINK, media_name="bill.pdf"),
            {"type": "document", "document": {"link": LINK, "caption": "hello 🦎", "filename": "bill.pdf"}},
        ),
        (
            replace(TEXT, kind=TEMPLATE, body='{"name": "hello_world", "language": "en_US"}'),
            {"type": "template", "template": {"name": "hello_world", "language": {"code": "en_US"}}},
        ),
        (
            replace(TEXT, kind=TEMPLATE, body='{"name": "a", "language": "id", "components": [{"type": "body"}]}'),
            {
                "type": "template",
                "template": {"name": "a", "language": {"code": "id"}, "components": [{"type": "body"}]},
            },
        ),
    ],
    ids=["text", "image", "video", "audio", "document", "template", "filled template"],
)
def test_every_kind_is_the_documented_json_through_either_door(message: PlatformMessage, body: dict[str, Any]) -> None:
    request = CONTRACT.build_request(message, ACCOUNT)
    assert request.url == "https://graph.facebook.com/v23.0/106540352242922/messages"
    assert request.headers["Authorization"] == "Bearer invented-token"
    assert json_of(request) == COMMON | body
    through_dialog = dialog360.CONTRACT.build_request(message, DIALOG)
    assert through_dialog.url == "https://waba-v2.360dialog.io/messages"
    assert through_dialog.headers["D360-API-KEY"] == "invented-key"
    assert json_of(through_dialog) == COMMON | body


def test_the_version_of_the_api_can_be_chosen() -> None:
    account = Account(ACCOUNT.base_url, {**ACCOUNT.credentials, "api_version": "v99.0"})
    assert CONTRACT.build_request(TEXT, account).url.startswith("https://graph.facebook.com/v99.0/")


def error(code: int, status: int = 400) -> Outcome:
    body = {"error": {"message": "title", "code": code, "error_data": {"details": "details"}}}
    outcome = CONTRACT.parse_reply(status, {}, json.dumps(body).encode())
    assert dialog360.CONTRACT.parse_reply(status, {}, json.dumps(body).encode()) == outcome
    return outcome


@pytest.mark.parametrize(
    ("codes", "kind", "scope"),
    [
        ([0, 190, 3, 10, 200, 250, 299], Rejected, Scope.CREDENTIAL),
        ([4, 80007, 613, 130429], Retryable, Scope.ACCOUNT),
        ([131056], Retryable, Scope.MESSAGE),
        ([2, 131016, 131057, 133016], Retryable, Scope.SERVICE),
        ([131048, 368, 131031, 130497, 131064, 131042, 131045], Rejected, Scope.ACCOUNT),
        ([100, 131008, 131009, 131021, 131030, 131051, 132000, 132007, 132016], Rejected, Scope.MESSAGE),
        ([131026, 131050, 130472, 131052, 131053, 131047, 131049], Rejected, Scope.MESSAGE),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_an_error_s_code_decides_whatever_the_http_status(
    codes: list[int], kind: type, scope: Scope, status: int
) -> None:
    for code in codes:
        outcome = error(code, status)
        assert isinstance(outcome, Rejected | Retryable)
        assert isinstance(outcome, kind), code
        assert outcome.scope is scope, code
        assert outcome.reason == f"({code}) details"


def test_an_unknown_error_is_in_doubt_and_an_unknown_code_goes_by_the_status() -> None:
    for status in (200, 400, 500):
        assert isinstance(error(131000, status), Unknown)
    assert isinstance(error(999_999, 500), Unknown)
    assert isinstance(error(999_999, 200), Unknown)
    assert isinstance(error(999_999, 400), Rejected)


def test_a_recipient_s_throttle_grows_fourfold_from_a_second() -> None:
    outcome = error(131056)
    assert isinstance(outcome, Retryable)
    assert (outcome.after_seconds, outcome.growth) == (1.0, 4.0)


def test_a_success_needs_no_message_status() -> None:
    assert CONTRACT.parse_reply(200, {}, b'{"messages":[{"id":"wamid.1"}]}') == Accepted("wamid.1", "")
    assert isinstance(CONTRACT.parse_reply(200, {}, b'{"messages":[]}'), Unknown)


def test_360dialog_s_own_errors_are_known_by_their_words() -> None:
    def outcome(status: int, body: bytes) -> Outcome:
        return dialog360.CONTRACT.parse_reply(status, {}, body)

    throttled = outcome(400, b'{"detail": "You exceeded the endpoint rate limit"}')
    assert isinstance(throttled, Retryable)
    assert throttled.scope is Scope.ACCOUNT
    assert isinstance(outcome(400, b"exceeded the endpoint rate limit"), Retryable)
    disabled = outcome(400, b'{"error": "channel disabled, payment missing"}')
    assert isinstance(disabled, Rejected)
    assert disabled.scope is Scope.ACCOUNT
    # Meta's own verdict is heard even when its words sound like 360dialog's.
    meta = outcome(400, b'{"error": {"code": 131026, "message": "rate limit"}}')
    assert isinstance(meta, Rejected)
    assert meta.scope is Scope.MESSAGE


def webhook(*statuses: dict[str, Any]) -> bytes:
    return json.dumps({"entry": [{"changes": [{"value": {"statuses": list(statuses)}}]}]}).encode()


def test_one_webhook_may_tell_of_many_messages() -> None:
    body = webhook(
        {"id": "wamid.1", "status": "sent"},
        {"id": "wamid.2", "status": "read", "biz_opaque_callback_data": "m-2"},
        {"id": "wamid.3", "status": "failed", "errors": [{"code": 131047, "title": "Re-engagement message"}]},
        {"id": "wamid.4", "status": "failed", "errors": [{"code": 131048, "error_data": {"details": "spam"}}]},
        {"id": "wamid.5", "status": "deleted"},
        {"status": "sent"},
    )
    assert CONTRACT.parse_webhook({}, body, ACCOUNT) == [
        DeliveryReport(Stage.SENT, "wamid.1"),
        DeliveryReport(Stage.READ, "wamid.2", "m-2"),
        DeliveryReport(Stage.FAILED, "wamid.3", code="131047", reason="Re-engagement message", scope=Scope.MESSAGE),
        DeliveryReport(Stage.FAILED, "wamid.4", code="131048", reason="spam", scope=Scope.ACCOUNT),
    ]


def test_only_the_app_s_secret_signs_webhooks() -> None:
    body = webhook({"id": "wamid.1", "status": "sent"})
    signature = "sha256=" + hmac.new(b"invented-secret", body, hashlib.sha256).hexdigest()
    assert CONTRACT.verify_webhook({"x-hub-signature-256": signature}, body, "", ACCOUNT)
    assert not CONTRACT.verify_webhook({"x-hub-signature-256": signature}, body + b"\n", "", ACCOUNT)
    assert not CONTRACT.verify_webhook({"x-hub-signature-256": signature[7:]}, body, "", ACCOUNT)
    without = Account(ACCOUNT.base_url, {"access_token": "t", "phone_number_id": "1"})
    empty = "sha256=" + hmac.new(b"", body, hashlib.sha256).hexdigest()
    assert not CONTRACT.verify_webhook({"X-Hub-Signature-256": empty}, body, "", without)


def test_the_challenge_is_answered_to_those_who_know_the_word() -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "invented-word", "hub.challenge": "1158201444"}
    assert CONTRACT.answer_challenge(query, ACCOUNT) == "1158201444"
    for wrong in ({"hub.verify_token": "other"}, {"hub.verify_token": ""}, {"hub.mode": "unsubscribe"}):
        assert CONTRACT.answer_challenge(query | wrong, ACCOUNT) is None
    without = Account(ACCOUNT.base_url, {"access_token": "t", "phone_number_id": "1"})
    assert CONTRACT.answer_challenge(query | {"hub.verify_token": ""}, without) is None
