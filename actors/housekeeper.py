"""Housekeeper: the process that removes finished history when ``retention_days`` is set.

It is a process of its own, so that a slow disk keeps it waiting and nobody else. It works in small steps and rests
between them; being killed in the middle of one undoes that step.
"""

from __future__ import annotations

import os
import time
from typing import Any

from actors.child import SupervisedChild
from actors.messages import StopChild
from config.errors import StorageUnavailable
from config.logging import logger
from storage.database import SUPERVISOR_PATIENCE, SingleConnection, database_url
from storage.retention import Retention

#: When the first round begins, and how long after one the next does, in seconds.
_FIRST_SECONDS = 10.0
_ROUND_SECONDS = 600.0
#: It rests this many times as long as a step took, and at least so many seconds: senders come first.
_REST = 4.0
_LEAST_REST_SECONDS = 0.05


class Housekeeper(SupervisedChild):
    """Removes what is older than the retention."""

    def __init__(self) -> None:
        super().__init__()
        self._database = SingleConnection(database_url(self.home, self.settings), patience=SUPERVISOR_PATIENCE)
        self._retention = Retention(self._database, self.settings.retention_days)

    def begin(self) -> None:
        """Begin with the first round in a moment: a start has more urgent work for PostgreSQL."""
        self.wake_after(_FIRST_SECONDS, "step")

    def on_wakeup(self, payload: Any) -> None:
        """Report life, or do one step."""
        if payload == "step":
            self._step()
        else:
            super().on_wakeup(payload)

    def on_stop_child(self, _message: StopChild, _sender: Any) -> None:
        """Leave; every step is whole."""
        self._database.close()
        os._exit(0)

    def _step(self) -> None:
        began = time.monotonic()
        rest = _ROUND_SECONDS
        try:
            if self._retention.step():
                rest = max(_LEAST_REST_SECONDS, _REST * (time.monotonic() - began))
            else:
                self._tell()
        except StorageUnavailable as error:
            logger().warning("History is not removed now", reason=error.sentence)
            rest = 5.0
        self.wake_after(rest, "step")

    def _tell(self) -> None:
        removed = {kind: number for kind, number in self._retention.removed.items() if number}
        if removed:
            logger().info("Removed finished history", days=self.settings.retention_days, **removed)
        self._retention.removed = dict.fromkeys(self._retention.removed, 0)
