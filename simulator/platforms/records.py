"""What the stand-ins remember, in SQLite: accounts, ports, every accepted send. A kill loses nothing."""

from __future__ import annotations

import json
import sqlite3
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ports (platform TEXT PRIMARY KEY, port INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
    platform TEXT NOT NULL, label TEXT NOT NULL, credentials TEXT NOT NULL,
    PRIMARY KEY (platform, label), UNIQUE (platform, credentials)
);
CREATE TABLE IF NOT EXISTS sends (
    sequence INTEGER PRIMARY KEY, platform TEXT NOT NULL, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL,
    recipient TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, media_url TEXT NOT NULL,
    reference TEXT NOT NULL, time TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS sends_by_reference ON sends (platform, reference);
"""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Send:
    """One accepted message. ``account`` is a label: no credential is ever recorded with a message."""

    account: str
    recipient: str
    kind: str
    text: str
    media_url: str = ""
    reference: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    time: str = field(default_factory=_now)

    def as_dict(self) -> dict[str, Any]:
        """Return the send as a log shows it."""
        return {
            "id": self.id,
            "account": self.account,
            "to": self.recipient,
            "kind": self.kind,
            "text": self.text,
            "media_url": self.media_url,
            "reference": self.reference,
            "time": self.time,
        }


class Records:
    """The stand-ins' database."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / "platforms.sqlite3"
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # Only the process dies here, never the machine: what was written to the file is there again.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def port(self, platform: str) -> int:
        """Return the port ``platform`` had last, or 0."""
        row = self._connection.execute("SELECT port FROM ports WHERE platform = ?", (platform,)).fetchone()
        return int(row[0]) if row else 0

    def keep_port(self, platform: str, port: int) -> None:
        """Remember the port ``platform`` has."""
        self._connection.execute("INSERT OR REPLACE INTO ports VALUES (?, ?)", (platform, port))

    def add_account(self, platform: str, credentials: Mapping[str, str], label: str | None = None) -> str:
        """Let ``platform`` know an account; return its label. The same credentials are the same account."""
        encoded = json.dumps(dict(sorted(credentials.items())))
        known = self._connection.execute(
            "SELECT label FROM accounts WHERE platform = ? AND credentials = ?", (platform, encoded)
        ).fetchone()
        if known:
            return str(known[0])
        if label is None:
            count = self._connection.execute("SELECT count(*) FROM accounts WHERE platform = ?", (platform,)).fetchone()
            label = f"account-{count[0] + 1}"
        self._connection.execute("INSERT INTO accounts VALUES (?, ?, ?)", (platform, label, encoded))
        return label

    def accounts(self, platform: str) -> dict[str, dict[str, str]]:
        """Return the credentials of each account by its label."""
        rows = self._connection.execute(
            "SELECT label, credentials FROM accounts WHERE platform = ? ORDER BY label", (platform,)
        )
        return {label: json.loads(credentials) for label, credentials in rows}

    def record(self, platform: str, sends: Iterable[Send]) -> None:
        """Record accepted sends, all or none."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "INSERT INTO sends (platform, id, account, recipient, kind, text, media_url, reference, time) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    platform,
                    each.id,
                    each.account,
                    each.recipient,
                    each.kind,
                    each.text,
                    each.media_url,
                    each.reference,
                    each.time,
                )
                for each in sends
            ],
        )
        self._connection.execute("COMMIT")

    def sends(self, platform: str, *, reference: str | None = None) -> list[Send]:
        """Return the accepted sends in their order, of one reference or all."""
        rows = self._connection.execute(
            "SELECT account, recipient, kind, text, media_url, reference, id, time FROM sends "
            "WHERE platform = :platform AND (:reference IS NULL OR reference = :reference) ORDER BY sequence",
            {"platform": platform, "reference": reference},
        )
        return [Send(*row) for row in rows]
