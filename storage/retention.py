"""Retention: finished history is removed after a time, a batch at a time, so that nothing waits for it."""

from __future__ import annotations

from storage import handled
from storage.database import Connection, Database
from storage.outbox import FINAL_STATES
from storage.sql import queries

_SQL = queries("retention")
#: Any number will do, as long as it is ours: of several hosts on one database, one at a time removes.
_TURN = 5_201_315
#: Rows looked at in one transaction: some tens of milliseconds, with all that belongs to a message.
BATCH = 500
#: What is removed, in this order.
_KINDS = ("messages", "events", "restarts", "number_checks")


class Retention:
    """Removes what has been finished for longer than ``days``, in rounds of small steps.

    What it never removes: messages that are queued, being sent or in doubt, however old; devices; the opt-out list.
    Rows are looked at in the order they came, from the first that is left to the first that is too young, so that a
    round costs what there is to remove, and needs no index of its own.
    """

    def __init__(self, database: Database, days: int, batch: int = BATCH) -> None:
        self._database = database
        self._days = days
        self._batch = batch
        self._kinds = list(_KINDS)
        self._after = 0
        self.removed: dict[str, int] = dict.fromkeys(_KINDS, 0)

    def step(self) -> bool:
        """Remove one batch and return whether this round has more to look at; the next step begins a new one.

        Raises:
            StorageUnavailable: PostgreSQL is away; the step was not done and may be done again.
        """
        with self._database.transaction() as connection:
            turn = connection.execute(_SQL["take_turn"], {"key": _TURN}).fetchone()
            if turn is None or not turn["taken"]:
                return self._end_round()
            kind = self._kinds[0]
            if kind == _KINDS[0] and self._after == 0:
                handled.forget(connection)
            removed, last, finished = self._remove(connection, kind)
        self.removed[kind] += removed
        if last is not None:
            self._after = last
        if finished:
            self._kinds.pop(0)
            self._after = 0
        return bool(self._kinds) or self._end_round()

    def _remove(self, connection: Connection, kind: str) -> tuple[int, int | None, bool]:
        arguments = {
            "after": self._after,
            "batch": self._batch,
            "days": self._days,
            "final_states": sorted(FINAL_STATES),
        }
        row = connection.execute(_SQL[f"remove_{kind}"], arguments).fetchone()
        assert row is not None  # noqa: S101 - an aggregate always gives a row
        return row["removed"], row["last"], row["finished"]

    def _end_round(self) -> bool:
        self._kinds = list(_KINDS)
        self._after = 0
        return False
