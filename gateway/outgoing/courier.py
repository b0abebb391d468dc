"""The courier: takes what endpoints are still to be told, lets workers tell it, and records what came of it.

One thread with one transaction a turn: outcomes recorded, the next deliveries claimed. An endpoint has workers of its
own, so that one that hangs delays no other; a lane (its events of one device) is worked on by one of them at a time, in
order. A delivery that failed ends the lane's run: what follows waits with it, until its next attempt or until an
endpoint that was down takes something again. Killed at any time, it leaves claims that
its successor gives back, and at worst tells again what was told but not recorded.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.endpoint_client import open_secret
from actors.platforms.workers import Workers
from config.errors import SalamanderError, StorageUnavailable
from config.logging import logger
from gateway.outgoing.posting import Poster, Target
from gateway.outgoing.verdicts import judge
from storage import endpoint_deliveries, endpoints
from storage.endpoint_deliveries import Delivery, Lane, Tried

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.public_addresses import Network
    from storage.credentials import CredentialSeal
    from storage.database import Database
    from storage.endpoints import Endpoint

#: Lanes of one endpoint that are worked on at once, and deliveries of a lane that are claimed at once.
LANES_AT_ONCE = 8
_RUN = 16
#: A run begins no further delivery after this long: with the attempt under way it must end before the claim does.
_RUN_SECONDS = 20.0
#: How often the courier looks for work: while there are endpoints, and while there are none, in seconds.
_POLL_SECONDS = 0.25
_IDLE_SECONDS = 1.0
#: An endpoint that took nothing for this long was down; when it takes something again, the lanes that wait for it are
#: tried within the second of these. (While it takes what others are told, a lane that waits has a trouble of its own.)
_DOWN_SECONDS = 30.0
_FORWARD_SECONDS = 5.0
#: How long it leaves PostgreSQL alone that is away, and how often it tidies up, in seconds.
_PAUSE_SECONDS = 1.0
_TIDY_SECONDS = 60.0


@dataclass
class _Work:
    """A run of deliveries of one lane, on its way to a worker."""

    target: Target
    lane: Lane
    deliveries: list[Delivery]


@dataclass
class _Outcomes:
    """What workers have to say: attempts to record, deliveries to give back, lanes that are free again."""

    tried: list[Tried] = field(default_factory=list)
    untried: list[int] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.tried or self.untried or self.lanes)

    def before(self, later: _Outcomes) -> _Outcomes:
        """Return these and later ones together."""
        return _Outcomes(self.tried + later.tried, self.untried + later.untried, self.lanes + later.lanes)


class Courier(threading.Thread):
    """Delivers until told to leave.

    Args:
        database: where endpoints and deliveries are; one connection is used.
        seal: opens the endpoints' secrets.
        owner: this installation, whose claims outlive a killed process.
        networks: private networks that endpoints may be in.
        told: is called with every attempt's outcome, for the metrics.
    """

    def __init__(
        self,
        database: Database,
        seal: CredentialSeal,
        owner: str,
        networks: tuple[Network, ...] = (),
        told: Callable[[Tried], None] | None = None,
    ) -> None:
        super().__init__(name="courier", daemon=True)
        self._database = database
        self._seal = seal
        self._owner = owner
        self._poster = Poster(networks, LANES_AT_ONCE)
        self._told = told
        self._workers: dict[int, Workers[_Work]] = {}
        self._busy: set[Lane] = set()
        self._failing: set[int] = set()
        #: When each endpoint took something last.
        self._took: dict[int, float] = {}
        #: Secrets that were opened, by what they were sealed to: opening takes longer than all the rest of a turn.
        self._secrets: dict[bytes, str] = {}
        self._changed = threading.Condition()
        self._outcomes = _Outcomes()
        self._leaving = False
        self._fresh = True
        self._tidied = time.monotonic()

    # --- the thread ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Deliver until told to leave, whatever happens."""
        while not (self._leaving and not self._busy):
            pause = _PAUSE_SECONDS
            try:
                pause = _POLL_SECONDS if self._turn() else _IDLE_SECONDS
            except StorageUnavailable as error:
                logger().warning("Webhooks wait: their rows cannot be read", reason=error.sentence)
                if self._leaving:
                    break
                time.sleep(_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - the courier must live on, whatever happened
                logger().error("The courier failed at a turn; it goes on", exc_info=error)
                time.sleep(_PAUSE_SECONDS)
            with self._changed:
                if not self._outcomes and not self._leaving:
                    self._changed.wait(pause)
        for workers in self._workers.values():
            workers.leave()

    def leave(self, seconds: float) -> None:
        """Claim nothing more, let attempts under way end, and record them; wait for that at most so long."""
        with self._changed:
            self._leaving = True
            self._changed.notify()
        self.join(seconds)

    def _turn(self) -> bool:
        """Record, claim, hand out; return whether there are endpoints."""
        began = time.monotonic()
        with self._changed:
            outcomes, self._outcomes = self._outcomes, _Outcomes()
        try:
            with self._database.transaction() as connection:
                if self._fresh:
                    endpoint_deliveries.release_owner(connection, self._owner)
                if outcomes.tried:
                    endpoint_deliveries.record(connection, outcomes.tried)
                took = {each.delivery.endpoint_id for each in outcomes.tried if each.state == "delivered"}
                back = sorted(each for each in took if began - self._took.get(each, 0.0) > _DOWN_SECONDS)
                if back:
                    endpoint_deliveries.bring_forward(connection, back, _FORWARD_SECONDS)
                if outcomes.untried:
                    endpoint_deliveries.release(connection, outcomes.untried)
                known = {each.id: each for each in endpoints.all_endpoints(connection)}
                busy = self._busy.difference(outcomes.lanes)
                targets = {} if self._leaving else self._targets(known)
                free = _free_lanes(targets, busy)
                runs = {}
                if free:
                    runs = endpoint_deliveries.claim(connection, self._owner, free, busy=busy, run=_RUN)
        except BaseException:
            with self._changed:
                self._outcomes = outcomes.before(self._outcomes)
            raise
        self._fresh = False
        self._took |= dict.fromkeys(took, began)
        self._busy = busy | runs.keys()
        self._report(outcomes.tried)
        for (endpoint_id, lane), deliveries in runs.items():
            self._give(endpoint_id, _Work(targets[endpoint_id], (endpoint_id, lane), deliveries))
        self._dismiss(known)
        self._tidy()
        return bool(targets)

    def _targets(self, known: dict[int, Endpoint]) -> dict[int, Target]:
        """Return the endpoints that can be told something now."""
        targets, before = {}, self._secrets
        self._secrets = {}
        for endpoint in known.values():
            if endpoint.enabled:
                try:
                    secret = before.get(endpoint.secret) or open_secret(self._seal, endpoint.secret)
                except SalamanderError as error:
                    logger().error("An endpoint's secret cannot be opened", endpoint=endpoint.id, reason=error.sentence)
                else:
                    self._secrets[endpoint.secret] = secret
                    targets[endpoint.id] = Target(endpoint.url, secret)
        return targets

    def _give(self, endpoint_id: int, work: _Work) -> None:
        workers = self._workers.get(endpoint_id)
        if workers is None:
            workers = self._workers[endpoint_id] = Workers(LANES_AT_ONCE, self._work)
        workers.give(work, sum(1 for busy_id, _ in self._busy if busy_id == endpoint_id))

    def _dismiss(self, known: dict[int, Endpoint]) -> None:
        """Let the workers of removed endpoints go."""
        for endpoint_id in self._workers.keys() - known.keys():
            self._workers.pop(endpoint_id).leave()

    def _tidy(self) -> None:
        if time.monotonic() - self._tidied < _TIDY_SECONDS:
            return
        with self._database.transaction() as connection:
            more = endpoint_deliveries.forget(connection)
        if not more:
            self._tidied = time.monotonic()

    def _report(self, tried: list[Tried]) -> None:
        """Tell the log when an endpoint begins to fail, works again, or will never know something."""
        for each in tried:
            endpoint_id = each.delivery.endpoint_id
            if self._told is not None:
                self._told(each)
            if each.state == "delivered":
                if endpoint_id in self._failing:
                    self._failing.discard(endpoint_id)
                    logger().info("A webhook endpoint takes deliveries again", endpoint=endpoint_id)
                continue
            if each.gone:
                logger().error("🚨 A webhook endpoint is gone; it is switched off", endpoint=endpoint_id)
            elif each.state == "dead":
                logger().error("🚨 A webhook is a dead letter", endpoint=endpoint_id, delivery=each.delivery.id)
            elif endpoint_id not in self._failing:
                logger().warning("A webhook endpoint fails; it is tried again", endpoint=endpoint_id, why=each.problem)
            self._failing.add(endpoint_id)

    # --- the workers -----------------------------------------------------------------------------------------

    def _work(self, work: _Work) -> None:
        """Tell an endpoint the deliveries of a run in order, until one fails."""
        began = time.monotonic()
        left = list(work.deliveries)
        with suppress(Exception):
            while left and left[0].due and not self._leaving and time.monotonic() - began < _RUN_SECONDS:
                outcome = self._poster.post(work.target, left[0])
                tried = judge(left.pop(0), outcome, random.random())  # noqa: S311 - jitter
                self._say(_Outcomes([tried]))
                if tried.state != "delivered":
                    break
        self._say(_Outcomes([], [each.id for each in left], [work.lane]))

    def _say(self, outcomes: _Outcomes) -> None:
        with self._changed:
            self._outcomes = self._outcomes.before(outcomes)
            self._changed.notify()


def _free_lanes(targets: dict[int, Target], busy: set[Lane]) -> dict[int, int]:
    """Return of how many lanes each endpoint may be told something now."""
    under_way: dict[int, int] = dict.fromkeys(targets, 0)
    for endpoint_id, _ in busy:
        under_way[endpoint_id] = under_way.get(endpoint_id, 0) + 1
    return {each: LANES_AT_ONCE - under_way[each] for each in targets if under_way[each] < LANES_AT_ONCE}
