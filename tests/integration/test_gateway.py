"""The gateway over real HTTP and PostgreSQL: who is believed, what is written down, what is told to strangers."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from config.home import Home
from config.webhooks import webhook_path
from gateway.provider_webhooks import LONGEST_BODY, create_app
from gateway.receiving import Receiver
from gateway.server import Server, bind
from simulator.platforms.server import DEFAULT_ACCOUNTS
from storage import breakers, devices, events, outbox
from storage.credentials import CredentialSeal
from storage.database import Connection, PooledConnections
from storage.deliveries import reference_of
from storage.dispatch import Ended, exchange
from storage.embedded import EmbeddedPostgres
from storage.outbox import Claim, Outbox
from tests.integration.conftest import NewDatabase, WaitUntil
from tests.support.outbox import accept_texts, claim_next, state_of, story_of

Signing = Callable[[str, bytes], dict[str, str]]
META = DEFAULT_ACCOUNTS["meta_cloud"]
TWILIO = DEFAULT_ACCOUNTS["twilio"]
WAHA = DEFAULT_ACCOUNTS["waha"] | {"webhook_key": "invented-webhook-key"}
JSON = {"Content-Type": "application/json"}


@dataclass
class Gateway:
    """A gateway that serves, and the devices it serves for."""

    home: Home
    server: Server
    base_url: str
    seal: CredentialSeal

    def add(self, connection: Connection, platform: str, **credentials: str) -> tuple[int, str]:
        """Add a device; return its id and its webhook address."""
        name = f"{platform}-{secrets.token_hex(4)}"
        sealed = self.seal.seal(credentials or DEFAULT_ACCOUNTS[platform])
        base_url = {"waha": "http://127.0.0.1:9", "wablas": "https://bdg.wablas.com", "green_api": "http://127.0.0.1:9"}
        device_id = devices.add(
            connection, name=name, platform=platform, base_url=base_url.get(platform), credentials=sealed
        )
        return device_id, self.base_url + webhook_path(self.home, name)


@pytest.fixture(scope="module")
def gateway(storage_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = Home(tmp_path_factory.mktemp("gateway") / "home")
    home.create()
    listening = bind("127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    seal = CredentialSeal(home.credentials_key)
    database = PooledConnections(storage_url, 4)
    receiver = Receiver(home, database, seal, base_url=base_url, loopback_allowed=True)
    server = Server(create_app(receiver), listening)
    server.start()
    yield Gateway(home, server, base_url, seal)
    server.leave()
    database.close()
    assert not server.is_alive()
    with socket.socket() as probe:
        assert probe.connect_ex(listening_address := ("127.0.0.1", int(base_url.rpartition(":")[2]))) != 0, (
            f"{listening_address} still listens"
        )


@pytest.fixture
def sender(storage_url: str) -> Iterator[Outbox]:
    database = PooledConnections(storage_url, 1)
    yield Outbox(database, "platform/one")
    database.close()


def sent(connection: Connection, sender: Outbox, device_id: int, provider_id: str) -> Claim:
    """Return a message that was sent under an id."""
    accept_texts(connection, device_id, "hello")
    claim = claim_next(sender, device_id)
    sender.sent(claim, provider_id)
    return claim


def in_doubt(connection: Connection, sender: Outbox, device_id: int) -> Claim:
    """Return a message whose reply was lost."""
    accept_texts(connection, device_id, "hello")
    claim = claim_next(sender, device_id)
    reference = reference_of(claim.message_id, claim.secret)
    lost = Ended(claim.message_id, claim.attempt_id, device_id, reference, "in_doubt", "no_reply", "no reply")
    with sender.database.transaction() as transaction:
        exchange(transaction, sender.owner, ended=[lost])
    return claim


def post(url: str, body: bytes, headers: dict[str, str] | None = None) -> requests.Response:
    return requests.post(url, data=body, headers=headers or JSON, timeout=30)


# --- what each provider posts ----------------------------------------------------------------------------


def meta_body(provider_id: str, stage: str, **more: Any) -> bytes:
    status = {"id": provider_id, "status": stage, "timestamp": "1700000000", "recipient_id": "60123456789", **more}
    value = {"messaging_product": "whatsapp", "statuses": [status]}
    return json.dumps(
        {"object": "x", "entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}]}
    ).encode()


def meta_signed(_url: str, body: bytes, key: str = META["app_secret"]) -> dict[str, str]:
    return {**JSON, "X-Hub-Signature-256": "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}


def twilio_body(provider_id: str, stage: str) -> bytes:
    return urlencode({"MessageSid": provider_id, "MessageStatus": stage, "From": "whatsapp:+60 1"}).encode()


def twilio_signed(url: str, body: bytes, key: str = TWILIO["auth_token"]) -> dict[str, str]:
    from urllib.parse import parse_qsl  # noqa: PLC0415 - beside its one use

    text = url + "".join(f"{name}{value}" for name, value in sorted(parse_qsl(body.decode())))
    signature = base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha1).digest()).decode()
    return {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": signature}


def waha_body(provider_id: str, stage: str) -> bytes:
    ack = {"sent": 1, "delivered": 2, "read": 3}[stage]
    payload = {"id": provider_id, "from": "6012@c.us", "fromMe": True, "ack": ack, "ackName": stage}
    return json.dumps({"event": "message.ack", "session": "default", "payload": payload}).encode()


def waha_signed(_url: str, body: bytes, key: str = WAHA["webhook_key"]) -> dict[str, str]:
    signature = hmac.new(key.encode(), body, hashlib.sha512).hexdigest()
    return {**JSON, "X-Webhook-Hmac": signature, "X-Webhook-Hmac-Algorithm": "sha512"}


SIGNED: dict[str, tuple[dict[str, str], Callable[[str, str], bytes], Callable[..., dict[str, str]]]] = {
    "meta_cloud": (dict(META), meta_body, meta_signed),
    "twilio": (dict(TWILIO), twilio_body, twilio_signed),
    "waha": (dict(WAHA), waha_body, waha_signed),
}
EACH_SIGNED = pytest.mark.parametrize("platform", SIGNED)


# --- who is believed -------------------------------------------------------------------------------------


@EACH_SIGNED
def test_what_the_provider_signed_moves_its_message(
    connection: Connection, gateway: Gateway, sender: Outbox, platform: str
) -> None:
    credentials, body_of, signed = SIGNED[platform]
    device_id, url = gateway.add(connection, platform, **credentials)
    claim = sent(connection, sender, device_id, "ID-1")
    for stage in ("delivered", "read"):
        body = body_of("ID-1", stage)
        answer = post(url, body, signed(url, body))
        assert (answer.status_code, answer.content) == (200, b"")
    assert story_of(connection, claim.message_id) == ["queued", "sending", "sent", "delivered", "read"]


@EACH_SIGNED
@pytest.mark.parametrize("how", ["with another key", "over another body", "not at all", "with rubbish"])
def test_what_is_not_signed_right_is_refused_and_leaves_no_trace(
    connection: Connection, gateway: Gateway, sender: Outbox, platform: str, how: str
) -> None:
    credentials, body_of, signed = SIGNED[platform]
    device_id, url = gateway.add(connection, platform, **credentials)
    claim = sent(connection, sender, device_id, "ID-2")
    body = body_of("ID-2", "read")
    headers = {
        "with another key": signed(url, body, "another-key"),
        "over another body": signed(url, body_of("ID-2", "delivered")),
        "not at all": {"Content-Type": signed(url, body)["Content-Type"]},
        "with rubbish": dict.fromkeys(signed(url, body), "sha256=ÿ"),
    }[how]
    answer = post(url, body, headers)
    assert (answer.status_code, answer.content) == (403, b"")
    assert state_of(connection, claim.message_id) == "sent"
    assert events.latest(connection, device=url.rpartition("/")[2]) == []


def test_a_signature_for_one_device_is_worth_nothing_for_another(connection: Connection, gateway: Gateway) -> None:
    _, url = gateway.add(connection, "twilio")
    _, other = gateway.add(connection, "twilio")
    body = twilio_body("ID-3", "read")
    assert post(other, body, twilio_signed(url, body)).status_code == 403


def test_meta_is_answered_its_challenge_when_it_shows_the_agreed_word(connection: Connection, gateway: Gateway) -> None:
    _, url = gateway.add(connection, "meta_cloud")
    query = {"hub.mode": "subscribe", "hub.verify_token": META["verify_token"], "hub.challenge": "1158201444"}
    answer = requests.get(url, params=query, timeout=30)
    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert answer.headers["Content-Type"].startswith("text/plain")
    refused = requests.get(url, params={**query, "hub.verify_token": "wrong"}, timeout=30)
    assert (refused.status_code, refused.content) == (403, b"")
    assert requests.get(url, timeout=30).status_code == 403


def test_strangers_are_told_nothing(connection: Connection, gateway: Gateway) -> None:
    _, url = gateway.add(connection, "wablas")
    _, known, name = url.rsplit("/", 2)
    body = json.dumps({"id": "ID-4", "phone": "60123456789", "status": "read"}).encode()
    wrong = known[:-1] + ("0" if known[-1] != "0" else "1")
    strangers = [f"/webhooks/{wrong}/{name}", f"/webhooks/x/{name}", f"/webhooks/{known}/nobody", "/webhooks/%ff/%00"]
    strangers += ["/", "/docs", "/openapi.json", f"/webhooks/{known}", f"/webhooks/{known}/{name}/more", "/webhooks"]
    for path in strangers:
        for answer in (post(gateway.base_url + path, body), requests.get(gateway.base_url + path, timeout=30)):
            assert (answer.status_code, answer.content) == (404, b""), path
            assert "server" not in answer.headers
    assert events.latest(connection, device=name) == []


def test_a_removed_device_and_one_of_whatsapp_take_no_webhooks(connection: Connection, gateway: Gateway) -> None:
    device_id, url = gateway.add(connection, "wablas")
    devices.remove(connection, device_id)
    assert post(url, b"{}").status_code == 404
    devices.add(connection, name="a-phone", platform=None)
    assert post(gateway.base_url + webhook_path(gateway.home, "a-phone"), b"{}").status_code == 404


def test_a_secret_survives_a_restart_and_differs_by_device_and_home(tmp_path: Path) -> None:
    homes = [Home(tmp_path / name) for name in ("one", "two")]
    for home in homes:
        home.create()
    first, second = homes
    assert webhook_path(first, "desk-1") == webhook_path(Home(first.path), "desk-1")
    assert len({webhook_path(first, "desk-1"), webhook_path(first, "desk-2"), webhook_path(second, "desk-1")}) == 3


# --- what becomes of reports -----------------------------------------------------------------------------


def wablas_body(provider_id: str, stage: str, **more: str) -> bytes:
    event = {"id": provider_id, "phone": "60123456789", "status": stage, "note": "", "deviceId": "SIM001", **more}
    return json.dumps(event).encode()


def test_wablas_gets_an_empty_body_whatever_it_reports(
    connection: Connection, gateway: Gateway, sender: Outbox
) -> None:
    device_id, url = gateway.add(connection, "wablas")
    sent(connection, sender, device_id, "W-1")
    incoming = json.dumps({"id": "1", "message": "hello", "phone": "60123456789"}).encode()
    for body in (wablas_body("W-1", "read"), wablas_body("W-?", "read"), incoming, b"", b"{", b"\xff\xfe", b"[[[["):
        answer = post(url, body)
        assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "0"), body


def test_repeated_and_unordered_reports_come_to_the_furthest_stage(
    connection: Connection, gateway: Gateway, sender: Outbox
) -> None:
    device_id, url = gateway.add(connection, "wablas")
    claim = sent(connection, sender, device_id, "W-2")
    for stage in ("read", "sent", "delivered", "read", "delivered", "read"):
        assert post(url, wablas_body("W-2", stage)).status_code == 200
    assert story_of(connection, claim.message_id) == ["queued", "sending", "sent", "read"]
    kept = events.latest(connection, device=url.rpartition("/")[2])
    assert sorted(each["body"]["stage"] for each in kept) == ["delivered", "read", "sent"]


def test_a_failure_after_sent_carries_the_providers_reason(
    connection: Connection, gateway: Gateway, sender: Outbox
) -> None:
    device_id, url = gateway.add(connection, "meta_cloud")
    claim = sent(connection, sender, device_id, "wamid.3")
    error = {"code": 131026, "title": "Message undeliverable", "message": "Message undeliverable"}
    body = meta_body("wamid.3", "failed", errors=[error])
    assert post(url, body, meta_signed(url, body)).status_code == 200
    message = outbox.message(connection, claim.message_id)
    assert message is not None
    assert (message["state"], message["reason"]) == ("failed", "Message undeliverable (131026)")


def test_our_reference_settles_a_message_in_doubt(connection: Connection, gateway: Gateway, sender: Outbox) -> None:
    device_id, url = gateway.add(connection, "meta_cloud")
    claim = in_doubt(connection, sender, device_id)
    reference = reference_of(claim.message_id, claim.secret)
    body = meta_body("wamid.4", "sent", biz_opaque_callback_data=reference)
    assert post(url, body, meta_signed(url, body)).status_code == 200
    body = meta_body("wamid.4", "read")
    assert post(url, body, meta_signed(url, body)).status_code == 200
    assert story_of(connection, claim.message_id) == ["queued", "sending", "in_doubt", "sent", "read"]


def test_fonntes_stateid_is_tied_to_the_id_in_a_row(connection: Connection, gateway: Gateway, sender: Outbox) -> None:
    device_id, url = gateway.add(connection, "fonnte")
    claim = sent(connection, sender, device_id, "80367170")
    for event in (
        {"device": "60", "id": "80367170", "stateid": "S-9", "status": "sent"},
        {"device": "60", "stateid": "S-9", "state": "delivered"},
        {"device": "60", "stateid": "S-9", "state": "read"},
    ):
        assert post(url, json.dumps(event).encode()).status_code == 200
    assert story_of(connection, claim.message_id) == ["queued", "sending", "sent", "delivered", "read"]


def test_a_suspended_sender_is_held_back(connection: Connection, gateway: Gateway, sender: Outbox) -> None:
    device_id, url = gateway.add(connection, "green_api")
    sent(connection, sender, device_id, "G-1")
    event = {"typeWebhook": "outgoingMessageStatus", "idMessage": "G-1", "status": "yellowCard"}
    assert post(url, json.dumps(event).encode()).status_code == 200
    device = devices.by_id(connection, device_id)
    assert device is not None
    assert device.is_held
    assert "Green-API reports about the sender" in device.held_reason
    assert device.name in breakers.reported(connection, "green_api")
    breakers.show(connection, "green_api", device.name, "closed", "", 0)
    assert post(url, json.dumps(event).encode()).status_code == 200
    assert device.name not in breakers.reported(connection, "green_api"), "what is repeated is no news"


def test_a_report_about_nobodys_message_is_kept(connection: Connection, gateway: Gateway) -> None:
    _, url = gateway.add(connection, "wablas")
    assert post(url, wablas_body("W-?", "delivered")).status_code == 200
    (kept,) = events.latest(connection, device=url.rpartition("/")[2])
    assert (kept["kind"], kept["body"]["message_id"], kept["body"]["stage"]) == ("receipt", "W-?", "delivered")


# --- limits ----------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_announced_or_not(connection: Connection, gateway: Gateway) -> None:
    _, url = gateway.add(connection, "wablas")
    path = url.removeprefix(gateway.base_url).encode()
    head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    announced = head + b"Content-Length: %d\r\n\r\n" % (LONGEST_BODY + 1)
    chunk = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (LONGEST_BODY // 65536 + 1)
    for request in (announced, chunked):
        with socket.create_connection(("127.0.0.1", gateway.server.port), timeout=30) as raw:
            raw.sendall(request)
            assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


def test_the_largest_body_is_taken(connection: Connection, gateway: Gateway) -> None:
    _, url = gateway.add(connection, "wablas")
    body = wablas_body("W-6", "read")
    assert post(url, body + b" " * (LONGEST_BODY - len(body))).status_code == 200


def test_secrets_are_in_no_log_line(
    connection: Connection, gateway: Gateway, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    _, url = gateway.add(connection, "meta_cloud")
    secret = url.rsplit("/", 2)[1]
    post(url, meta_body("wamid.7", "read"), meta_signed(url, meta_body("wamid.7", "read")))
    post(url, meta_body("wamid.7", "read"))
    with socket.create_connection(("127.0.0.1", gateway.server.port), timeout=30) as raw:
        raw.sendall(b"NONSENSE " + secret.encode() + b"\r\n\r\n")
        raw.recv(1000)
    own = [record.getMessage() for record in caplog.records if not record.name.startswith("urllib3")]
    told = "\n".join([*own, *capfd.readouterr()])
    assert not [value for value in (secret, *META.values()) if value in told]


def test_a_report_is_not_acknowledged_while_it_cannot_be_written(
    postgres: EmbeddedPostgres,
    new_database: NewDatabase,
    storage_url: str,
    connection: Connection,
    gateway: Gateway,
    sender: Outbox,
    wait_until: WaitUntil,
) -> None:
    device_id, url = gateway.add(connection, "wablas")
    claim = sent(connection, sender, device_id, "W-8")
    postgres.stop()
    try:
        answer = post(url, wablas_body("W-8", "read"))
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert answer.content == b""
    finally:
        postgres.start()
    wait_until(lambda: post(url, wablas_body("W-8", "read")).status_code == 200, "the gateway to be back")
    # The sender's own connection ended with the server; it would learn of that only now.
    with contextlib.closing(PooledConnections(storage_url, 1)) as database, database.transaction() as again:
        assert state_of(again, claim.message_id) == "read"
