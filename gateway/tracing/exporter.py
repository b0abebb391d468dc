"""The exporter: reads what became of traced messages, and posts it as spans to the collector.

One thread. A turn reads what is new, posts it, and only then notes that it is told; killed in between, it tells the
same again under the same ids. While the collector is away nothing waits but the rows, for a day.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from config.errors import StorageUnavailable
from config.logging import logger
from gateway.tracing import spans
from gateway.tracing.collector import Collector, NotTaken
from storage import traces

if TYPE_CHECKING:
    from gateway.tracing.requests import AnsweredRequest, AnsweredRequests
    from gateway.tracing.spans import Span
    from storage.database import Database
    from storage.traces import News

#: How often it looks for something new, in seconds.
_POLL_SECONDS = 0.5
#: How long a collector that takes nothing is left alone: at first, and at last, in seconds.
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
#: Spans in one request, at most: some hundred kilobytes.
_SPANS_AT_ONCE = 500
#: How often it removes what is kept no longer, in seconds.
_TIDY_SECONDS = 600.0


class Exporter(threading.Thread):
    """Exports until told to leave.

    Args:
        database: one connection is used.
        owner: this installation, as its router writes it.
        answered: the HTTP requests of this process.
        collector: takes the spans.
    """

    def __init__(self, database: Database, owner: str, answered: AnsweredRequests, collector: Collector) -> None:
        super().__init__(name="traces", daemon=True)
        self._database = database
        self._owner = owner
        self._answered = answered
        self._collector = collector
        self._tidied = 0.0
        self._failures = 0
        self._leaving = threading.Event()

    def run(self) -> None:
        """Export until told to leave, whatever happens."""
        pause = 0.0
        while not self._leaving.wait(pause):
            pause = _LONGEST_PAUSE_SECONDS
            try:
                pause = 0.0 if self._turn() else _POLL_SECONDS
                self._taken()
            except NotTaken as refused:
                pause = self._not_taken(str(refused))
            except StorageUnavailable:
                pause = _FIRST_PAUSE_SECONDS  # whoever cannot do without it has said so
            except Exception as error:  # noqa: BLE001 - the exporter must live on, whatever happened
                logger().error("The exporter of traces failed at a turn; it goes on", exc_info=error)

    def leave(self, seconds: float) -> None:
        """Begin no turn any more, and wait for the one under way at most so long. What is not told is told later."""
        self._leaving.set()
        self.join(seconds)

    def _turn(self) -> bool:
        """Read, post, note; return whether there is more at once."""
        with self._database.transaction() as connection:
            # Taken first: of whatever was answered by now, the rows below are there, too.
            answered = self._answered.take()
            try:
                told = traces.news(connection, self._owner, self._answered.since)
            except BaseException:
                self._answered.put_back(answered)
                raise
        try:
            made, requests = _spans_of(told, answered)
            for first in range(0, len(made), _SPANS_AT_ONCE):
                if refused := self._collector.post(made[first : first + _SPANS_AT_ONCE]):
                    logger().error("The collector of traces refused spans; they are lost", why=refused)
            with self._database.transaction() as connection:
                traces.exported(connection, self._owner, told, requests)
        except BaseException:
            self._answered.put_back(answered)
            raise
        self._tidy()
        return told.more

    def _tidy(self) -> None:
        now = time.monotonic()
        if self._tidied and now - self._tidied < _TIDY_SECONDS:
            return
        with self._database.transaction() as connection:
            traces.forget(connection)
        self._tidied = now

    def _taken(self) -> None:
        if self._failures:
            self._failures = 0
            logger().info("The collector takes traces again")

    def _not_taken(self, why: str) -> float:
        """Say once that traces wait; return for how long, in seconds."""
        if not self._failures:
            logger().warning("Traces wait: the collector at traces_endpoint takes none; messages go on", why=why)
        self._failures += 1
        return min(_FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 10), _LONGEST_PAUSE_SECONDS)


def _spans_of(told: News, answered: list[AnsweredRequest]) -> tuple[list[Span], list[bytes]]:
    """Return the spans to post, and the ids of those among them that are requests."""
    requests = {each.span_id: each for each in map(spans.of_answered, answered)}
    for request in told.unanswered:
        requests.setdefault(request.span_id, spans.of_unanswered(request))
    steps = [made for step in told.steps if (made := spans.of_step(step)) is not None]
    return [*requests.values(), *steps], list(requests)
