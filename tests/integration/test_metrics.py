"""Metrics on a real server and over real HTTP: exact, never going back, and all that the dashboard and alerts name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from config.api_keys import digest_of, new_key, public_id
from config.daemon import DaemonFile, write_daemon_file
from config.home import Home
from config.settings import Settings
from gateway.app import create_app
from gateway.bridge import RouterBridge
from gateway.context import Context
from gateway.metrics.counts import Counts
from gateway.router_client import RouterClient
from gateway.server import Server, bind
from storage import breakers, endpoints, keys, metrics, restarts
from storage.credentials import CredentialSeal
from storage.database import Connection, PooledConnections, SingleConnection, connect
from storage.embedded import EmbeddedPostgres
from storage.endpoint_deliveries import Delivery, Tried
from storage.metrics import Key
from storage.migrate import migrate
from storage.outbox import Outbox
from storage.restarts import Restart
from supervisors.processes import own_process_started
from tests.integration.conftest import NewDatabase
from tests.support.outbox import accept_texts, claim_next, new_device

_DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    """A database of the test's own: its sums begin at nothing."""
    made = new_database()
    migrate(made)
    return made


def totals(url: str) -> dict[Key, float]:
    with connect(url) as connection, connection.transaction():
        return metrics.read(connection, []).totals


def sum_up(url: str) -> bool:
    with connect(url) as connection, connection.transaction():
        return metrics.sum_up(connection, settle_seconds=0.0)


def send(connection: Connection, sender: Outbox, device_id: int, count: int) -> None:
    for number in range(count):
        accept_texts(connection, device_id, f"message {number}")
        sender.sent(claim_next(sender, device_id), f"{device_id}-{number}")
        sender.apply_receipts(device_id, [(f"{device_id}-{number}", "delivered")])


# --- counters --------------------------------------------------------------------------------------------


def test_counters_are_exact_whenever_they_are_summed(url: str) -> None:
    with connect(url) as connection:
        sender = Outbox(SingleConnection(url), "somebody")
        ours, wablas = new_device(connection), new_device(connection, "wablas")
        assert totals(url) == {}
        for device_id, count in ((ours, 3), (wablas, 2), (ours, 1)):
            send(connection, sender, device_id, count)
            restarts.record(connection, Restart("shard", "shard-1", "exited", "It ended.", "started", "ok", 0.1))
            for _ in range(2):  # choose how far, then sum
                sum_up(url)
        send(connection, sender, ours, 1)
        found = totals(url)
        for outcome in ("accepted", "sending", "sent", "delivered"):
            assert found["messages", "whatsapp", outcome] == 5
            assert found["messages", "wablas", outcome] == 2
        assert found["restarts", "shard", "exited"] == 3
        for metric in ("seconds_to_sent", "seconds_to_delivered"):
            assert sum(value for key, value in found.items() if key[:2] == (metric, "whatsapp")) == 5
            assert found[f"{metric}_sum", "whatsapp", ""] > 0
        for _ in range(4):
            sum_up(url)
        assert totals(url) == pytest.approx(found)
        row = connection.execute("select sum(value) as summed from metric_total where metric = 'messages'").fetchone()
        assert row == {"summed": 28}
        sender.database.close()


def test_what_a_slow_transaction_adds_behind_others_is_not_missed(url: str) -> None:
    """A lower id that shows later than a higher one: the sums must wait for it, a reading need not."""
    with connect(url) as slow, connect(url) as fast:
        device_id = new_device(fast)
        with slow.transaction():
            accept_texts(slow, device_id, "slow")
            accept_texts(fast, device_id, "fast")
            for _ in range(4):
                sum_up(url)
                assert totals(url) == {("messages", "whatsapp", "accepted"): 1}
        for _ in range(4):
            assert totals(url) == {("messages", "whatsapp", "accepted"): 2}
            sum_up(url)
        row = fast.execute("select value from metric_total where metric = 'messages'").fetchone()
        assert row == {"value": 2}


def test_sums_go_on_after_a_backup_was_restored_on_another_server(url: str) -> None:
    with connect(url) as connection:
        accept_texts(connection, new_device(connection), "one", "two")
        sum_up(url)
        connection.execute("update metric_cursor set horizon = '999999999'")  # the other server's transactions
        sum_up(url)
        assert connection.execute("select value from metric_total").fetchone() == {"value": 2}


def test_counters_never_go_back_while_somebody_sums(url: str) -> None:
    with connect(url) as connection:
        device_id = new_device(connection)
        highest = 0.0
        for _ in range(30):
            accept_texts(connection, device_id, "one", "two")
            sum_up(url)
            now = totals(url)["messages", "whatsapp", "accepted"]
            assert now == highest + 2
            highest = now


# --- the address -----------------------------------------------------------------------------------------


@dataclass
class Gateway:
    url: str
    database_url: str
    home: Home
    counts: Counts

    def scrape(self, **headers: str) -> requests.Response:
        return requests.get(f"{self.url}/metrics", headers=headers, timeout=30)

    def names(self) -> set[str]:
        return {
            sample.name for family in text_string_to_metric_families(self.scrape().text) for sample in family.samples
        }


@pytest.fixture(scope="module")
def gateway(storage_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = Home(tmp_path_factory.mktemp("metrics") / "home")
    home.create()
    write_daemon_file(home, DaemonFile(os.getpid(), own_process_started(), "127.0.0.1", 1, ready=True, simulator=False))
    values: dict[str, Any] = {"database_url": storage_url, "whatsmeow_database_url": storage_url}
    database = PooledConnections(storage_url, 2)
    context = Context(
        home=home,
        settings=Settings(**values),
        database=database,
        router=RouterClient(RouterBridge()),
        seal=CredentialSeal(home.credentials_key),
        loopback=False,
    )
    listening = bind("127.0.0.1", 0)
    server = Server(create_app(context), listening)
    server.start()
    yield Gateway(f"http://127.0.0.1:{server.port}", storage_url, home, context.counts)
    server.leave()
    database.close()


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\bsalamander_[a-z_]+", text))


def test_every_metric_that_the_dashboard_and_the_alerts_name_is_told(gateway: Gateway) -> None:
    with connect(gateway.database_url) as connection:
        sender = Outbox(SingleConnection(gateway.database_url), "somebody")
        send(connection, sender, new_device(connection), 2)
        restarts.record(connection, Restart("shard", "shard-1", "exited", "It ended.", "started", "ok", 0.1))
        breakers.show(connection, "wablas", "", "open", "It fails.", 5)
        endpoints.add(connection, url="https://a", description="", events=["*"], device_id=None, secret=b"")
        sender.database.close()
    gateway.counts.attempted(Tried(Delivery(1, 1, 1, UUID(int=1), "message.sent", {}, 0), "delivered"))
    gateway.scrape()  # so that the next one tells of a request
    named = {
        name for file in ("alerts.yml", "grafana-dashboard.json") for name in named_in((_DEPLOY / file).read_text())
    }
    assert len(named) > 15
    assert named - gateway.names() == set()


def test_labels_hold_no_device_no_number_and_no_message(gateway: Gateway) -> None:
    for path in ("/v1/devices/no-such-device", "/v1/messages/123", "/nowhere/60123456789", "/metrics"):
        requests.get(gateway.url + path, timeout=30)
    requests.request("BREW", gateway.url + "/metrics", timeout=30)
    text = gateway.scrape().text
    labels = {
        name for family in text_string_to_metric_families(text) for sample in family.samples for name in sample.labels
    }
    assert labels <= {
        "platform", "state", "outcome", "what", "cause", "le", "scope", "database", "endpoint", "process", "method",
        "route", "status",
    }  # fmt: skip
    assert "no-such-device" not in text
    assert "60123456789" not in text
    assert 'route="unknown"' in text
    assert 'method="unknown"' in text


def test_on_this_machine_no_key_is_needed_and_through_a_proxy_one_is(gateway: Gateway) -> None:
    with connect(gateway.database_url) as connection:
        device_id = new_device(connection)
        made = {name: new_key() for name in ("whole", "bound")}
        for name, key in made.items():
            bound = [device_id] if name == "bound" else None
            keys.add(
                connection,
                public_id=public_id(key) or "",
                digest=digest_of(key),
                scope="read",
                device_ids=bound,
                name=name,
                per_minute=None,
            )
    assert gateway.scrape().status_code == 200
    for header in ("X-Forwarded-For", "Forwarded", "Via"):
        refused = gateway.scrape(**{header: "203.0.113.9"})
        assert (refused.status_code, refused.json()["code"]) == (401, "no_key")
    proxied = {"X-Forwarded-For": "203.0.113.9"}
    assert gateway.scrape(**proxied, Authorization=f"Bearer {made['whole']}").status_code == 200
    assert gateway.scrape(**proxied, Authorization=f"Bearer {made['bound']}").status_code == 403


def test_without_postgres_the_rest_is_told(gateway: Gateway, postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    try:
        requests.get(f"{gateway.url}/healthz", timeout=30)
        names = dict.fromkeys(gateway.names(), 0.0)
        while "salamander_devices" in names:  # for a second, an answer is given again
            names = dict.fromkeys(gateway.names(), 0.0)
        assert {"salamander_database_up", "salamander_process_memory_bytes", "salamander_gateway_requests_total"} <= (
            names.keys()
        )
    finally:
        postgres.start()
