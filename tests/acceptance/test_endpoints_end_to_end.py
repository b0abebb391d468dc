"""Webhooks out from end to end: a daemon whose gateway is killed, a receiver that fails, and the commands on both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.api import api_of, url_of
from tests.support.daemon import Daemon, eventually
from tests.support.receiver import Receiver, failing_at_random

PHONE = "60120000001"
FRIEND = "60198887777"


@pytest.fixture(scope="module")
def device(daemon: Daemon) -> str:
    daemon.simulator.add_phone(FRIEND)
    daemon.add_paired("shop-1", PHONE)
    return "shop-1"


@pytest.fixture
def receiver(daemon: Daemon) -> Iterator[Receiver]:
    with Receiver() as made:
        yield made
        with daemon.fleet() as fleet:
            for endpoint in fleet.endpoints.all():
                fleet.endpoints.remove(endpoint.id)


def add(daemon: Daemon, receiver: Receiver, *options: str) -> str:
    added = daemon.json("webhook", "add", receiver.url, *options)
    receiver.secret = added["secret"]
    return str(added["id"])


def test_every_event_arrives_in_order_though_the_gateway_is_killed(
    daemon: Daemon, device: str, receiver: Receiver
) -> None:
    receiver.behave = failing_at_random(0.15, 3)
    endpoint_id = add(daemon, receiver, "--events", "message.*,restart.*", "--description", "the shop's own")
    with daemon.fleet() as fleet:
        ids = []
        for number in range(24):
            ids.append(fleet.send(device, FRIEND, f"message {number}"))
            if number % 8 == 7:
                daemon.kill("gateway")
        daemon.simulator.say(FRIEND, PHONE, "Thank you!")
        for message_id in ids:
            daemon.await_message(fleet, message_id, "delivered read", 60)
        eventually(
            lambda: all((message_id, "delivered") in told(receiver) for message_id in ids),
            120,
            "every delivery to be told",
        )
        eventually(lambda: "Thank you!" in [each.data.get("text") for each in receiver.firsts()], 60, "the answer")
        eventually(lambda: not fleet.endpoints.counts()[int(endpoint_id)]["pending"], 60, "nothing to wait")
        rows = [fleet.message(message_id) for message_id in ids]
    assert not receiver.forged
    assert receiver.followed == 0
    for row in rows:
        assert row is not None
        assert [state for each, state in told(receiver) if each == row["id"]] == [
            each["state"] for each in row["story"]
        ]
    sent = [message_id for message_id, state in told(receiver) if state == "sent"]
    assert sent == ids
    assert sum(each.type == "restart.gateway" for each in receiver.firsts()) >= 2
    daemon.ok("webhook", "remove", endpoint_id)


def told(receiver: Receiver) -> list[tuple[int, str]]:
    return [(each.data["id"], each.data["state"]) for each in receiver.firsts() if "state" in each.data]


def test_an_endpoint_is_tried_looked_at_switched_off_and_replayed(
    daemon: Daemon, device: str, receiver: Receiver
) -> None:
    endpoint_id = add(daemon, receiver, "--events", "device.*", "--device", device)
    assert daemon.json("webhook", "test", endpoint_id)["status"] == 200
    shown = daemon.json("webhook", "show", endpoint_id)
    assert (shown["events"], shown["device"], shown["enabled"]) == (["device.*"], device, True)
    assert "secret" not in shown
    assert daemon.json("webhook", "show", endpoint_id, "--secret")["secret"] == receiver.secret
    assert [row["id"] for row in daemon.json("webhook", "list")] == [int(endpoint_id)]

    receiver.behave = lambda _: 500
    refusal = daemon.refused("webhook", "test", endpoint_id)
    assert (refusal.status, refusal.code) == (6, "test_failed")
    assert "500" in refusal.sentence
    receiver.behave = lambda _: 410
    eventually(lambda: not daemon.json("webhook", "show", endpoint_id)["enabled"], 30, "410 to switch it off")
    [dead] = daemon.json("webhook", "deliveries", endpoint_id, "--dead")
    assert (dead["type"], dead["status"], dead["answer"]) == ("webhook.test", 410, "status 410")
    assert daemon.refused("webhook", "test", endpoint_id).code == "endpoint_off"
    assert daemon.refused("webhook", "replay", endpoint_id).code == "endpoint_off"

    receiver.behave = lambda _: 200
    daemon.ok("webhook", "enable", endpoint_id)
    assert daemon.json("webhook", "replay", endpoint_id) == {"replayed": 1}
    eventually(lambda: not daemon.json("webhook", "deliveries", endpoint_id, "--dead"), 30, "the replay")
    whole = daemon.json("webhook", "deliveries", endpoint_id, "--delivery", str(dead["id"]))
    assert (whole["state"], whole["body"]["type"]) == ("delivered", "webhook.test")
    assert "webhook.test" in daemon.ok("webhook", "deliveries", endpoint_id)
    daemon.ok("webhook", "disable", endpoint_id)
    assert "no: Switched off by the" in daemon.ok("webhook", "list")
    daemon.ok("webhook", "remove", endpoint_id)
    assert daemon.refused("webhook", "show", endpoint_id).status == 5


def test_what_cannot_be_an_endpoint_is_refused(daemon: Daemon, device: str) -> None:
    for url in ("ftp://example.com/", "https://10.0.0.1/", "https://user:secret@example.com/"):
        refusal = daemon.refused("webhook", "add", url)
        assert refusal.status == 6
        assert "secret@" not in refusal.sentence
    assert daemon.refused("webhook", "add", "https://example.com/", "--events", "orders").code == "bad_events"
    assert daemon.refused("webhook", "add", "https://example.com/", "--device", "nobody").code == "unknown_device"
    assert daemon.json("webhook", "list") == []


def test_secrets_stand_in_no_log(daemon: Daemon, device: str, receiver: Receiver) -> None:
    endpoint_id = add(daemon, receiver)
    daemon.ok("webhook", "test", endpoint_id)
    assert receiver.secret is not None
    assert receiver.secret not in daemon.home.log_file.read_text(encoding="utf-8")
    daemon.ok("webhook", "remove", endpoint_id)


# --- over HTTP -------------------------------------------------------------------------------------------


def test_endpoints_are_managed_over_http_too(daemon: Daemon, device: str, receiver: Receiver) -> None:
    api = api_of(daemon, "admin")
    wanted = {"url": receiver.url, "events": ["message.received"], "device": device, "description": "from HTTP"}
    made = api.ask("POST", "/v1/webhooks", 201, wanted)
    receiver.secret, path = made["secret"], f"/v1/webhooks/{made['id']}"
    assert api.get("/v1/webhooks")["items"] == [api.get(path)]
    assert "secret" not in api.get(path)
    delivery = api.ask("POST", f"{path}/test", 202)["delivery"]
    eventually(lambda: api.get(f"{path}/deliveries/{delivery}")["state"] == "delivered", 30, "the test to arrive")
    assert not receiver.forged
    assert api.get(f"{path}/deliveries/{delivery}")["body"]["type"] == "webhook.test"
    assert [row["id"] for row in api.get(f"{path}/deliveries")["items"]] == [delivery]
    assert api.ask("POST", f"{path}/replay", 200, {"delivery": delivery}) == {"replayed": 1}
    eventually(lambda: len(receiver.came) == 2, 30, "the replay to arrive")

    changed = api.ask("PATCH", path, 200, {"enabled": False, "events": ["*"]})
    assert (changed["enabled"], changed["events"], changed["url"]) == (False, ["*"], receiver.url)
    assert api.problem("POST", f"{path}/test", 409) == "endpoint_off"
    assert api.problem("POST", "/v1/webhooks", 422, {"url": "https://10.0.0.1/"}) == "private_address"
    assert api.problem("POST", "/v1/webhooks", 422, {**wanted, "events": ["orders.*"]}) == "bad_events"
    assert api.problem("POST", "/v1/webhooks", 404, {**wanted, "device": "nobody"}) == "unknown_device"
    assert api.ask("DELETE", path, 204) is None
    assert api.problem("GET", path, 404) == "unknown_endpoint"
    assert api.problem("DELETE", path, 404) == "unknown_endpoint"
    assert api.problem("GET", "/v1/webhooks/1/deliveries/999999", 404) == "unknown_delivery"
    api.client.close()


def test_only_admins_see_webhooks(daemon: Daemon, device: str) -> None:
    for scope in ("read", "send"):
        api = api_of(daemon, scope)
        assert api.problem("GET", "/v1/webhooks", 403) == "scope_missing"
        api.client.close()


def test_metrics_tell_of_the_whole_daemon_and_outlive_the_gateway(daemon: Daemon, device: str) -> None:
    with daemon.fleet() as fleet:
        message_id = fleet.send(device, FRIEND, "counted")
        daemon.await_message(fleet, message_id, "delivered read", 60)
    before = scrape(url_of(daemon))
    assert before["salamander_messages_total", ("outcome", "delivered"), ("platform", "whatsapp")] >= 1
    assert before["salamander_devices", ("platform", "whatsapp"), ("state", "online")] == 1
    for process in ("router", "fleet", "gateway", "shard-1", "watchdog"):
        assert before["salamander_process_memory_bytes", ("process", process)] > 1_000_000
        assert before["salamander_process_descriptors", ("process", process)] > 3
    daemon.kill("gateway")
    after = scrape(url_of(daemon))
    counters = [key for key in before if key[0] in {"salamander_messages_total", "salamander_restarts_total"}]
    assert counters
    assert all(after[key] >= before[key] for key in counters)
    eventually(
        lambda: scrape(url_of(daemon)).get(
            ("salamander_restarts_total", ("cause", "exited"), ("what", "gateway")), 0.0
        ),
        30,
        "the restart to be counted",
    )


def scrape(url: str) -> dict[tuple[Any, ...], float]:
    reply = httpx.get(f"{url}/metrics", trust_env=False)
    assert reply.status_code == 200
    families = text_string_to_metric_families(reply.text)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }
