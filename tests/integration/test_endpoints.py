"""Webhooks out on a real server, over real HTTP: nothing is missed, nothing overtakes, nobody waits for another."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest

from actors.endpoint_client import new_secret, open_secret, seal_secret
from actors.platforms import connections
from config.home import Home
from gateway.outgoing import posting, verdicts
from gateway.outgoing.courier import LANES_AT_ONCE, Courier
from storage import devices, endpoint_deliveries, endpoints, events, restarts
from storage.credentials import CredentialSeal
from storage.database import Connection, Database, PooledConnections, SingleConnection, connect
from storage.embedded import EmbeddedPostgres
from storage.events import Event
from storage.outbox import Outbox
from storage.restarts import Restart
from tests.support.daemon import PROJECT, eventually
from tests.support.outbox import accept_texts, claim_next, new_device
from tests.support.receiver import Received, Receiver, failing_at_random

LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_FIRST_WAIT", 0.05)
    monkeypatch.setattr(posting, "ATTEMPT_SECONDS", 2.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("endpoints") / "home")
    made.create()
    return made


@dataclass
class Desk:
    """Endpoints in one database, and couriers that serve them."""

    url: str
    connection: Connection
    database: Database
    seal: CredentialSeal
    couriers: list[Courier] = field(default_factory=list)

    def endpoint(self, receiver: Receiver, *kinds: str, device: int | None = None, url: str | None = None) -> int:
        receiver.secret = receiver.secret or new_secret()
        return endpoints.add(
            self.connection,
            url=url or receiver.url,
            description="",
            events=kinds or ("*",),
            device_id=device,
            secret=seal_secret(self.seal, receiver.secret),
        )

    def deliver(self, owner: str = "host/test", **options: Any) -> Courier:
        options.setdefault("networks", LOOPBACK)
        courier = Courier(PooledConnections(self.url, 1), self.seal, owner, **options)
        courier.start()
        self.couriers.append(courier)
        return courier

    def count(self, endpoint_id: int, state: str) -> int:
        row = self.connection.execute(
            "select count(*) as n from endpoint_delivery where endpoint_id = %s and state = %s", (endpoint_id, state)
        ).fetchone()
        assert row is not None
        return int(row["n"])

    def latest(self, endpoint_id: int) -> Any:
        return endpoint_deliveries.latest(self.connection, endpoint_id)[0]


@pytest.fixture
def desk(storage_url: str, home: Home) -> Iterator[Desk]:
    database = SingleConnection(storage_url)
    made = Desk(storage_url, connect(storage_url), database, CredentialSeal(home.credentials_key))
    yield made
    for courier in made.couriers:
        courier.leave(20)
        courier._database.close()
        assert not courier.is_alive()
    made.connection.execute("delete from endpoint")
    while endpoint_deliveries.forget(made.connection):
        pass
    made.connection.close()
    database.close()


def tell(connection: Connection, device_id: int, first: int, last: int) -> None:
    """Let numbered messages come in, each in a transaction of its own."""
    for number in range(first, last):
        received = Event("message", f"m{number}", {"number": number, "text": "hello"})
        events.record(connection, device_id, [received])


def numbers(received: list[Received], device: str) -> list[int]:
    return [each.data["number"] for each in received if each.data.get("device") == device]


def name_of(connection: Connection, device_id: int) -> str:
    found = devices.by_id(connection, device_id)
    assert found is not None
    return found.name


# --- what is told ----------------------------------------------------------------------------------------


def test_everything_that_happens_is_told_in_the_transaction_in_which_it_happens(desk: Desk) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver)
        device_id = new_device(desk.connection)
        name = name_of(desk.connection, device_id)
        sender = Outbox(desk.database, "somebody")
        accept_texts(desk.connection, device_id, "hello", idempotency_key="order-1")
        claim = claim_next(sender, device_id)
        sender.sent(claim, "EXT-1")
        sender.apply_receipts(device_id, [("EXT-1", "delivered")])
        sender.apply_receipts(device_id, [("EXT-1", "delivered")])
        tell(desk.connection, device_id, 0, 1)
        tell(desk.connection, device_id, 0, 1)
        devices.set_state(desk.connection, device_id, "online", "connected", "Connected.")
        devices.set_state(desk.connection, device_id, "online", "connected", "Connected still.")
        restarts.record(desk.connection, Restart("shard", "shard-1", "exited", "It ended.", "started", "ok", 0.5))
        desk.deliver()

        eventually(lambda: desk.count(endpoint_id, "pending") == 0, 20, "everything to be told")
        of_device = [each for each in receiver.firsts() if each.data.get("device") == name]
        assert [each.type for each in of_device] == [
            "device.needs_pairing",
            "message.queued",
            "message.sending",
            "message.sent",
            "message.delivered",
            "message.received",
            "device.online",
        ]
        sent = of_device[3].data
        assert sent["to"] == "60123456789"
        assert (sent["id"], sent["external_id"], sent["idempotency_key"]) == (claim.message_id, "EXT-1", "order-1")
        assert of_device[-1].data["former_state"] == "needs_pairing"
        assert [each.data["name"] for each in receiver.firsts() if each.type == "restart.shard"] == ["shard-1"]
        assert not receiver.forged
        assert receiver.repeated() == 0


def test_nothing_is_told_of_what_was_rolled_back(desk: Desk) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver)
        device_id = new_device(desk.connection)
        before = desk.count(endpoint_id, "pending")
        with desk.connection.transaction(force_rollback=True):
            events.record(desk.connection, device_id, [Event("message", "never", {})])
            assert desk.count(endpoint_id, "pending") == before + 1
        assert desk.count(endpoint_id, "pending") == before


def test_an_endpoint_is_told_what_it_asked_for(desk: Desk) -> None:
    with Receiver() as one, Receiver() as two, Receiver() as three:
        first, second = new_device(desk.connection), new_device(desk.connection)
        made = [
            desk.endpoint(one, "message.*", device=first),
            desk.endpoint(two, "message.sent", "device.paused"),
            desk.endpoint(three, "restart.*"),
        ]
        sender = Outbox(desk.database, "somebody")
        for device_id in (first, second):
            accept_texts(desk.connection, device_id, "hello")
            sender.sent(claim_next(sender, device_id), None)
        devices.set_state(desk.connection, first, "paused", "paused", "Paused.")
        desk.deliver()
        eventually(lambda: sum(desk.count(each, "pending") for each in made) == 0, 20, "all to be told")
        assert [each.type for each in one.firsts()] == ["message.queued", "message.sending", "message.sent"]
        assert sorted(each.type for each in two.firsts()) == ["device.paused", "message.sent", "message.sent"]
        assert three.firsts() == []
        # One event has one name, whoever is told of it.
        shared = {each.id for each in one.firsts()} & {each.id for each in two.firsts()}
        assert len(shared) == 1


def test_an_endpoint_that_is_off_is_told_nothing_of_what_happens_meanwhile(desk: Desk) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver, "message.*")
        device_id = new_device(desk.connection)
        tell(desk.connection, device_id, 0, 1)
        endpoints.change(desk.connection, endpoint_id, enabled=False)
        tell(desk.connection, device_id, 1, 2)
        desk.deliver()
        time.sleep(0.6)  # two looks of the courier
        assert receiver.came == []
        endpoints.change(desk.connection, endpoint_id, enabled=True)
        tell(desk.connection, device_id, 2, 3)
        eventually(lambda: desk.count(endpoint_id, "pending") == 0, 20, "the rest to be told")
        assert [each.data["number"] for each in receiver.firsts()] == [0, 2]


# --- a receiver that fails -------------------------------------------------------------------------------


def test_every_event_arrives_in_order_though_receivers_fail_and_the_gateway_is_killed(
    desk: Desk, home: Home, storage_url: str
) -> None:
    """Two receivers that fail at random, events of four devices at once, a courier that is killed again and again."""
    with Receiver(failing_at_random(0.35, 1)) as one, Receiver(failing_at_random(0.2, 2)) as two:
        made = [desk.endpoint(one, "message.received"), desk.endpoint(two, "message.received")]
        lanes = [new_device(desk.connection) for _ in range(4)]
        each_lane = 60
        everything = 2 * len(lanes) * each_lane
        telling = [threading.Thread(target=_tell_slowly, args=(storage_url, lane, each_lane)) for lane in lanes]
        for thread in telling:
            thread.start()
        for kills_left in range(6, -1, -1):
            courier = _courier_process(storage_url, home)
            goal = len(one.came) + len(two.came) + 20
            if kills_left:
                eventually(partial(_more_came, one, two, goal), 30, "the midst of it")
            else:
                eventually(lambda: sum(desk.count(each, "delivered") for each in made) == everything, 90, "the rest")
            courier.kill()
            courier.wait()
        for thread in telling:
            thread.join()
        for receiver in (one, two):
            assert not receiver.forged
            assert receiver.followed == 0
            firsts = receiver.firsts()
            for lane in lanes:
                assert numbers(firsts, name_of(desk.connection, lane)) == list(range(each_lane))


def _tell_slowly(url: str, device_id: int, count: int) -> None:
    with connect(url) as connection:
        for number in range(count):
            tell(connection, device_id, number, number + 1)
            time.sleep(0.02)


def _more_came(one: Receiver, two: Receiver, goal: int) -> bool:
    return len(one.came) + len(two.came) > goal


def _courier_process(url: str, home: Home) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.courier_process", url, str(home.path)]
    return subprocess.Popen(command, cwd=PROJECT)


def test_an_endpoint_that_hangs_delays_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "ATTEMPT_SECONDS", 30.0)
    with Receiver(lambda _: "hang") as hanging, Receiver() as well:
        stuck, other = desk.endpoint(hanging, "message.received"), desk.endpoint(well, "message.received")
        lanes = [new_device(desk.connection) for _ in range(3 * LANES_AT_ONCE)]
        for lane in lanes:
            tell(desk.connection, lane, 0, 5)
        desk.deliver()
        eventually(lambda: desk.count(other, "pending") == 0, 20, "the other endpoint to be told everything")
        assert desk.count(stuck, "delivered") == 0
        assert len(hanging.came) == LANES_AT_ONCE  # no more of its lanes are tried at once
        hanging.closing.set()


def test_a_lane_that_waits_holds_no_other_lane(desk: Desk) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver, "message.received")
        bad, good = new_device(desk.connection), new_device(desk.connection)
        name = name_of(desk.connection, bad)
        receiver.behave = lambda received: 500 if received.data["device"] == name else 200
        tell(desk.connection, bad, 0, 3)
        tell(desk.connection, good, 0, 30)
        desk.deliver()
        eventually(lambda: desk.count(endpoint_id, "delivered") == 30, 20, "the good lane to be told everything")
        assert {each.data["number"] for each in receiver.came if each.data["device"] == name} == {0}
        row = endpoint_deliveries.latest(desk.connection, endpoint_id, limit=100)[-1]
        assert (row["state"], row["status"], row["answer"]) == ("pending", 500, "status 500")
        assert row["problem"] == "It answered 500 (Internal Server Error)."
        receiver.behave = lambda _: 204
        eventually(lambda: desk.count(endpoint_id, "pending") == 0, 20, "the bad lane to go on")
        assert numbers(receiver.firsts(), name) == [0, 1, 2]


def test_lanes_that_wait_for_an_endpoint_that_was_down_are_told_soon_after_it_is_back(desk: Desk) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver, "message.received")
        waiting, told_later, fresh = (new_device(desk.connection) for _ in range(3))
        tell(desk.connection, waiting, 0, 2)
        tell(desk.connection, told_later, 0, 1)
        tried = "update endpoint_delivery set attempts = 9, status = %s, next_at = now() + interval '1 hour'"
        desk.connection.execute(f"{tried} where lane = %s and body #>> '{{data,number}}' = '0'", (503, waiting))
        desk.connection.execute(f"{tried} where lane = %s", (429, told_later))
        desk.deliver()
        tell(desk.connection, fresh, 0, 1)
        eventually(lambda: desk.count(endpoint_id, "delivered") == 3, 30, "what waited for the outage's end")
        assert numbers(receiver.firsts(), name_of(desk.connection, waiting)) == [0, 1]
        # It takes what others are told: one that it does not take has a trouble of its own, and waits its time.
        desk.connection.execute(f"{tried} where lane = %s", (500, told_later))
        tell(desk.connection, fresh, 1, 2)
        eventually(lambda: desk.count(endpoint_id, "delivered") == 4, 30, "the next of another lane")
        tell(desk.connection, fresh, 2, 3)
        eventually(lambda: desk.count(endpoint_id, "delivered") == 5, 30, "one more")
        left = desk.connection.execute(
            "select state, next_at > now() + interval '50 minutes' as far from endpoint_delivery where lane = %s",
            (told_later,),
        ).fetchall()
        assert [(row["state"], row["far"]) for row in left] == [("pending", True)]


def test_what_fails_for_three_days_is_a_dead_letter_and_can_be_told_again(desk: Desk) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver, "message.received")
        device_id = new_device(desk.connection)
        receiver.behave = lambda received: 500 if received.data["number"] == 0 else 200
        tell(desk.connection, device_id, 0, 3)
        head = endpoint_deliveries.latest(desk.connection, endpoint_id)[-1]["id"]
        desk.connection.execute("update endpoint_delivery set retry_until = now() where id = %s", (head,))
        desk.deliver()
        eventually(lambda: desk.count(endpoint_id, "delivered") == 2, 20, "the lane to go on behind a dead letter")
        [dead] = endpoint_deliveries.latest(desk.connection, endpoint_id, dead=True)
        assert (dead["id"], dead["attempts"], dead["status"]) == (head, 1, 500)
        assert endpoint_deliveries.counts(desk.connection)[endpoint_id]["dead"] == 1

        receiver.behave = lambda _: 200
        assert endpoint_deliveries.replay(desk.connection, endpoint_id) == 1
        eventually(lambda: desk.count(endpoint_id, "delivered") == 3, 20, "the dead letter to be told again")
        ids = [each.id for each in receiver.came if each.data["number"] == 0]
        assert len(ids) == 2
        assert len(set(ids)) == 1


def test_an_endpoint_that_says_it_is_gone_is_switched_off(desk: Desk) -> None:
    with Receiver(lambda _: 410) as receiver:
        endpoint_id = desk.endpoint(receiver, "message.received")
        device_id = new_device(desk.connection)
        tell(desk.connection, device_id, 0, 3)
        desk.deliver()
        eventually(
            lambda: not endpoints.by_id(desk.connection, endpoint_id).enabled, 20, "the endpoint to be switched off"
        )
        found = endpoints.by_id(desk.connection, endpoint_id)
        assert found.disabled_reason == "It answered 410: it wants nothing more."
        assert (desk.count(endpoint_id, "dead"), desk.count(endpoint_id, "pending")) == (1, 2)
        receiver.behave = lambda _: 200
        endpoints.change(desk.connection, endpoint_id, enabled=True)
        eventually(lambda: desk.count(endpoint_id, "delivered") == 2, 20, "the rest once it is switched on again")
        assert endpoints.by_id(desk.connection, endpoint_id).disabled_reason == ""


def test_redirects_are_not_followed(desk: Desk) -> None:
    with Receiver(lambda _: "redirect") as receiver:
        endpoint_id = desk.endpoint(receiver, "message.received")
        tell(desk.connection, new_device(desk.connection), 0, 1)
        desk.deliver()
        eventually(lambda: desk.latest(endpoint_id)["attempts"] >= 2, 20, "two attempts")
        assert receiver.followed == 0
        assert "redirects are not followed" in desk.latest(endpoint_id)["problem"]


# --- where it may lead -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254"])  # noqa: S104
def test_private_addresses_are_refused_once_they_are_resolved(desk: Desk, host: str) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver, "message.received", url=f"https://{host}:{receiver.port}/hook")
        tell(desk.connection, new_device(desk.connection), 0, 1)
        desk.deliver(networks=())
        eventually(lambda: desk.latest(endpoint_id)["attempts"] >= 1, 20, "an attempt")
        assert "private network" in desk.latest(endpoint_id)["problem"]
        assert receiver.came == []


def test_a_name_that_leads_elsewhere_after_it_was_checked_leads_nobody_astray(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the first answer is an allowed address, the second would be the inside."""
    import socket  # noqa: PLC0415

    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, *arguments: Any, **named: Any) -> Any:
        if host == "rebinding.example":
            asked.append(host)
            return real("127.0.0.1" if len(asked) == 1 else "127.0.0.9", *arguments, **named)
        return real(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.0)  # each delivery opens a connection of its own
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver, "message.received", url=f"http://rebinding.example:{receiver.port}/hook")
        tell(desk.connection, new_device(desk.connection), 0, 1)
        desk.deliver(networks=(ip_network("127.0.0.1/32"),))
        eventually(lambda: desk.count(endpoint_id, "delivered") == 1, 20, "the delivery to the checked address")
        assert len(asked) == 1
        assert receiver.came[0].headers["host"] == f"rebinding.example:{receiver.port}"
        tell(desk.connection, new_device(desk.connection), 1, 2)
        eventually(lambda: desk.latest(endpoint_id)["attempts"] >= 1, 20, "an attempt after the name changed")
        assert "private network" in desk.latest(endpoint_id)["problem"]


# --- outages, leaving, forgetting ------------------------------------------------------------------------


def test_the_courier_bears_an_outage_of_postgres(desk: Desk, postgres: EmbeddedPostgres) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver, "message.received")
        device_id = new_device(desk.connection)
        courier = desk.deliver()
        tell(desk.connection, device_id, 0, 5)
        eventually(lambda: len(receiver.firsts()) == 5, 20, "the first five")
        postgres.stop()
        time.sleep(1.0)
        assert courier.is_alive()
        postgres.start()
        desk.connection.close()
        desk.connection = connect(desk.url)
        tell(desk.connection, device_id, 5, 10)
        eventually(lambda: len(receiver.firsts()) == 10, 30, "the others")
        eventually(lambda: desk.count(endpoint_id, "pending") == 0, 20, "the outcomes to be recorded")


def slowly(_: Received) -> int:
    time.sleep(0.1)
    return 200


def test_a_courier_that_leaves_records_what_it_told_and_gives_back_the_rest(desk: Desk) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver, "message.received")
        device_id = new_device(desk.connection)
        tell(desk.connection, device_id, 0, 40)
        receiver.behave = slowly
        courier = desk.deliver()
        eventually(lambda: len(receiver.taken) >= 2, 20, "some to be told")
        courier.leave(20)
        assert desk.count(endpoint_id, "delivered") == len(receiver.taken)
        leased = desk.connection.execute("select from endpoint_delivery where leased_until is not null").fetchall()
        assert leased == []


def test_what_is_over_is_forgotten_in_time(desk: Desk) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver, "message.received")
        tell(desk.connection, new_device(desk.connection), 0, 5)
        for number, (state, days) in enumerate([("delivered", 4), ("delivered", 2), ("dead", 29), ("dead", 31)]):
            desk.connection.execute(
                "update endpoint_delivery set state = %s, tried_at = now() - make_interval(days => %s) where id ="
                " (select id from endpoint_delivery where endpoint_id = %s order by id offset %s limit 1)",
                (state, days, endpoint_id, number),
            )
        endpoint_deliveries.forget(desk.connection)
        left = [row["state"] for row in endpoint_deliveries.latest(desk.connection, endpoint_id)]
        assert left == ["pending", "dead", "delivered"]
        endpoints.remove(desk.connection, endpoint_id)
        endpoint_deliveries.forget(desk.connection)
        assert endpoint_deliveries.latest(desk.connection, endpoint_id) == []


def test_two_couriers_tell_each_event_once_and_in_order(desk: Desk) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver, "message.received")
        lanes = [new_device(desk.connection) for _ in range(6)]
        for lane in lanes:
            tell(desk.connection, lane, 0, 40)
        # Of two installations: one that begins gives back what a former process of its own had taken.
        desk.deliver("one/test")
        desk.deliver("other/test")
        eventually(lambda: desk.count(endpoint_id, "pending") == 0, 30, "everything to be told")
        assert receiver.repeated() == 0
        for lane in lanes:
            assert numbers(receiver.taken, name_of(desk.connection, lane)) == list(range(40))


def test_a_secret_rests_sealed(desk: Desk) -> None:
    with Receiver() as receiver:
        endpoint_id = desk.endpoint(receiver)
        found = endpoints.by_id(desk.connection, endpoint_id)
        assert receiver.secret is not None
        assert receiver.secret.removeprefix("whsec_").encode() not in found.secret
        assert open_secret(desk.seal, found.secret) == receiver.secret
        assert "secret" not in found.as_dict()
