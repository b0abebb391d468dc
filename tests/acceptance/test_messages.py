"""What is promised of messages: keys, files sent twice, order, cancelling, doubts and how they are settled."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from actors.fleet import Fleet

SETTINGS = {"send_seconds": 3}


@pytest.fixture(scope="module", autouse=True)
def device(daemon: Daemon) -> None:
    daemon.add_paired("shop", "60120000001")


@pytest.fixture
def fleet(daemon: Daemon) -> Iterator[Fleet]:
    with daemon.fleet() as fleet:
        yield fleet


def test_the_same_key_sends_once_and_other_content_under_it_is_refused(daemon: Daemon) -> None:
    command = ("send", "shop", "+60199000011", "under a key", "--key", "order-1")
    first = daemon.json(*command, "--wait")
    again = daemon.json(*command)
    assert first["id"] == again["id"]
    assert first["state"] in {"sent", "delivered"}
    conflict = daemon.refused("send", "shop", "+60199000011", "something else", "--key", "order-1")
    assert conflict.code == "key_conflict"
    other = daemon.refused("send", "shop", "+60199000012", "under a key", "--key", "order-1")
    assert other.code == "key_conflict"
    assert daemon.texts("60199000011") == ["under a key"]
    assert daemon.texts("60199000012") == []


def test_the_same_file_twice_sends_nothing_twice(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    texts = [f"Line {number}, with a comma and “quotes”" for number in range(25)]
    lines = ["device,to,text", *(f'shop,+60199000013,"{text}"' for text in texts)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    first = daemon.json("send", "--csv", str(file), "--wait")
    again = daemon.json("send", "--csv", str(file), "--wait")
    assert (first["accepted"], first["refused"]) == (25, 0)
    assert again["ids"] == first["ids"]
    assert daemon.texts("60199000013") == texts


def test_a_lane_keeps_its_order_and_priority_overtakes(daemon: Daemon, fleet: Fleet) -> None:
    daemon.ok("device", "pause", "shop")
    ids = [fleet.send("shop", "60199000014", f"in order {number}") for number in range(5)]
    ids.append(fleet.send("shop", "60199000014", "overtakes", priority=5))
    assert {row["state"] for row in fleet.states(ids).values()} == {"queued"}
    daemon.ok("device", "resume", "shop")
    for message_id in ids:
        daemon.await_message(fleet, message_id, "delivered")
    assert daemon.texts("60199000014") == ["overtakes", *(f"in order {number}" for number in range(5))]


def test_a_queued_message_can_be_cancelled_and_a_late_one_expires(daemon: Daemon, fleet: Fleet) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    scheduled = fleet.send("shop", "60199000015", "in an hour", not_before=later)
    daemon.ok("cancel", str(scheduled))
    assert daemon.json("message", str(scheduled))["state"] == "cancelled"
    assert "not queued" in daemon.run("cancel", str(scheduled)).stderr
    assert daemon.refused("resolve", str(scheduled), "--sent").code == "not_in_doubt"
    assert daemon.refused("cancel", "999999").code == daemon.refused("resolve", "999999", "--sent").code
    daemon.ok("device", "pause", "shop")
    soon = datetime.now(UTC) + timedelta(seconds=1)
    late = fleet.send("shop", "60199000015", "too late", expires_at=soon)
    eventually(lambda: datetime.now(UTC) > soon, 5, "its time to run out")
    daemon.ok("device", "resume", "shop")
    daemon.await_message(fleet, late, "expired")
    assert daemon.texts("60199000015") == []


def test_a_read_receipt_is_the_last_word(daemon: Daemon, fleet: Fleet) -> None:
    message_id = fleet.send("shop", "60199000016", "read me")
    daemon.await_message(fleet, message_id, "delivered")
    daemon.simulator.read("60199000016")
    daemon.await_message(fleet, message_id, "read")
    story = [each["state"] for each in daemon.json("message", str(message_id))["story"]]
    assert story == ["queued", "sending", "sent", "delivered", "read"]


def test_a_phone_that_is_off_receives_when_it_is_on_again(daemon: Daemon, fleet: Fleet) -> None:
    daemon.ok("simulator", "phone", "add", "60199000017")
    daemon.ok("simulator", "phone", "off", "60199000017")
    message_id = fleet.send("shop", "60199000017", "when you are back")
    daemon.await_message(fleet, message_id, "sent")
    assert daemon.texts("60199000017") == []
    daemon.ok("simulator", "phone", "on", "60199000017")
    daemon.await_message(fleet, message_id, "delivered")
    assert daemon.texts("60199000017") == ["when you are back"]


# --- doubts ----------------------------------------------------------------------------------------------


@pytest.fixture
def fault(daemon: Daemon, fleet: Fleet) -> Iterator[str]:
    """The JID to set faults for; they are cleared, and the device is fresh again, afterwards."""
    jid = fleet.device("shop").jid
    assert jid is not None
    yield jid
    daemon.simulator.fault("clear", jid=jid)
    daemon.ok("device", "refresh", "shop")


def test_a_lost_acknowledgement_is_settled_by_the_receipt(daemon: Daemon, fleet: Fleet, fault: str) -> None:
    daemon.simulator.fault("lost-ack", jid=fault)
    message_id = fleet.send("shop", "60199000021", "nobody acknowledged me")
    daemon.await_message(fleet, message_id, "delivered")
    assert daemon.texts("60199000021") == ["nobody acknowledged me"]


def test_without_a_receipt_the_message_is_in_doubt_under_its_known_id_until_the_phone_is_on(
    daemon: Daemon, fleet: Fleet, fault: str
) -> None:
    daemon.simulator.add_phone("60199000022")
    # The device's own phone would acknowledge its copy, too.
    for phone in ("60199000022", "60120000001"):
        daemon.simulator.phone_power(phone, on=False)
    daemon.simulator.fault("lost-ack", jid=fault)
    message_id = fleet.send("shop", "60199000022", "in doubt")
    daemon.await_message(fleet, message_id, "in_doubt")
    row = daemon.json("message", str(message_id))
    assert row["external_id"]
    assert row["id"] in [each["id"] for each in daemon.json("messages", "--state", "in_doubt")]
    assert f"resolve {message_id} --sent" in daemon.ok("message", str(message_id)).replace("\n", " ")
    assert row["external_id"] in row["explanation"]
    for phone in ("60120000001", "60199000022"):
        daemon.simulator.phone_power(phone, on=True)
    daemon.await_message(fleet, message_id, "delivered")
    assert daemon.texts("60199000022") == ["in doubt"]


def test_a_doubt_does_not_block_its_lane(daemon: Daemon, fleet: Fleet, fault: str) -> None:
    daemon.simulator.fault("drop-message", jid=fault)
    doubtful = fleet.send("shop", "60199000023", "swallowed")
    followers = [fleet.send("shop", "60199000023", f"follower {number}") for number in range(3)]
    daemon.await_message(fleet, doubtful, "in_doubt")
    daemon.simulator.fault("clear", jid=fault)
    for message_id in followers[1:]:
        daemon.await_message(fleet, message_id, "delivered", 10)
    fleet.resolve(doubtful, sent=True)


@pytest.mark.parametrize("sent", [True, False], ids=["it arrived", "it did not"])
def test_the_operator_settles_a_doubt(daemon: Daemon, fleet: Fleet, fault: str, sent: bool) -> None:
    number, text = f"6019900003{int(sent)}", "swallowed"
    daemon.simulator.fault("drop-message", jid=fault)
    message_id = fleet.send("shop", number, text)
    daemon.await_message(fleet, message_id, "in_doubt")
    daemon.simulator.fault("clear", jid=fault)
    assert daemon.run("resolve", str(message_id)).returncode != 0
    assert daemon.refused("cancel", str(message_id)).code == "not_queued"
    assert daemon.json("device", "show", "shop")["in_doubt"] >= 1
    daemon.ok("resolve", str(message_id), "--sent" if sent else "--resend")
    assert daemon.run("resolve", str(message_id), "--sent").returncode != 0
    if sent:
        assert daemon.json("message", str(message_id))["state"] == "sent"
        return
    daemon.ok("device", "refresh", "shop")
    daemon.await_message(fleet, message_id, "delivered")
    assert daemon.texts(number) == [text]
    assert len(daemon.json("message", str(message_id))["attempts_made"]) == 2


def test_a_send_that_nobody_is_at_any_more_is_settled_by_evidence_while_everything_runs(
    daemon: Daemon, fleet: Fleet
) -> None:
    daemon.ok("device", "pause", "shop")
    message_id = fleet.send("shop", "60199000036", "stranded")
    daemon.sql("update device set linked_at = now() - interval '1 day' where name = 'shop'")
    daemon.sql(
        "with moved as (update outbox set state = 'sending', attempts = 1 where id = %s returning id, device_id)"
        " insert into attempt (message_id, device_id, number, owner, secret, started_at)"
        " select id, device_id, 1, 'nobody', decode('5a', 'hex'), now() - interval '10 minutes' from moved",
        message_id,
    )
    daemon.await_message(fleet, message_id, "queued", 60)
    assert "abandoned before the message left" in fleet.message(message_id)["story"][-1]["reason"]  # type: ignore[index]
    daemon.ok("device", "resume", "shop")
    daemon.await_message(fleet, message_id, "delivered")
    assert daemon.texts("60199000036") == ["stranded"]


def test_a_message_that_whatsapp_refuses_fails_with_its_reason(daemon: Daemon, fleet: Fleet, fault: str) -> None:
    daemon.simulator.fault("ack-error", jid=fault)
    finished = daemon.run("send", "shop", "+60199000024", "refused", "--wait", "--json")
    assert finished.returncode != 0
    assert json.loads(finished.stdout)["state"] == "failed"
    assert "463" in json.loads(finished.stdout)["reason"]
    assert daemon.texts("60199000024") == []


def test_what_a_phone_says_is_an_event(daemon: Daemon) -> None:
    daemon.ok("simulator", "say", "60199000025", "shop", "Where is my order?")

    def heard() -> bool:
        rows = daemon.json_lines("events", "--device", "shop")
        return any(row["body"].get("text") == "Where is my order?" for row in rows if row["kind"] == "message")

    eventually(heard, 15, "the event")
