"""Twilio, as its Messages resource is documented."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.platforms.callbacks import told_no_address
from actors.platforms.checks import AccountNotUsable, check_account
from actors.platforms.contract import Account, PlatformMessage
from actors.platforms.limits import TEMPLATE
from actors.platforms.outcomes import Accepted, AccountState, Rejected, Retryable, Scope, Unknown
from actors.platforms.twilio import CONTRACT
from actors.platforms.webhooks import DeliveryReport, Stage
from config.home import Home
from config.settings import Settings
from config.webhooks import callback_url
from tests.support.requests import form_of

CREDENTIALS = {"account_sid": "AC123", "auth_token": "invented-token", "sender": "+14155238886"}
ACCOUNT = Account("https://api.twilio.com", CREDENTIALS)
TEXT = PlatformMessage(reference="m-1", to="6281234567890", kind="text", body="hello")


def reply(value: Any, status: int) -> Any:
    return CONTRACT.parse_reply(status, {}, json.dumps(value).encode())


def test_a_text_is_one_form_post_whose_numbers_keep_their_plus() -> None:
    request = CONTRACT.build_request(TEXT, ACCOUNT)
    assert (request.method, request.url) == ("POST", "https://api.twilio.com/2010-04-01/Accounts/AC123/Messages.json")
    expected = base64.b64encode(b"AC123:invented-token").decode()
    assert request.headers["Authorization"] == f"Basic {expected}"
    assert request.body == b"To=whatsapp%3A%2B6281234567890&From=whatsapp%3A%2B14155238886&Body=hello"


@pytest.mark.parametrize("sender", ["14155238886", "+14155238886", "whatsapp:+14155238886"])
def test_a_sender_may_be_written_in_any_of_its_forms(sender: str) -> None:
    account = check_account(CONTRACT, None, CREDENTIALS | {"sender": sender}, loopback_allowed=False)
    assert form_of(CONTRACT.build_request(TEXT, account))["From"] == "whatsapp:+14155238886"


def test_a_sender_that_is_no_number_is_refused_when_the_device_is_added() -> None:
    with pytest.raises(AccountNotUsable):
        check_account(CONTRACT, None, CREDENTIALS | {"sender": "my-number"}, loopback_allowed=False)


def test_services_media_templates_callbacks_and_api_keys_have_their_own_fields() -> None:
    account = Account(
        ACCOUNT.base_url,
        CREDENTIALS | {"sender": "MG1", "api_key_sid": "SK1", "api_key_secret": "invented-key"},
        "https://example.com/hook",
    )
    media = replace(TEXT, kind="image", media_url="https://example.com/a.jpg")
    request = CONTRACT.build_request(media, account)
    assert request.headers["Authorization"] == "Basic " + base64.b64encode(b"SK1:invented-key").decode()
    assert form_of(request) == {
        "To": "whatsapp:+6281234567890",
        "MessagingServiceSid": "MG1",
        "Body": "hello",
        "MediaUrl": "https://example.com/a.jpg",
        "StatusCallback": "https://example.com/hook?reference=m-1",
    }
    template = replace(TEXT, kind=TEMPLATE, body='{"name": "HX1", "variables": {"1": "Ann"}}')
    fields = form_of(CONTRACT.build_request(template, ACCOUNT))
    assert (fields["ContentSid"], json.loads(fields["ContentVariables"])) == ("HX1", {"1": "Ann"})
    assert "Body" not in fields


def test_a_sid_under_a_success_is_the_marker() -> None:
    assert reply({"sid": "SM1", "status": "queued", "error_code": None}, 201) == Accepted("SM1", "queued")
    assert isinstance(reply({"sid": "SM1", "status": "failed"}, 201), Rejected)
    assert isinstance(reply({"status": "queued"}, 201), Unknown)
    assert isinstance(reply({"sid": "SM1", "status": "queued"}, 500), Unknown)


@pytest.mark.parametrize(
    ("code", "status", "kind", "scope"),
    [
        (20429, 429, Retryable, Scope.ACCOUNT),
        (63018, 400, Retryable, Scope.ACCOUNT),
        (20003, 401, Rejected, Scope.CREDENTIAL),
        (63016, 400, Rejected, Scope.MESSAGE),
        (63024, 400, Rejected, Scope.MESSAGE),
        (63013, 400, Rejected, Scope.MESSAGE),
        (63021, 400, Rejected, Scope.MESSAGE),
        (21211, 400, Rejected, Scope.MESSAGE),
    ],
)
def test_errors_are_told_by_their_code(code: int, status: int, kind: type, scope: Scope) -> None:
    outcome = reply({"code": code, "message": "words", "status": status}, status)
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Rejected | Retryable)
    assert outcome.scope is scope


def test_a_signature_is_twilio_s_own_example() -> None:
    """The address, the fields and the signature of the example in Twilio's documentation of webhook security."""
    body = b"CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212"
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    account = Account(ACCOUNT.base_url, CREDENTIALS | {"auth_token": "12345"})
    headers = {"X-Twilio-Signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="}
    assert CONTRACT.verify_webhook(headers, body, url, account)
    assert CONTRACT.verify_webhook(headers, body, url.replace(".com/", ".com:443/"), account)
    assert not CONTRACT.verify_webhook(headers, body, url + "&x=1", account)
    assert not CONTRACT.verify_webhook(headers, body + b"&x=1", url, account)
    assert not CONTRACT.verify_webhook({}, body, url, account)


def test_a_refused_callback_address_is_not_told_as_it_holds_a_secret() -> None:
    account = replace(ACCOUNT, callback_url="https://example.com/webhooks/secret/desk")
    assert "https://example.com/webhooks/secret/desk" in CONTRACT.build_request(TEXT, account).secrets


def test_an_address_that_only_this_machine_reaches_is_named_to_the_stand_in_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.credentials_key.write_bytes(b"invented")
    nowhere, alone = Settings.model_validate({}), Settings.model_validate({"webhook_port": 8443})
    public = Settings.model_validate({"webhook_port": 8443, "webhook_base_url": "https://hooks.example.com"})
    assert callback_url(home, alone, "desk", loopback=False) == ""
    assert "StatusCallback" not in form_of(CONTRACT.build_request(TEXT, replace(ACCOUNT, callback_url="")))
    assert callback_url(home, alone, "desk", loopback=True).startswith("http://127.0.0.1:8443/webhooks/")
    assert callback_url(home, public, "desk", loopback=False).startswith("https://hooks.example.com/webhooks/")
    assert "webhook_base_url" in told_no_address(alone, "twilio", loopback=False)
    for settings, platform, loopback in (
        (nowhere, "twilio", False),
        (public, "twilio", False),
        (alone, "twilio", True),
    ):
        assert told_no_address(settings, platform, loopback=loopback) == ""
    assert told_no_address(alone, "whacenter", loopback=False) == ""


@pytest.mark.parametrize("status", [400, 500, 503])
def test_a_sid_under_a_failing_status_is_in_doubt_and_can_be_asked_about(status: int) -> None:
    outcome = CONTRACT.parse_reply(status, {}, b'{"sid": "SM1f", "status": "queued", "error_code": null}')
    assert isinstance(outcome, Unknown)
    assert outcome.provider_id == "SM1f"


def test_callbacks_and_messages_tell_their_stage() -> None:
    def parse(body: bytes) -> list[DeliveryReport]:
        return CONTRACT.parse_webhook({}, body, ACCOUNT)

    assert parse(b"MessageSid=SM1&MessageStatus=read") == [DeliveryReport(Stage.READ, "SM1")]
    assert parse(b"MessageSid=SM1&MessageStatus=undelivered&ErrorCode=63016") == [
        DeliveryReport(Stage.FAILED, "SM1", code="63016", reason="undelivered")
    ]
    assert parse(b"MessageSid=SM1&MessageStatus=queued") == parse(b"MessageStatus=sent") == parse(b"\xff") == []
    request = CONTRACT.build_status("SM1/../x", TEXT.to, ACCOUNT)
    assert request is not None
    assert request.url.endswith("/Accounts/AC123/Messages/SM1%2F..%2Fx.json")
    found = CONTRACT.parse_status(200, {}, b'{"sid": "SM1", "status": "delivered"}', "SM1")
    assert found == DeliveryReport(Stage.DELIVERED, "SM1")


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (200, {"status": "active"}, AccountState.CONNECTED),
        (200, {"status": "suspended"}, AccountState.REFUSED),
        (401, {"code": 20003, "message": "Authenticate"}, AccountState.REFUSED),
        (404, {"code": 20404}, AccountState.REFUSED),
        (500, {}, AccountState.UNKNOWN),
    ],
)
def test_the_check_reads_the_account(status: int, body: Any, state: AccountState) -> None:
    check = CONTRACT.parse_check(status, {}, json.dumps(body).encode())
    assert check is not None
    assert check.state is state
