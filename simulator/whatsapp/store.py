"""What survives a ``kill -9`` of the simulator: everything it has acknowledged to anyone.

SQLite in WAL mode without fsync: the process may die at any moment, the machine may not, and that is all a stand-in
has to withstand. Everything one stanza changes is one transaction, committed before the answer leaves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from simulator.whatsapp import accounts, messages

_COUNTERS = "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;"


class Store:
    """The database of one simulator. Its methods are synchronous and fast."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.executescript(accounts.SCHEMA + messages.SCHEMA + _COUNTERS)
        self.accounts = accounts.Accounts(self._database)
        self.messages = messages.Messages(self._database)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside, or undo it when it raises."""
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def counters(self) -> dict[str, int]:
        """Return all counters."""
        return dict(self._database.execute("SELECT name, value FROM counters").fetchall())

    def save_counters(self, changed: Mapping[str, int]) -> None:
        """Remember counters (inside a transaction)."""
        self._database.executemany("INSERT OR REPLACE INTO counters VALUES (?, ?)", changed.items())
