"""The counts behind the charts: each thing once, whatever the portions, and nothing that is not certain yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storage import restarts, traffic
from storage.database import Connection, Database, SingleConnection, connect
from storage.migrate import migrate
from storage.outbox import Outbox
from storage.restarts import Restart
from storage.traffic import Span
from tests.integration.conftest import NewDatabase
from tests.support.outbox import accept_texts, claim_next, new_device


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    """A database of the test's own: counts are about everything in it."""
    url = new_database()
    migrate(url)
    return url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    single = SingleConnection(url)
    yield single
    single.close()


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with connect(url) as opened:
        yield opened


def happen(database: Database, connection: Connection) -> None:
    """Let one of each happen."""
    device_id = new_device(connection)
    sender = Outbox(database, "test")
    accept_texts(connection, device_id, "one", "two", "three")
    sent = claim_next(sender, device_id)
    connection.execute("update outbox set created_at = now() - interval '7 seconds' where id = %s", [sent.message_id])
    sender.sent(sent, f"id-{sent.message_id}")
    sender.apply_receipts(device_id, [(f"id-{sent.message_id}", "delivered")])
    sender.failed(claim_next(sender, device_id), "refused", "no")
    sender.in_doubt(claim_next(sender, device_id), "no_answer", "?", None)
    restarts.record(connection, Restart("device", "d", "x", "x", "x", "ok", 0.1, device_id=device_id))
    restarts.record(connection, Restart("shard", "shard-1", "x", "x", "x", "ok", 0.1))


def everything(connection: Connection) -> Span:
    (span,) = traffic.spans(connection, 0, 10**10)
    return span


def test_what_happened_is_counted_once_in_however_many_portions(database: Database, connection: Connection) -> None:
    happen(database, connection)
    portions = 1
    while traffic.count(database, rows=2, age_seconds=0):
        portions += 1
    assert portions > 3
    assert not traffic.count(database, age_seconds=0)
    counted = everything(connection)
    assert (counted.sent, counted.delivered, counted.failed, counted.in_doubt) == (1, 1, 1, 1)
    assert (counted.reconnects, counted.restarts) == (1, 1)
    assert counted.delivery == (0, 0, 0, 1, 0, 0, 0, 0, 0)

    happen(database, connection)
    traffic.count(database, age_seconds=0)
    counted = everything(connection)
    assert (counted.sent, counted.delivered, counted.reconnects, counted.restarts) == (2, 2, 2, 2)
    assert counted.delivery == (0, 0, 0, 2, 0, 0, 0, 0, 0)


def test_numbers_that_were_never_used_are_stepped_over(database: Database, connection: Connection) -> None:
    connection.execute("select setval(pg_get_serial_sequence('transition', 'id'), 1000000)")
    happen(database, connection)
    traffic.count(database, rows=50, age_seconds=0)
    assert everything(connection).sent == 1


def test_rows_that_may_have_uncommitted_neighbours_wait(database: Database, connection: Connection) -> None:
    happen(database, connection)
    assert not traffic.count(database)
    assert traffic.spans(connection, 0, 3600) == []
    connection.execute("update transition set at = at - interval '1 minute'")
    traffic.count(database)
    assert everything(connection).sent == 1


def test_two_that_count_at_once_count_nothing_twice(database: Database, connection: Connection) -> None:
    happen(database, connection)
    with connection.transaction():
        connection.execute("select * from traffic_counted for update")
        assert not traffic.count(database, age_seconds=0)
    assert traffic.spans(connection, 0, 3600) == []
    traffic.count(database, age_seconds=0)
    assert everything(connection).sent == 1
