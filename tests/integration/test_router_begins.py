"""A router that is started while PostgreSQL is away begins its work when that is back."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from actors.router import Router
from config.errors import StorageUnavailable
from config.home import DAEMON_VARIABLE, Home
from storage import care
from storage.care import Wait
from storage.database import SingleConnection
from tests.support.outbox import new_device

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from storage.database import Connection


WAIT = Wait(datetime.now(UTC) + timedelta(hours=1), "quiet_hours", "It is night.")


class AwayAtFirst(SingleConnection):
    """A database that is away once."""

    away = True

    @contextlib.contextmanager
    def statements(self) -> Iterator[Connection]:
        if self.away:
            self.away = False
            raise StorageUnavailable("It is away.")
        with super().statements() as connection:
            yield connection


class Played(Router):
    """The router without an actor system."""

    def wake_after(self, seconds: float, payload: Any = None) -> None: ...


def test_lanes_that_a_rule_holds_are_released_when_postgresql_is_back(
    connection: Connection, storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    monkeypatch.setenv(DAEMON_VARIABLE, str(home.path))
    for name in ("SALAMANDER_DATABASE_URL", "SALAMANDER_WHATSMEOW_DATABASE_URL"):
        monkeypatch.setenv(name, storage_url)
    lane = new_device(connection)
    care.hold(connection, lane, WAIT)
    router = Played()
    with contextlib.closing(AwayAtFirst(storage_url)) as router._database:
        router.begin()
        for released in (True, False):
            router.on_wakeup("beat")
            row = connection.execute("select held_code from device where id = %s", [lane]).fetchone()
            assert row is not None
            assert (row["held_code"] == "") is released
            care.hold(connection, lane, WAIT)
