"""The dispatcher of one platform: finds lanes with work, hands each to a worker, records what came of each message.

A lane is with one worker at a time, so its order holds. What the breakers say is wrong with the provider or an account
holds the lanes concerned, and nobody else's.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from actors.platforms import contract_of
from actors.platforms.breakers import BreakerChange, Breakers
from actors.platforms.checks import check_account
from actors.platforms.contract import Account, PlatformMessage
from actors.platforms.outcomes import Accepted, Outcome, Rejected, Retryable, Scope, Unknown
from actors.platforms.transport import PlatformTransport
from config.errors import SalamanderError, StorageUnavailable
from config.logging import logger
from storage import breakers, devices
from storage.credentials import CredentialSeal
from storage.devices import Device
from storage.outbox import Claim, Orphan, Outbox

Result = TypeVar("Result")

#: How often the provider is asked about messages in doubt, in seconds.
_LOOKUP_SECONDS = 15.0
#: How long a worker waits before it asks PostgreSQL again for something that must be recorded, in seconds.
_STORAGE_PAUSE = 1.0
#: How long a lane waits when its account cannot be used at all, in seconds.
_BROKEN_ACCOUNT_SECONDS = 60.0


class Dispatcher(threading.Thread):
    """Finds lanes with work and hands each to a worker."""

    def __init__(
        self,
        platform: str,
        outbox: Outbox,
        seal: CredentialSeal,
        *,
        loopback_allowed: bool,
        workers: int,
        poll_seconds: float,
        patience_seconds: float = 0.0,
    ) -> None:
        super().__init__(name="dispatcher", daemon=True)
        self._contract = contract_of(platform)
        self._outbox = outbox
        self._seal = seal
        self._loopback_allowed = loopback_allowed
        self._poll_seconds = poll_seconds
        self._patience_seconds = patience_seconds
        self._transport = PlatformTransport(connections=workers)
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._hosted: tuple[int, ...] = ()
        self._settled_orphans_of: set[int] = set()
        self._busy: set[int] = set()
        self._busy_changed = threading.Condition()
        self._wake = threading.Event()
        self._leaving = False
        self._next_lookup = 0.0
        self._breakers = Breakers()

    def host(self, device_ids: tuple[int, ...]) -> None:
        """Send for these devices from now on."""
        self._hosted = device_ids
        self._wake.set()

    def wake(self) -> None:
        """Look at the lanes now."""
        self._wake.set()

    def leave(self, seconds: float) -> None:
        """Start nothing new and wait for requests under way, at most ``seconds``."""
        self._leaving = True
        with self._busy_changed:
            self._busy_changed.wait_for(lambda: not self._busy, timeout=seconds)

    def run(self) -> None:
        """Dispatch until told to leave. Whatever goes wrong with one look, the next one comes."""
        self._keep(self._forget_breakers)
        while not self._leaving:
            self._wake.wait(self._poll_seconds)
            self._wake.clear()
            try:
                self._look()
            except StorageUnavailable as error:
                logger().warning("Waiting for PostgreSQL", reason=error.sentence)
                time.sleep(_STORAGE_PAUSE)
            except Exception:  # noqa: BLE001 - a dispatcher that ends silently would stop a whole platform
                logger().exception("A look at the lanes failed")
                time.sleep(_STORAGE_PAUSE)

    def _look(self) -> None:
        for device_id in set(self._hosted) - self._settled_orphans_of:
            self._settle_orphans(device_id)
            self._settled_orphans_of.add(device_id)
        if self._patience_seconds and self._hosted:
            self._outbox.end_patience(self._hosted, self._patience_seconds)
        with self._busy_changed:
            idle = [device_id for device_id in self._hosted if device_id not in self._busy]
        for device_id in self._outbox.lanes_with_work(idle) if idle else []:
            with self._busy_changed:
                self._busy.add(device_id)
            self._workers.submit(self._work, device_id)
        if time.monotonic() > self._next_lookup:
            self._next_lookup = time.monotonic() + _LOOKUP_SECONDS
            self._ask_about_doubtful()

    def _forget_breakers(self) -> None:
        with self._outbox.database.transaction() as connection:
            breakers.clear_platform(connection, self._contract.name)

    # --- sending -----------------------------------------------------------------------------------------

    def _work(self, device_id: int) -> None:
        """Send what is on one lane until it is empty or must wait."""
        try:
            while not self._leaving and self._send_next(device_id):
                pass
        except StorageUnavailable:
            pass  # nothing was claimed; the lane is looked at again
        except Exception:  # noqa: BLE001 - one lane's failure must not end the others' worker
            logger().exception("A lane failed", device_id=device_id)
        finally:
            with self._busy_changed:
                self._busy.discard(device_id)
                self._busy_changed.notify_all()
            self._wake.set()

    def _send_next(self, device_id: int) -> bool:
        """Send the head of the lane; return whether the next one may follow at once."""
        device, account = self._account_of(device_id)
        if account is None:
            return False
        if not self._may_send(device):
            return False
        secret = secrets.token_bytes(32)
        # Repeated with the same secret while PostgreSQL is away: a claim whose answer was lost is given again.
        claim = self._keep(lambda: self._outbox.claim(device_id, secret))
        if claim is None:
            self._breakers.release_probe(device.name)
            return False
        logger().info(
            f"[PLATFORM-SEND] Sending message via {self._contract.title}",
            device=device.name,
            message=claim.message_id,
            attempt=claim.attempt,
        )
        message = PlatformMessage(
            reference=reference_of(claim.message_id, claim.secret),
            to=claim.recipient,
            kind=claim.kind,
            body=claim.body,
            media_url=claim.media_url,
            media_name=claim.media_name,
            to_group="@" in claim.recipient,
        )
        request = self._contract.build_request(message, account)
        outcome = self._transport.send(request, self._contract, proxy=self._proxy_of(device))
        goes_on = self._record(claim, device, outcome)
        for change in self._breakers.note(device.name, outcome, time.monotonic()):
            self._tell_breaker(change)
        return goes_on

    def _may_send(self, device: Device) -> bool:
        """Return whether the breakers before this account let a message through; otherwise its lane waits."""
        seconds, reason = self._breakers.seconds_to_wait(device.name, time.monotonic())
        if seconds > 0.0:
            self._keep(lambda: self._outbox.hold_lane(device.id, seconds, reason))
        return seconds == 0.0

    def _tell_breaker(self, change: BreakerChange) -> None:
        """Log a breaker's new state and show it to people."""
        whom = f"{self._contract.title} account {change.account}" if change.account else self._contract.title
        write = logger().info if change.state == "closed" else logger().warning
        write(f"⚡ The breaker of {whom} is {change.state}", reason=change.reason, failures=change.failures)

        def store() -> None:
            with self._outbox.database.transaction() as connection:
                breakers.show(
                    connection, self._contract.name, change.account, change.state, change.reason, change.failures
                )

        self._keep(store)

    def _account_of(self, device_id: int) -> tuple[Device, Account | None]:
        """Return a device and its account, read afresh; an unusable account holds the lane and says why."""
        with self._outbox.database.transaction() as connection:
            device = devices.by_id(connection, device_id)
        if device is None:
            raise SalamanderError(f"The device {device_id} was removed.")
        try:
            opened = self._seal.open(device.credentials) if device.credentials else {}
            account = check_account(self._contract, device.base_url, opened, loopback_allowed=self._loopback_allowed)
        except SalamanderError as error:
            sentence = error.sentence
            self._keep(lambda: self._outbox.hold_lane(device.id, _BROKEN_ACCOUNT_SECONDS, sentence))
            logger().error("The account cannot be used; its lane waits", device=device.name, reason=error.sentence)
            return device, None
        return device, account

    def _proxy_of(self, device: Device) -> str | None:
        return self._seal.open(device.proxy).get("proxy") if device.proxy else None

    def _record(self, claim: Claim, device: Device, outcome: Outcome) -> bool:
        """Record what came of one request; return whether the lane goes on at once."""
        write = logger().info if isinstance(outcome, Accepted) else logger().warning
        reason = outcome.detail if isinstance(outcome, Accepted) else outcome.reason
        write(
            f"{self._contract.title}: {type(outcome).__name__.lower()}",
            device=device.name,
            message=claim.message_id,
            reason=reason,
        )
        match outcome:
            case Accepted(provider_id, detail):
                self._keep(lambda: self._outbox.sent(claim, provider_id, detail))
                return True
            case Rejected(code, reason, scope):
                self._keep(lambda: self._outbox.failed(claim.message_id, code, reason))
                if scope is not Scope.MESSAGE:
                    # The next message would fare the same; it waits, so that a wrong token costs one message.
                    self._keep(lambda: self._outbox.hold_lane(device.id, _BROKEN_ACCOUNT_SECONDS, reason))
                return scope is Scope.MESSAGE
            case Retryable(code, reason, after_seconds):
                self._keep(lambda: self._outbox.queued_again(claim.message_id, code, reason))
                self._keep(lambda: self._outbox.hold_lane(device.id, after_seconds, reason))
                return False
            case Unknown(code, reason):
                self._keep(lambda: self._outbox.in_doubt(claim.message_id, code, reason, None))
                self._next_lookup = min(self._next_lookup, time.monotonic() + 2.0)
                return True

    def _keep(self, work: Callable[[], Result]) -> Result:
        """Do storage work that must not be lost, however long PostgreSQL is away."""
        while True:
            try:
                return work()
            except StorageUnavailable:
                time.sleep(_STORAGE_PAUSE)

    # --- doubts ------------------------------------------------------------------------------------------

    def _settle_orphans(self, device_id: int) -> None:
        """Put requests whose actor died in doubt: they may have been taken; the provider or a person will say."""
        for orphan in self._outbox.orphans([device_id]):
            reason = "Its process ended while the request was under way."
            self._outbox.in_doubt(orphan.message_id, "process_ended", reason, None)
            logger().warning("In doubt: its process ended", message=orphan.message_id)
            self._next_lookup = 0.0

    def _ask_about_doubtful(self) -> None:
        """Ask the provider what became of messages in doubt, where it can be asked."""
        for doubtful in self._outbox.doubtful(self._hosted):
            if self._leaving or not self._ask_about(doubtful):
                return

    def _ask_about(self, doubtful: Orphan) -> bool:
        """Ask about one message; return whether it is worth asking about the next."""
        device, account = self._account_of(doubtful.device_id)
        reference = reference_of(doubtful.message_id, doubtful.secret)
        request = self._contract.build_lookup(reference, account) if account is not None else None
        if request is None:
            return account is None
        outcome = self._transport.look_up(request, self._contract, reference, proxy=self._proxy_of(device))
        if isinstance(outcome, Accepted):
            reason = f"Settled: {self._contract.title} has it ({outcome.detail})." if outcome.detail else "Settled."
            self._outbox.settled_as_sent(doubtful.message_id, outcome.provider_id, reason)
            logger().info("Settled by the platform's look-up", device=device.name, message=doubtful.message_id)
        elif isinstance(outcome, Rejected):
            self._outbox.failed(doubtful.message_id, outcome.code, outcome.reason)
        return not isinstance(outcome, Unknown)


def reference_of(message_id: int, secret: bytes) -> str:
    """Return our name for an attempt at a provider: unique for ever, and found again from the attempt's row."""
    return f"{message_id}-{secret.hex()[:16]}"
