"""Which endpoints there may be, where they may lead, and what an answer means: pure decisions."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from actors.endpoint_client import new_secret
from actors.endpoint_requests import address_rule, check_events, check_url, endpoint_networks
from actors.public_addresses import AddressRefused
from config.errors import Refused
from config.settings import Settings
from gateway.outgoing.posting import signed
from gateway.outgoing.verdicts import Answer, NoAnswer, judge, wait_after
from storage.endpoint_deliveries import Delivery

INSIDE = (ip_network("10.1.0.0/16"),)


def delivery(attempts: int = 0, *, late: bool = False) -> Delivery:
    return Delivery(1, 1, 1, UUID(int=7), "message.sent", {}, attempts, late=late)


# --- endpoints and events --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["https://example.com/hook", "https://example.com:8443/a?token=b", "https://8.8.8.8/", "https://[2606:4700::1]/"],
)
def test_https_addresses_are_endpoints(url: str) -> None:
    check_url(url, ())


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com/",
        "https:///hook",
        "example.com/hook",
        "https://user:password@example.com/",
        "https://example.com/#part",
        "https://example.com:99999/",
        "https://[::1/",
        "https://exa mple.com/",
        "https://example.com/\nHost: x",
        "https://example.com/" + "a" * 3000,
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::ffff:10.0.0.1]/",
        "https://[fe80::1]/",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        check_url(url, ())


def test_http_and_private_addresses_need_a_network_that_is_allowed() -> None:
    check_url("http://10.1.2.3/hook", INSIDE)
    check_url("https://10.1.2.3/hook", INSIDE)
    for url in ("http://10.2.0.1/hook", "https://10.2.0.1/hook", "http://8.8.8.8/hook"):
        with pytest.raises(Refused):
            check_url(url, INSIDE)


def test_what_is_not_encrypted_stays_inside_wherever_its_name_leads() -> None:
    plain, secure = address_rule("http://example.com/", INSIDE), address_rule("https://example.com/", INSIDE)
    assert secure.allows(ip_address("8.8.8.8"))
    assert not plain.allows(ip_address("8.8.8.8"))
    assert plain.allows(ip_address("10.1.0.9"))
    assert not secure.allows(ip_address("127.0.0.1"))
    with pytest.raises(AddressRefused):
        plain.resolve("127.0.0.1")


def test_the_simulator_opens_this_machine() -> None:
    values: dict[str, Any] = {"endpoint_networks": ("10.1.0.0/16",)}
    settings = Settings(**values)
    assert endpoint_networks(settings, loopback=False) == INSIDE
    check_url("http://127.0.0.1:9000/", endpoint_networks(settings, loopback=True))


@pytest.mark.parametrize("events", [["*"], ["message.*"], ["message.sent", "device.logged_out", "restart.shard"]])
def test_events_that_there_are(events: list[str]) -> None:
    check_events(events)


@pytest.mark.parametrize("events", [[], ["sent"], ["message"], ["message."], ["orders.*"], ["message.sent "], ["*.*"]])
def test_events_that_there_cannot_be(events: list[str]) -> None:
    with pytest.raises(Refused):
        check_events(events)


# --- what an answer means --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_two_hundreds_deliver(status: int) -> None:
    assert judge(delivery(), Answer(status, b"thanks"), 0.5).state == "delivered"


@pytest.mark.parametrize("status", [199, 300, 301, 307, 400, 404, 429, 500, 503, 599, 700])
def test_anything_else_is_tried_again(status: int) -> None:
    tried = judge(delivery(), Answer(status), 0.0)
    assert (tried.state, tried.status, tried.wait) == ("pending", status, 1.0)
    assert str(status) in tried.problem


def test_no_answer_is_tried_again_and_a_late_one_is_the_last() -> None:
    assert judge(delivery(), NoAnswer("No connection."), 0.0).state == "pending"
    assert judge(delivery(late=True), NoAnswer("No connection."), 0.0).state == "dead"
    assert judge(delivery(late=True), Answer(200), 0.0).state == "delivered"


def test_gone_is_for_ever() -> None:
    tried = judge(delivery(), Answer(410), 0.0)
    assert (tried.state, tried.gone) == ("dead", True)
    assert not judge(delivery(late=True), Answer(500), 0.0).gone


def test_waits_grow_to_an_hour_and_differ() -> None:
    assert [wait_after(number, 0.0) for number in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 8.0]
    assert wait_after(1000, 0.0) == 3600.0
    assert wait_after(3, 1.0) == 2.0
    # Three days hold enough attempts for a receiver that is away for a weekend.
    waited, number = 0.0, 0
    while waited < 3 * 86_400:
        number += 1
        waited += wait_after(number, 0.0)
    assert 70 < number < 100


def test_what_the_receiver_asks_for_is_heeded_within_reason() -> None:
    assert judge(delivery(), Answer(503, retry_after=120.0), 0.0).wait == 120.0
    assert judge(delivery(), Answer(503, retry_after=10.0**6), 0.0).wait == 3600.0
    assert judge(delivery(9), Answer(503, retry_after=1.0), 0.0).wait == 512.0


def test_little_of_an_answer_is_kept() -> None:
    assert len(judge(delivery(), Answer(500, b"\xff" * 4096), 0.0).answer) == 500


def test_a_signature_is_verified_by_the_specification_s_own_library() -> None:
    secret, body = new_secret(), json.dumps({"type": "message.sent", "data": {"text": "é🎉"}}, ensure_ascii=False)
    headers = signed(secret, "evt_1", body)
    assert Webhook(secret).verify(body, headers) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.replace("é", "e"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)
