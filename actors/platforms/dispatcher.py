"""The dispatcher of one platform: finds lanes with work, gives their messages to workers, records what came of them.

One thread does all that touches PostgreSQL, in turns: a turn records every outcome that came in since the last one and
claims the next messages of all lanes that may go on, in one transaction. So the more lanes there are, the more messages
share one wait for the disk. Workers do nothing but send.

A message is claimed only when a worker is free for it, and a lane has one message under way at a time, so its order
holds (unless the installation allows more: see ``in_flight``). What the breakers say is wrong with the provider or an
account, and a pace that is not over, make the lanes concerned wait, and nobody else's.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from actors.platforms import contract_of
from actors.platforms.accounts import Accounts, OpenAccount
from actors.platforms.breakers import BreakerChange, Breakers
from actors.platforms.contract import PlatformMessage
from actors.platforms.doubts import Doubts
from actors.platforms.outcomes import Accepted, Outcome, Rejected, Scope, Unknown
from actors.platforms.transport import PlatformTransport
from actors.platforms.verdicts import BROKEN_ACCOUNT_SECONDS, Verdict, verdict_on
from actors.platforms.workers import Workers
from config.errors import SalamanderError, StorageUnavailable
from config.logging import logger
from storage import breakers, dispatch
from storage.deliveries import reference_of
from storage.dispatch import Ended, Head, Hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from storage.credentials import CredentialSeal
    from storage.outbox import Claim, Orphan, Outbox

Result = TypeVar("Result")

#: How often the provider is asked about messages in doubt, and how soon after one came to be, in seconds.
_LOOKUP_SECONDS = 15.0
_FIRST_LOOKUP_SECONDS = 2.0
#: How often requests without an outcome that nobody is at are looked for, and how old they must be, in seconds: far
#: older than any request may take.
_LOOK_FOR_STRANDED_SECONDS = 60.0
_STRANDED_SECONDS = 900.0
#: The pause before PostgreSQL is asked again for something that must be recorded, in seconds.
_STORAGE_PAUSE = 1.0
#: A lane that must wait no longer than this is remembered here; a longer wait is a row, which people see, in seconds.
_REST_SECONDS = 2.0
#: With more messages than this under way, a turn waits a little, so that more of them share it; in seconds.
_CROWD = 16
_GATHER_SECONDS = 0.005
#: How long a thread may compute while another wants to, in seconds.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class _Sending:
    """A message on its way."""

    claim: Claim
    account: OpenAccount


@dataclass(frozen=True)
class _Finished(_Sending):
    """A message whose request is over."""

    outcome: Outcome


class Dispatcher(threading.Thread):
    """Finds lanes with work and has their messages sent.

    Args:
        platform: the platform's name.
        outbox: where the messages are.
        seal: opens the accounts' credentials.
        loopback_allowed: the simulator runs.
        workers: how many requests may be under way at once.
        poll_seconds: how often lanes are looked at without a hint.
        in_flight: how many messages of one account may be under way at once, never more than its platform takes; with
            more than one, messages may overtake each other. A lane with limits of its own has one.
        patience_seconds: how long a message may be in doubt before it is sent again; 0: for ever.
        rules_everywhere: every lane has to obey rules, so each claim asks them.
        callback_url_of: the address at which the platform may report about a device of this name; "": nowhere.
    """

    def __init__(
        self,
        platform: str,
        outbox: Outbox,
        seal: CredentialSeal,
        *,
        loopback_allowed: bool,
        workers: int,
        poll_seconds: float,
        in_flight: int = 1,
        patience_seconds: float = 0.0,
        rules_everywhere: bool = False,
        callback_url_of: Callable[[str], str] = lambda _name: "",
    ) -> None:
        super().__init__(name="dispatcher", daemon=True)
        self._contract = contract_of(platform)
        self._outbox = outbox
        self._poll_seconds = poll_seconds
        self._patience_seconds = patience_seconds
        self._rules_everywhere = rules_everywhere
        self._transport = PlatformTransport(connections=workers)
        self._worker_count = workers
        self._in_flight = max(1, min(in_flight, self._contract.limits.max_in_flight))
        self._workers = Workers(workers, self._send)
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="doubts")

        def accounts() -> Accounts:
            return Accounts(self._contract, seal, loopback_allowed=loopback_allowed, callback_url_of=callback_url_of)

        self._accounts = accounts()
        self._doubts = Doubts(self._contract, outbox, accounts(), self._transport)
        self._breakers = Breakers()
        # What other threads tell.
        self._wake = threading.Event()
        self._leaving = False
        self._hosted: frozenset[int] = frozenset()
        self._hints: SimpleQueue[Iterable[int]] = SimpleQueue()
        self._finished: SimpleQueue[_Finished] = SimpleQueue()
        # The lanes: those to claim from, in turn; how many messages each has under way; which rest, and until when.
        self._ready: dict[int, None] = {}
        self._busy: Counter[int] = Counter()
        #: Those among the busy ones that have limits of their own, so that they send one message after the other.
        self._limited: set[int] = set()
        self._resting: dict[int, float] = {}
        self._settled_orphans_of: frozenset[int] = frozenset()
        self._next_poll = 0.0
        self._next_lookup = 0.0
        self._next_stranded = 0.0
        self._is_asking = False

    # --- what others tell --------------------------------------------------------------------------------

    def host(self, device_ids: tuple[int, ...]) -> None:
        """Send for these devices from now on."""
        self._hosted = frozenset(device_ids)
        self._next_poll = 0.0
        self._wake.set()

    def wake(self, device_ids: Iterable[int]) -> None:
        """Look at these lanes now: they have work."""
        self._hints.put(device_ids)
        self._wake.set()

    def leave(self, seconds: float) -> None:
        """Start nothing new; wait until requests under way are over and recorded, at most ``seconds``."""
        self._leaving = True
        self._wake.set()
        self.join(seconds)

    # --- turns -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Dispatch until told to leave. Whatever goes wrong in one turn, the next one comes."""
        # The one thread that every lane waits for must not wait 5 ms (Python's default) for each worker that computes.
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._keep(self._forget_breakers)
        while not self._leaving or self._busy:
            self._wake.wait(self._seconds_to_wait())
            if self._busy.total() > _CROWD:
                time.sleep(_GATHER_SECONDS)
            self._wake.clear()
            try:
                self._turn()
            except StorageUnavailable as error:
                logger().warning("Waiting for PostgreSQL", reason=error.sentence)
                time.sleep(_STORAGE_PAUSE)
            except Exception:  # noqa: BLE001 - a dispatcher that ends silently would stop a whole platform
                logger().exception("A turn of the lanes failed")
                time.sleep(_STORAGE_PAUSE)
        self._workers.leave()
        self._asking.shutdown(wait=False)
        self._transport.close()

    def _seconds_to_wait(self) -> float:
        if self._ready and self._busy.total() < self._worker_count and not self._leaving:
            return 0.0
        now = time.monotonic()
        due = min(self._next_poll, *self._resting.values()) if self._resting else self._next_poll
        return min(self._poll_seconds, max(0.0, due - now))

    def _turn(self) -> None:
        if not self._leaving:
            self._find_work(time.monotonic())
        finished = self._take_finished()
        now = time.monotonic()
        holds: list[Hold] = []
        ended, changes = self._judge(finished, holds, now)
        attempts = {} if self._leaving else self._choose(holds, changes, now)
        heads = self._exchange(ended, holds, changes, attempts)
        self._tell(changes)
        given_back: list[BreakerChange] = []
        for head in heads:
            given_back += self._start(head, attempts[head.lane.device_id])
        self._exchange([], [], given_back, {})

    def _forget_breakers(self) -> None:
        with self._outbox.database.transaction() as connection:
            breakers.clear_platform(connection, self._contract.name)

    # --- finding work ------------------------------------------------------------------------------------

    def _find_work(self, now: float) -> None:
        """Learn which lanes may have something to send: by hints, by the end of their rest, by looking."""
        for device_id in [device_id for device_id, until in self._resting.items() if until <= now]:
            del self._resting[device_id]
            self._ready[device_id] = None
        while True:
            try:
                hinted = self._hints.get_nowait()
            except Empty:
                break
            self._make_ready(hinted)
        if now >= self._next_poll:
            self._next_poll = now + self._poll_seconds
            self._look()
        if now >= self._next_lookup and not self._is_asking:
            self._next_lookup = now + _LOOKUP_SECONDS
            self._is_asking = True
            self._asking.submit(self._ask_about_doubtful)

    def _look(self) -> None:
        """Look at every lane, whatever was told and whatever was missed."""
        hosted = self._hosted
        if hosted != self._settled_orphans_of:
            fresh = hosted - self._settled_orphans_of
            self._settle_orphans(self._outbox.orphans(fresh) if fresh else ())
            self._settled_orphans_of = hosted
            self._accounts.keep_only(hosted)
        if time.monotonic() >= self._next_stranded:
            self._next_stranded = time.monotonic() + _LOOK_FOR_STRANDED_SECONDS
            idle = hosted - self._busy.keys()
            self._settle_orphans(self._outbox.stranded(idle, _STRANDED_SECONDS) if idle else ())
        if self._patience_seconds and hosted:
            self._outbox.end_patience(hosted, self._patience_seconds)
        self._heed_reports()
        full = {device_id for device_id in self._busy if not self._has_room(device_id)}
        idle = hosted - full - self._ready.keys() - self._resting.keys()
        self._make_ready(self._outbox.lanes_with_work(idle) if idle else ())

    def _heed_reports(self) -> None:
        """Open the breakers of accounts that the gateway was told about: what they send would fare the same."""
        with self._outbox.database.transaction() as connection:
            reported = breakers.reported(connection, self._contract.name)
        for account, reason in reported.items():
            if self._breakers.trip(account, reason, time.monotonic()):
                self._tell([BreakerChange(account, "open", reason, 0)])

    def _make_ready(self, device_ids: Iterable[int]) -> None:
        for device_id in device_ids:
            if device_id in self._hosted and device_id not in self._resting and self._has_room(device_id):
                self._ready[device_id] = None

    def _has_room(self, device_id: int) -> bool:
        """Return whether one more message of an account may be under way."""
        return self._busy[device_id] < (1 if device_id in self._limited else self._in_flight)

    def _choose(self, holds: list[Hold], changes: list[BreakerChange], now: float) -> dict[int, bytes]:
        """Return the lanes that may claim now, each with the secret of its attempt; others wait or rest."""
        free = self._worker_count - self._busy.total()
        chosen = list(islice(self._ready, free))
        if not chosen:
            return {}
        for device_id in chosen:
            del self._ready[device_id]
        self._open_accounts(chosen, holds, changes)
        recipients = self._recipients_of(chosen)
        attempts = {}
        for device_id in chosen:
            account = self._accounts.known(device_id)
            if account is None or device_id not in self._hosted:
                continue
            # The pace first: a lane that rests must not use up a breaker's probe.
            seconds = account.pace.seconds_to_wait(now, recipients.get(device_id, "")) if account.pace else 0.0
            if 0.0 < seconds <= _REST_SECONDS:
                self._resting[device_id] = now + seconds
                continue
            reason = f"{self._contract.title} takes no more messages at once, to this recipient or altogether."
            if seconds == 0.0:
                seconds, reason, changed = self._breakers.let_through(account.lane.name, account.provider, now)
                changes += changed
            if seconds > 0.0:
                holds.append(Hold(device_id, seconds, reason))
            else:
                attempts[device_id] = secrets.token_bytes(32)
        return attempts

    def _open_accounts(self, device_ids: list[int], holds: list[Hold], changes: list[BreakerChange]) -> None:
        """Open the accounts that are not open yet; one that cannot be used holds its lane and says why."""
        fresh = [device_id for device_id in device_ids if self._accounts.known(device_id) is None]
        if not fresh:
            return

        def read() -> list[dispatch.Lane]:
            with self._outbox.database.transaction() as connection:
                return dispatch.lanes(connection, fresh)

        for lane in self._keep(read):
            # A device that was removed and added again, with better credentials as it may be, owes nothing.
            changes += self._breakers.forget(lane.name)
            self._account_of(lane, holds)

    def _account_of(self, lane: dispatch.Lane, holds: list[Hold]) -> OpenAccount | None:
        try:
            return self._accounts.open(lane)
        except SalamanderError as error:
            holds.append(Hold(lane.device_id, BROKEN_ACCOUNT_SECONDS, error.sentence))
            logger().error("The account cannot be used; its lane waits", device=lane.name, reason=error.sentence)
            return None

    def _recipients_of(self, device_ids: list[int]) -> dict[int, str]:
        """Return whom the lanes' next messages go to, where the platform has a pace for each recipient."""
        if not self._contract.limits.seconds_per_recipient:
            return {}

        def read() -> dict[int, str]:
            with self._outbox.database.transaction() as connection:
                return dispatch.recipients(connection, device_ids)

        return self._keep(read)

    # --- sending -----------------------------------------------------------------------------------------

    def _start(self, head: Head, secret: bytes) -> list[BreakerChange]:
        """Give what was claimed from a lane to a worker; return the breakers whose probe found nothing to try."""
        device_id, claim = head.lane.device_id, head.claim
        if claim is None and head.limited:
            claim = self._keep(lambda: self._outbox.claim(device_id, secret))
        if claim is None:
            if head.again:
                self._ready[device_id] = None
            known = self._accounts.known(device_id)
            return [] if known is None else self._breakers.give_back(known.lane.name, known.provider)
        holds: list[Hold] = []
        account = self._account_of(head.lane, holds)
        if account is None:
            verdict = Verdict("queued", "account_not_usable", holds[0].reason)
            self._exchange([_ended(claim, verdict)], holds, [], {})
            return []
        if account.pace is not None:
            account.pace.note(time.monotonic(), claim.recipient)
        self._busy[device_id] += 1
        if head.limited:
            self._limited.add(device_id)
        self._make_ready((device_id,))
        self._workers.give(_Sending(claim, account), self._busy.total())
        return []

    def _send(self, sending: _Sending) -> None:
        """Send one message, in a worker's thread; nothing raises."""
        claim, account = sending.claim, sending.account
        line = logger(device=account.lane.name, message=claim.message_id)
        line.info(f"[PLATFORM-SEND] Sending message via {self._contract.title}", attempt=claim.attempt)
        message = PlatformMessage(
            reference=reference_of(claim.message_id, claim.secret),
            to=claim.recipient,
            kind=claim.kind,
            body=claim.body,
            media_url=claim.media_url,
            media_name=claim.media_name,
            to_group="@" in claim.recipient,
        )
        outcome: Outcome
        try:
            request = self._contract.build_request(message, account.account)
        except Exception as error:  # noqa: BLE001 - nothing was sent yet; its text may hold a credential
            reason = f"the request cannot be made ({type(error).__name__})"
            outcome = Rejected("request_invalid", reason, Scope.MESSAGE)
        else:
            outcome = self._transport.send(request, self._contract, proxy=account.proxy)
        write, told = (line.info, outcome.detail) if isinstance(outcome, Accepted) else (line.warning, outcome.reason)
        write(f"{self._contract.title}: {type(outcome).__name__.lower()}", reason=told)
        self._finished.put(_Finished(claim, account, outcome))
        self._wake.set()

    # --- outcomes ----------------------------------------------------------------------------------------

    def _take_finished(self) -> list[_Finished]:
        taken = []
        while True:
            try:
                taken.append(self._finished.get_nowait())
            except Empty:
                return taken

    def _judge(
        self, finished: list[_Finished], holds: list[Hold], now: float
    ) -> tuple[list[Ended], list[BreakerChange]]:
        """Decide what follows from outcomes: for each message, for its lane, for the breakers."""
        ended: list[Ended] = []
        changes: list[BreakerChange] = []
        for each in finished:
            device_id = each.claim.device_id
            self._busy[device_id] -= 1
            if not self._busy[device_id]:
                del self._busy[device_id]
                self._limited.discard(device_id)
            verdict = verdict_on(each.outcome, each.claim.attempt, self._contract.limits.retry)
            ended.append(_ended(each.claim, verdict))
            changes += self._breakers.note(each.account.lane.name, each.account.provider, each.outcome, now)
            if verdict.hold_seconds is None:
                self._ready[device_id] = None
            else:
                holds.append(Hold(device_id, verdict.hold_seconds, verdict.reason))
            if isinstance(each.outcome, Unknown):
                self._next_lookup = min(self._next_lookup, now + _FIRST_LOOKUP_SECONDS)
        return ended, changes

    def _exchange(
        self, ended: list[Ended], holds: list[Hold], changes: list[BreakerChange], attempts: dict[int, bytes]
    ) -> list[Head]:
        """Record what came of messages and claim the next ones, in one transaction, however long it takes."""
        if not (ended or holds or changes or attempts):
            return []
        again = False

        def exchange() -> list[Head]:
            nonlocal again
            repeated, again = again, True
            with self._outbox.database.transaction() as connection:
                for change in changes:
                    breakers.show(
                        connection, self._contract.name, change.account, change.state, change.reason, change.failures
                    )
                return dispatch.exchange(
                    connection,
                    self._outbox.owner,
                    ended=ended,
                    holds=holds,
                    secrets={} if self._rules_everywhere else attempts,
                    again=repeated,
                )

        heads = self._keep(exchange)
        return self._heads_under_rules(attempts) if self._rules_everywhere else heads

    def _heads_under_rules(self, attempts: dict[int, bytes]) -> list[Head]:
        """Return the lanes as such that must ask the rules before they claim."""
        opened = [self._accounts.known(device_id) for device_id in attempts]
        return [Head(each.lane, None, limited=True, again=False) for each in opened if each is not None]

    def _tell(self, changes: list[BreakerChange]) -> None:
        """Log what breakers did."""
        for change in changes:
            whom = f"{self._contract.title} {'at' if change.is_provider else 'account'} {change.account}"
            whom = whom if change.account else self._contract.title
            write = logger().info if change.state == "closed" else logger().warning
            write(f"⚡ The breaker of {whom} is {change.state}", reason=change.reason, failures=change.failures)

    def _keep(self, work: Callable[[], Result]) -> Result:
        """Do storage work that must not be lost, however long PostgreSQL is away."""
        while True:
            try:
                return work()
            except StorageUnavailable:
                time.sleep(_STORAGE_PAUSE)

    # --- doubts ------------------------------------------------------------------------------------------

    def _settle_orphans(self, orphans: Sequence[Orphan]) -> None:
        """Put requests that nobody is at in doubt: they may have been taken; the provider or a person will say."""
        if not orphans:
            return
        reason = "Its process ended while the request was under way."
        ended = [
            Ended(
                orphan.message_id,
                orphan.attempt_id,
                orphan.device_id,
                reference_of(orphan.message_id, orphan.secret),
                "in_doubt",
                "process_ended",
                reason,
            )
            for orphan in orphans
        ]
        self._exchange(ended, [], [], {})
        for each in ended:
            logger().warning("In doubt: its process ended", message=each.message_id)
            self._next_lookup = 0.0

    def _ask_about_doubtful(self) -> None:
        """Ask the provider what became of messages in doubt, in a thread of its own."""
        try:
            self._doubts.settle(tuple(self._hosted))
        except StorageUnavailable:
            pass  # asked again soon
        except Exception:  # noqa: BLE001 - as above: the next time comes
            logger().exception("The provider could not be asked about messages in doubt")
        finally:
            self._is_asking = False


def _ended(claim: Claim, verdict: Verdict) -> Ended:
    return Ended(
        claim.message_id,
        claim.attempt_id,
        claim.device_id,
        reference_of(claim.message_id, claim.secret),
        verdict.state,
        verdict.code,
        verdict.reason,
        verdict.external_id,
    )
