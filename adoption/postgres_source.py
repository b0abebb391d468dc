"""A PostgreSQL database of another tool, read in one read-only transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import IsolationLevel, pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from adoption.source import ORIGINAL_TABLE, Source
from config.errors import Refused
from storage.sql import queries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SQL = queries("adoption")
_CONNECT_SECONDS = 10
#: Rows fetched at once.
_AT_ONCE = 2000


class PostgresSource(Source):
    """A PostgreSQL database.

    Args:
        dsn: a URL or a keyword/value string.
        others_connected: other connections are no sign of life; only writes to whatsmeow's tables are.

    Raises:
        Refused: it cannot be read or reached.
    """

    def __init__(self, dsn: str, *, others_connected: bool = False) -> None:
        parts = read_dsn(dsn)
        self.name = f"the database {parts.get('dbname', '')} on {parts.get('host', 'this machine')}"
        self.how_judged = (
            "nobody writes to whatsmeow's tables (pg_stat_user_tables)"
            if others_connected
            else "nobody else is connected to that database (pg_stat_activity), and nobody writes to whatsmeow's tables"
        )
        self._others_connected = others_connected
        own = {"connect_timeout": str(_CONNECT_SECONDS), "application_name": "salamander"}
        known = make_conninfo("", **{**parts, **own})
        try:
            self._watch = psycopg.connect(known, autocommit=True, prepare_threshold=None)
            self._reader = psycopg.connect(known, prepare_threshold=None)
            self._reader.isolation_level = IsolationLevel.REPEATABLE_READ
            self._reader.read_only = True
            self._writes = self._written()
            # The snapshot, which everything is read from, is taken by the first statement.
            self._tables = self._read_tables()
        except psycopg.Error as error:
            raise _unreadable(self.name, error) from None

    def signs_of_life(self) -> list[str]:
        """Return who else is connected, and whether whatsmeow's tables were written to since they are looked at."""
        try:
            signs = [] if self._others_connected else self._others()
            if self._written() != self._writes:
                signs.append("whatsmeow's tables were written to a moment ago.")
        except psycopg.Error as error:
            raise _unreadable(self.name, error) from None
        return signs

    def _others(self) -> list[str]:
        own = [self._watch.info.backend_pid, self._reader.info.backend_pid]
        rows = self._watch.execute(_SQL["others_connected"], {"own": own}).fetchall()
        return [
            f"{application or 'A program'} is connected as {user} from {client} (server process {pid})."
            for pid, user, application, client in rows
        ]

    def _written(self) -> int:
        row = self._watch.execute(_SQL["writes"]).fetchone()
        return int(row[0]) if row is not None else 0

    def tables(self) -> Mapping[str, frozenset[str]]:
        """Return the columns of each table that matters."""
        return self._tables

    def _read_tables(self) -> Mapping[str, frozenset[str]]:
        rows = self._reader.execute(_SQL["tables"], {"original": ORIGINAL_TABLE}).fetchall()
        return {table: frozenset(columns) for table, columns in rows}

    def rows(
        self, table: str, columns: Sequence[str], where: tuple[str, str] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Yield rows of a table."""
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL("select {} from {}").format(names, sql.Identifier(table))
        if where is not None:
            statement += sql.SQL(" where {} = %s").format(sql.Identifier(where[0]))
        try:
            with self._reader.cursor("adoption") as cursor:
                cursor.itersize = _AT_ONCE
                cursor.execute(statement, None if where is None else (where[1],))
                yield from cursor
        except psycopg.Error as error:
            raise _unreadable(self.name, error) from None

    def counts(self, table: str, column: str) -> dict[str, int]:
        """Return how many rows there are for each value."""
        statement = sql.SQL("select {0}, count(*) from {1} group by {0}")
        try:
            found = self._reader.execute(statement.format(sql.Identifier(column), sql.Identifier(table))).fetchall()
        except psycopg.Error as error:
            raise _unreadable(self.name, error) from None
        return dict(found)

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()
        self._watch.close()


def read_dsn(dsn: str) -> dict[str, str]:
    """Return the parts of a PostgreSQL URL or keyword/value string that libpq knows; Go's driver knows some more.

    Raises:
        Refused: it cannot be read; the sentence does not repeat it.
    """
    if "://" in dsn:
        dsn = _without_foreign_parameters(dsn)
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.Error:
        raise Refused(
            "The address of the source's database cannot be read.",
            "Write it as postgres://USER@HOST:PORT/DATABASE; special characters of a password are written as %XX.",
            code="bad_source",
        ) from None
    return {name: str(value) for name, value in parts.items() if value is not None}


def _without_foreign_parameters(url: str) -> str:
    known = {each.keyword.decode() for each in pq.Conninfo.get_defaults()}
    address, _, query = url.partition("?")
    kept = [each for each in query.split("&") if each.partition("=")[0] in known]
    return f"{address}?{'&'.join(kept)}" if kept else address


def _unreadable(name: str, error: psycopg.Error) -> Refused:
    # libpq's words name the host and the user, never the password.
    words = error.diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[0]
    return Refused(f"{name[0].upper()}{name[1:]} cannot be read: {words}.", code="source_unreadable")
