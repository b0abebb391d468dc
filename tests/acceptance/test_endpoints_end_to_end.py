"""Webhooks out from end to end: a daemon whose gateway is killed, a receiver that fails, and the commands on both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
    receiver.behave = failing_at_random(0.25, 3)
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
