"""Salamander's own whatsmeow database, as the place that sessions are copied to: one companion, one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from adoption.source import Source, StoreVersion, store_version
from config.errors import Refused, StorageUnavailable
from storage.sql import queries
from storage.text import storable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SQL = queries("adoption")
#: Tables that belong to no companion.
_OF_NOBODY = frozenset({"whatsmeow_version", "whatsmeow_lid_map"})
#: Tables that others refer to, in the order in which they must be filled.
_FIRST = ("whatsmeow_device", "whatsmeow_app_state_version")
_UPGRADE_NEONIZE = "Upgrade Salamander's neonize first (docs/operating.md); it brings whatsmeow's newer tables."


@dataclass(frozen=True)
class Column:
    """A column of whatsmeow's: its type, and whether a row may do without it."""

    kind: str
    optional: bool


Schema = dict[str, dict[str, Column]]


class Store:
    """Whatsmeow's database of this installation.

    Args:
        url: its libpq URL.

    Raises:
        StorageUnavailable: it does not answer.
    """

    def __init__(self, url: str) -> None:
        try:
            self._connection = psycopg.connect(url, autocommit=True, connect_timeout=5, prepare_threshold=None)
            self.schema: Schema = {}
            for table, column, kind, optional in self._connection.execute(_SQL["own_columns"]):
                self.schema.setdefault(table, {})[column] = Column(kind, optional)
            row = self._connection.execute(_SQL["own_version"]).fetchone()
        except psycopg.Error as error:
            raise _away(error) from None
        assert row is not None  # noqa: S101 - the start of the daemon wrote it
        self.version = StoreVersion(*row)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def copy_companion(self, source: Source, jid: str) -> int:
        """Copy everything that belongs to a companion, in place of what an interrupted copy left; return the rows.

        Raises:
            Refused: a row of it cannot be stored; nothing of it was.
            StorageUnavailable: our database does not answer; nothing was stored, or everything.
        """
        rows = 0
        present = source.tables()
        try:
            with self._connection.transaction():
                self._forget(jid)
                for table in companion_tables(self.schema):
                    if table in present:
                        key = key_of(self.schema[table])
                        rows += self._copy(source, table, table, (key, jid))
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            # The server's own words may quote the row, which holds keys.
            where = error.diag.table_name or "one of whatsmeow's tables"
            rule = f" ({error.diag.constraint_name})" if error.diag.constraint_name else ""
            sentence = f"A row of {where} is not as whatsmeow stores it{rule}: {type(error).__name__}."
            raise Refused(sentence, "Pair this one anew.", code="session_unusable") from None
        except psycopg.Error as error:
            raise _away(error) from None
        return rows

    def forget_companion(self, jid: str) -> None:
        """Delete a copied session again, as long as no device has it."""
        try:
            with self._connection.transaction():
                self._forget(jid)
        except psycopg.Error as error:
            raise _away(error) from None

    def learn_lids(self, source: Source) -> None:
        """Copy what the source knows of LIDs and the numbers behind them; what is known here stays."""
        if "whatsmeow_lid_map" not in source.tables():
            return
        try:
            with self._connection.transaction():
                self._connection.execute(_SQL["stage_lids"])
                self._copy(source, "whatsmeow_lid_map", "adopted_lid", None)
                self._connection.execute(_SQL["learn_lids"])
        except psycopg.Error as error:
            raise _away(error) from None

    def _forget(self, jid: str) -> None:
        self._connection.execute(_SQL["forget_companion"], {"jid": jid})
        self._connection.execute(_SQL["forget_privacy_tokens"], {"jid": jid})

    def _copy(self, source: Source, table: str, target: str, where: tuple[str, str] | None) -> int:
        present = source.tables()[table]
        columns = {name: column for name, column in self.schema[table].items() if name in present}
        statement = sql.SQL("copy {} ({}) from stdin").format(
            sql.Identifier(target), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        kinds = [column.kind for column in columns.values()]
        count = 0
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in source.rows(table, list(columns), where):
                copy.write_row([_converted(value, kind) for value, kind in zip(row, kinds, strict=True)])
                count += 1
        return count


def companion_tables(schema: Schema) -> list[str]:
    """Return the tables whose rows belong to a companion, in the order in which they must be filled."""
    owned = [table for table in schema if table not in _OF_NOBODY]
    return sorted(owned, key=lambda table: (_FIRST.index(table) if table in _FIRST else len(_FIRST), table))


def key_of(columns: Iterable[str]) -> str:
    """Return the column that names the companion a row belongs to."""
    return "our_jid" if "our_jid" in columns else "jid"


def check_schema(source: Source, version: StoreVersion, schema: Schema) -> list[str]:
    """Compare a source with our own tables; return warnings.

    Between the oldest compatible version and ours, whatsmeow only added tables and columns that a row may do without.
    So such a source is copied column by column, and what is new takes its default, as whatsmeow's own upgrade does.

    Raises:
        Refused: it holds no whatsmeow tables, or they are newer, too old, or not what whatsmeow makes.
    """
    found = store_version(source)
    tables = source.tables()
    if found is None or "whatsmeow_device" not in tables:
        raise Refused(
            f"{source.name} holds no tables of whatsmeow.", "Name the database the sessions are in.", code="no_sessions"
        )
    if found.number > version.number:
        raise Refused(
            f"{source.name} has version {found.number} of whatsmeow's tables; this neonize knows {version.number}.",
            _UPGRADE_NEONIZE,
            code="source_newer",
        )
    if found.number < version.compatible_from:
        raise Refused(
            f"{source.name} has version {found.number} of whatsmeow's tables, too old to be copied as it is.",
            f"Start a newer release of the other tool once, which upgrades them to {version.compatible_from} or later;"
            " stop it, and repeat.",
            code="source_older",
        )
    _check_columns(source.name, tables, schema)
    strange = sorted(set(tables) & {name for name in tables if name.startswith("whatsmeow_")} - set(schema))
    return [f"The table {name} is not whatsmeow's; it is left alone." for name in strange]


def _check_columns(name: str, tables: Mapping[str, frozenset[str]], schema: Schema) -> None:
    for table, columns in schema.items():
        if table not in tables or table in _OF_NOBODY:
            continue
        unknown = sorted(tables[table] - set(columns))
        needed = sorted(each for each, column in columns.items() if not column.optional and each not in tables[table])
        if unknown or needed:
            what = f"the unknown columns {', '.join(unknown)}" if unknown else f"no {', '.join(needed)}"
            raise Refused(f"In {name}, {table} has {what}.", _UPGRADE_NEONIZE, code="source_differs")


def _converted(value: Any, kind: str) -> Any:
    """Return a value of the source as our column takes it: SQLite knows neither booleans nor kinds of text."""
    if value is None:
        return None
    if kind == "bytea":
        return value.encode() if isinstance(value, str) else bytes(value)
    if kind == "boolean":
        return bool(value)
    if kind == "text":
        return storable(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
    return value


def _away(error: psycopg.Error) -> StorageUnavailable:
    return StorageUnavailable(
        f"whatsmeow's database did not take it ({type(error).__name__}).", "See run.py status; then repeat."
    )
