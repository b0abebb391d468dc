"""Bringing a database up to date: once, whoever asks and however often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from config.errors import StorageUnavailable
from storage import migrate as migrations
from storage.database import connect
from storage.migrate import available, migrate
from tests.integration.conftest import NewDatabase

NAMES = [name for _, name, _ in available()]


def applied_to(url: str) -> list[str]:
    with connect(url) as connection:
        rows = connection.execute("select name from schema_migration order by version").fetchall()
    return [row["name"] for row in rows]


def tables_of(url: str) -> set[str]:
    with connect(url) as connection:
        rows = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    return {row["tablename"] for row in rows}


def test_migrations_are_numbered_without_gap_or_repetition() -> None:
    assert [version for version, _, _ in available()] == list(range(1, len(NAMES) + 1))


def test_a_second_run_changes_nothing(new_database: NewDatabase) -> None:
    url = new_database()
    assert migrate(url) == NAMES
    assert {"device", "outbox", "attempt", "transition", "restart", "event"} <= tables_of(url)
    assert migrate(url) == []
    assert applied_to(url) == NAMES


def test_of_several_at_once_each_migration_is_applied_by_one(new_database: NewDatabase) -> None:
    url = new_database()
    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(migrate, [url] * 4))
    assert sorted(name for names in applied for name in names) == NAMES
    assert applied_to(url) == NAMES


def test_a_migration_that_fails_leaves_the_earlier_ones_and_nothing_of_its_own(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database()
    broken = (len(NAMES) + 1, "9999_broken.sql", "create table half (id int); select 1 / 0;")
    monkeypatch.setattr(migrations, "available", lambda: [*available(), broken])
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(url)
    assert applied_to(url) == NAMES
    assert "half" not in tables_of(url)
    monkeypatch.undo()
    assert migrate(url) == []


def test_a_schema_newer_than_the_program_is_left_alone(new_database: NewDatabase) -> None:
    url = new_database()
    migrate(url)
    with connect(url) as connection:
        connection.execute("insert into schema_migration (version, name) values (9999, 'from the future')")
    with pytest.raises(StorageUnavailable, match="schema version 9999") as refused:
        migrate(url)
    assert "newer program" in refused.value.next_step
