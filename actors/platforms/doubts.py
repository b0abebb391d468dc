"""Messages in doubt: the provider is asked what became of them, by our reference or by the id that it gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.platforms.outcomes import Accepted, Rejected, Unknown
from config.errors import SalamanderError
from config.logging import logger
from storage import deliveries, dispatch
from storage.deliveries import Report, reference_of
from storage.dispatch import Doubtful, Ended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.platforms.accounts import Accounts, OpenAccount
    from actors.platforms.contract import PlatformContract
    from actors.platforms.transport import PlatformTransport
    from storage.outbox import Outbox


class Doubts:
    """Settles the messages in doubt of one platform. It waits for the provider, so it has a thread of its own.

    Args:
        contract: the platform.
        outbox: where the messages are.
        accounts: nobody else's, as they are not meant for several threads.
        transport: asks.
    """

    def __init__(
        self, contract: PlatformContract, outbox: Outbox, accounts: Accounts, transport: PlatformTransport
    ) -> None:
        self._contract = contract
        self._outbox = outbox
        self._accounts = accounts
        self._transport = transport

    def settle(self, device_ids: Sequence[int]) -> None:
        """Ask about the recent ones of these devices; an account whose look-up fails is left for the next time.

        Raises:
            StorageUnavailable: PostgreSQL is away; what was not recorded is asked again.
        """
        silent: set[int] = set()
        with self._outbox.database.transaction() as connection:
            every = dispatch.doubtful(connection, device_ids)
        for doubtful in every:
            if doubtful.device_id in silent:
                continue
            account = self._account_of(doubtful.device_id)
            if account is not None and not self._ask_about(doubtful, account):
                silent.add(doubtful.device_id)

    def _account_of(self, device_id: int) -> OpenAccount | None:
        with self._outbox.database.transaction() as connection:
            lanes = dispatch.lanes(connection, [device_id])
        try:
            return self._accounts.open(lanes[0]) if lanes else None
        except SalamanderError:
            return None  # the lane says why

    def _ask_about(self, doubtful: Doubtful, account: OpenAccount) -> bool:
        """Ask about one message; return whether it is worth asking about the next."""
        reference = reference_of(doubtful.message_id, doubtful.secret)
        request = self._contract.build_lookup(reference, account.account)
        if request is None:
            return self._ask_by_id(doubtful, account)
        outcome = self._transport.look_up(request, self._contract, reference, proxy=account.proxy)
        if isinstance(outcome, Accepted):
            told = f" ({outcome.detail})" if outcome.detail else ""
            reason = f"Settled: {self._contract.title} has it{told}."
            self._record(doubtful, reference, "sent", "settled", reason, outcome.provider_id)
            logger().info("Settled by the platform's look-up", device=account.lane.name, message=doubtful.message_id)
        elif isinstance(outcome, Rejected):
            self._record(doubtful, reference, "failed", outcome.code, outcome.reason, None)
        return not isinstance(outcome, Unknown)

    def _ask_by_id(self, doubtful: Doubtful, account: OpenAccount) -> bool:
        """Ask about a message whose reply named an id but no verdict; what is said of it counts like a webhook."""
        provider_id = doubtful.external_id
        if provider_id is None:
            return True
        request = self._contract.build_status(provider_id, doubtful.recipient, account.account)
        if request is None:
            return True
        told = self._transport.ask_status(request, self._contract, provider_id, proxy=account.proxy)
        if told is None:
            return False
        report = Report(told.stage.value, provider_id, reason=told.reason or told.code)
        with self._outbox.database.transaction() as connection:
            moved = deliveries.receive(connection, doubtful.device_id, [report])
        if moved:
            logger().info("Settled by the platform's look-up", device=account.lane.name, message=doubtful.message_id)
        return True

    def _record(
        self, doubtful: Doubtful, reference: str, state: str, code: str, reason: str, provider_id: str | None
    ) -> None:
        ended = Ended(
            doubtful.message_id,
            doubtful.attempt_id,
            doubtful.device_id,
            reference,
            state,
            code,
            reason,
            provider_id,
        )
        with self._outbox.database.transaction() as connection:
            dispatch.exchange(connection, self._outbox.owner, ended=[ended])
