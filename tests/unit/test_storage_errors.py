"""Which errors mean that PostgreSQL is away, so that work waits and is done again, and which are mistakes of ours."""

from __future__ import annotations

import psycopg
import pytest

from config.errors import StorageUnavailable
from storage.database import storage_errors

AWAY = [
    psycopg.OperationalError("server closed the connection unexpectedly"),
    psycopg.InterfaceError("the connection is closed"),
    # Seen under kills: the server's farewell and the connection's end came as two answers to one command.
    psycopg.InternalError("received 2 results from command 'BEGIN'"),
    psycopg.errors.InternalError_("cache lookup failed"),
    psycopg.errors.DiskFull("No space left on device"),
]
OURS = [
    psycopg.errors.InFailedSqlTransaction("current transaction is aborted"),
    psycopg.errors.UniqueViolation("duplicate key"),
    psycopg.ProgrammingError("no such column"),
]


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_a_server_that_is_away_is_told_as_such(error: psycopg.Error) -> None:
    with pytest.raises(StorageUnavailable) as told, storage_errors():
        raise error
    assert "Nothing needs a restart" in told.value.next_step


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_a_mistake_of_ours_stays_one(error: psycopg.Error) -> None:
    with pytest.raises(type(error)), storage_errors():
        raise error
