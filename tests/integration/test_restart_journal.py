"""The story of restarts on a real server: told at once where PostgreSQL is there, and afterwards where it was not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from storage import restarts
from storage.database import Connection, SingleConnection, connect
from storage.embedded import EmbeddedPostgres
from storage.migrate import migrate
from storage.restarts import Restart, RestartJournal
from tests.integration.conftest import NewDatabase
from tests.support.outbox import new_device


def restart(name: str, **fields: object) -> Restart:
    told = {"what": "shard", "cause_code": "exited", "cause": "It ended.", "tried": "started again", "outcome": "ok"}
    return Restart(name=name, seconds=1.5, **{**told, **fields})  # type: ignore[arg-type]  # as the test gives them


def names(connection: Connection) -> list[str]:
    return [row["name"] for row in restarts.latest(connection, limit=1000)]


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    fresh = new_database()
    migrate(fresh)
    return fresh


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with connect(url) as opened:
        yield opened


@pytest.fixture
def journal(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RestartJournal]:
    monkeypatch.setattr(restarts, "_PATIENCE_SECONDS", 0.0)
    single = SingleConnection(url)
    yield RestartJournal(single)
    single.close()


def test_a_restart_is_a_row_with_its_cause_and_duration(connection: Connection, journal: RestartJournal) -> None:
    device_id = new_device(connection)
    journal.record(restart("one", what="device", device_id=device_id, attempt=3, request="r1", outcome="refused"))
    journal.record(restart("two"))
    row = restarts.by_request(connection, "r1")
    assert row is not None
    told = {"name": "one", "cause_code": "exited", "cause": "It ended.", "attempt": 3, "outcome": "refused"}
    assert told.items() <= row.items()
    assert (row["seconds"], row["device_id"], row["tried"]) == (1.5, device_id, "started again")
    assert restarts.by_request(connection, "unknown") is None
    assert names(connection) == ["one", "two"]
    assert [each["name"] for each in restarts.latest(connection, device_id=device_id)] == ["one"]
    assert [each["name"] for each in restarts.latest(connection, after=row["id"])] == ["two"]
    assert [each["name"] for each in restarts.latest(connection, limit=1)] == ["two"]


def test_restarts_while_postgresql_is_away_are_written_afterwards_with_their_own_time(
    url: str, postgres: EmbeddedPostgres, journal: RestartJournal
) -> None:
    journal.record(restart("before"))
    postgres.stop()
    try:
        for number in range(3):
            journal.record(restart(f"away {number}"))
        journal.flush()
        back = datetime.now(UTC)
    finally:
        postgres.start()
    journal.record(restart("after"))
    with connect(url) as connection:
        rows = restarts.latest(connection)
    assert [row["name"] for row in rows] == ["before", "away 0", "away 1", "away 2", "after"]
    assert [row["at"] < back for row in rows] == [True, True, True, True, False]


def test_a_server_that_did_not_answer_is_left_alone_for_a_while(
    url: str, postgres: EmbeddedPostgres, journal: RestartJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "_PATIENCE_SECONDS", 3600.0)
    postgres.stop()
    journal.record(restart("away"))
    postgres.start()
    journal.record(restart("soon after"))
    with connect(url) as connection:
        assert names(connection) == []


def test_only_so_many_restarts_are_kept_in_memory(
    url: str, postgres: EmbeddedPostgres, journal: RestartJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "_PATIENCE_SECONDS", 3600.0)
    postgres.stop()
    for number in range(restarts._KEPT + 10):
        journal.record(restart(str(number)))
    postgres.start()
    monkeypatch.setattr(journal, "_not_before", 0.0)
    journal.flush()
    with connect(url) as connection:
        assert names(connection) == [str(number) for number in range(10, restarts._KEPT + 10)]


def test_a_database_without_tables_yet_is_waited_for(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "_PATIENCE_SECONDS", 0.0)
    fresh = new_database()
    single = SingleConnection(fresh)
    journal = RestartJournal(single)
    journal.record(restart("early"))
    migrate(fresh)
    journal.flush()
    single.close()
    with connect(fresh) as connection:
        assert names(connection) == ["early"]


def test_words_that_no_row_can_hold_spoil_nothing(connection: Connection, journal: RestartJournal) -> None:
    journal.record(restart("odd", cause="It said \x00 and \udce9."))
    journal.record(restart("next"))
    assert names(connection) == ["odd", "next"]
