"""Bring Salamander's schema up to date: numbered SQL files, each applied once, under an advisory lock."""

from __future__ import annotations

from importlib import resources

from config.errors import StorageUnavailable
from storage.database import Connection, connect, storage_errors

#: Any number will do, as long as it is ours: two daemons starting at once must not migrate together.
_LOCK = 5_201_314


def available() -> list[tuple[int, str, str]]:
    """Return the migrations as (version, name, SQL), in order."""
    folder = resources.files("storage").joinpath("migrations")
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name.split("_")[0]), name, folder.joinpath(name).read_text(encoding="utf-8")) for name in files]


def migrate(url: str) -> list[str]:
    """Apply the migrations that are missing and return their names.

    Raises:
        StorageUnavailable: the server is away, or its schema is newer than this program.
    """
    applied: list[str] = []
    with storage_errors(), connect(url) as connection:
        while (name := _apply_next(connection)) is not None:
            applied.append(name)
    return applied


def _apply_next(connection: Connection) -> str | None:
    """Apply the first migration that is missing and return its name, in one transaction that holds the lock.

    The lock is the transaction's and not the session's: PgBouncer lends a connection for no longer than that.
    """
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute(
            "create table if not exists schema_migration"
            " (version integer primary key, name text not null, at timestamptz not null default now())"
        )
        known = {row["version"] for row in connection.execute("select version from schema_migration")}
        migrations = available()
        if known and max(known) > migrations[-1][0]:
            raise StorageUnavailable(
                f"The database has schema version {max(known)}; this program knows {migrations[-1][0]}.",
                "Use the newer program that wrote it, or restore a backup.",
            )
        for version, name, statements in migrations:
            if version not in known:
                connection.execute(statements.encode())
                connection.execute("insert into schema_migration (version, name) values (%s, %s)", (version, name))
                return name
    return None
