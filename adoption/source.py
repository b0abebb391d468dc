"""What is adopted from: a database with whatsmeow's tables, or the original system's device table, of another tool.

It is only read, never written to. What it says stands in whatever types its database has; the copy converts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from config.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: The table of the original system, with its WhatsApp devices and its platform accounts.
ORIGINAL_TABLE = "user_devices"


@dataclass(frozen=True)
class StoreVersion:
    """The version of whatsmeow's tables, and the oldest version whose programs could still use them.

    Between the two, tables and columns were only added.
    """

    number: int
    compatible_from: int


class Source(ABC):
    """One database of another tool.

    Attributes:
        name: what it is, for people; never with a password.
        how_judged: how it is told whether somebody still uses it, in words.
    """

    name: str
    how_judged: str

    @abstractmethod
    def signs_of_life(self) -> list[str]:
        """Return why somebody seems to use it at this moment, a sentence each; empty: nobody does."""

    @abstractmethod
    def tables(self) -> Mapping[str, frozenset[str]]:
        """Return the columns of each of whatsmeow's tables and of the original system's."""

    @abstractmethod
    def rows(
        self, table: str, columns: Sequence[str], where: tuple[str, str] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a table, or those whose column has a value: ``where`` is (column, value)."""

    @abstractmethod
    def counts(self, table: str, column: str) -> dict[str, int]:
        """Return how many rows a table has for each value of a column."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it, and of what was copied to read it."""

    def require_idle(self) -> None:
        """Go on only when nobody seems to use it.

        Raises:
            Refused: somebody does.
        """
        if signs := self.signs_of_life():
            raise Refused(
                f"{self.name} is still in use: {' '.join(signs)}",
                "Stop the other tool, and keep it from starting again; then repeat. Two programs with one session"
                " throw each other out.",
                code="source_in_use",
            )


def store_version(source: Source) -> StoreVersion | None:
    """Return the version of whatsmeow's tables in a source, or None: there are none."""
    columns = source.tables().get("whatsmeow_version", frozenset())
    if "version" not in columns:
        return None
    has_compat = "compat" in columns
    for row in source.rows("whatsmeow_version", ["version", "compat"] if has_compat else ["version"]):
        number = int(row[0])
        return StoreVersion(number, int(row[1]) if has_compat and row[1] is not None else number)
    return None
