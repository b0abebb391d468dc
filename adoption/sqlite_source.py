"""A SQLite file of another tool. A private copy is read, so that neither the file nor its directory is touched."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adoption import occupation
from adoption.source import ORIGINAL_TABLE, Source
from config.errors import NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: The first bytes of every SQLite database.
_MAGIC = b"SQLite format 3\x00"
#: What is copied besides the database: without them, what was written last would be missing.
_COPIED = ("-wal", "-journal")
#: How often copying is tried when the file changes meanwhile.
_TRIES = 5


class SqliteSource(Source):
    """A SQLite file.

    Args:
        path: the file.
        workplace: a private directory for the copy.

    Raises:
        NotFound, Refused: there is no such file, or it is no usable SQLite database.
    """

    how_judged = occupation.HOW_JUDGED

    def __init__(self, path: Path, workplace: Path) -> None:
        self.name = str(path)
        self._path = path
        self._copy = workplace / "store.sqlite3"
        try:
            _copy_unchanged(path, self._copy)
            self._database = sqlite3.connect(self._copy, isolation_level=None)
            self._database.text_factory = lambda raw: raw.decode("utf-8", "replace")
            # A row that breaks a rule costs its own session, not all of them.
            self._database.execute("pragma ignore_check_constraints = on")
            (verdict,) = self._database.execute("pragma quick_check(1)").fetchone()
        except FileNotFoundError:
            raise NotFound(f"There is no file {path}.", code="source_missing") from None
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror}.", code="source_unreadable") from None
        except sqlite3.Error as error:
            raise Refused(f"{path} cannot be read as SQLite: {error}.", code="source_unreadable") from None
        if verdict != "ok":
            raise Refused(f"{path} is damaged, says SQLite's own check.", code="source_unreadable")

    def signs_of_life(self) -> list[str]:
        """Return who has it open or locks it, and whether it was written a moment ago."""
        return occupation.signs_of_life(self._path)

    def tables(self) -> Mapping[str, frozenset[str]]:
        """Return the columns of each table that matters."""
        names = self._database.execute(
            "select name from sqlite_master where type = 'table' and (name glob 'whatsmeow_*' or name = ?)",
            (ORIGINAL_TABLE,),
        )
        return {
            name: frozenset(row[0] for row in self._database.execute("select name from pragma_table_info(?)", (name,)))
            for (name,) in names.fetchall()
        }

    def rows(
        self, table: str, columns: Sequence[str], where: tuple[str, str] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Yield rows of a table."""
        statement = f"select {', '.join(map(_quoted, columns))} from {_quoted(table)}"  # noqa: S608 - quoted names
        if where is None:
            yield from self._database.execute(statement)
        else:
            yield from self._database.execute(f"{statement} where {_quoted(where[0])} = ?", (where[1],))

    def counts(self, table: str, column: str) -> dict[str, int]:
        """Return how many rows there are for each value."""
        name = _quoted(column)
        statement = f"select {name}, count(*) from {_quoted(table)} group by {name}"  # noqa: S608 - quoted names
        return dict(self._database.execute(statement).fetchall())

    def close(self) -> None:
        """Close and delete the copy: it holds the keys of the sessions."""
        self._database.close()
        for suffix in ("", *occupation.SUFFIXES):
            self._copy.with_name(self._copy.name + suffix).unlink(missing_ok=True)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _copy_unchanged(source: Path, target: Path) -> None:
    """Copy a database with its logs, all as they were at one moment."""
    with source.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise Refused(f"{source} is no SQLite database.", "Name a SQLite file, or a postgres:// URL.")
    for _ in range(_TRIES):
        before = _stamps(source)
        _copy(source, target)
        for suffix in _COPIED:
            with suppress(FileNotFoundError):
                _copy(source.with_name(source.name + suffix), target.with_name(target.name + suffix))
        if _stamps(source) == before:
            return
    raise Refused(f"{source} changes faster than it can be read.", "Stop the other tool first.", code="source_in_use")


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with source.open("rb") as original:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(original, copy)


def _stamps(source: Path) -> list[tuple[int, int, int] | None]:
    stamps: list[tuple[int, int, int] | None] = []
    for suffix in ("", *_COPIED):
        try:
            status = source.with_name(source.name + suffix).stat()
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            stamps.append(None)
    return stamps
