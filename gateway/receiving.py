"""What a webhook comes to: believed or not, read, written down and applied before it is acknowledged."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from actors.platforms import contract_of
from actors.platforms.checks import check_account
from actors.platforms.contract import REFERENCE_FIELD
from actors.platforms.outcomes import Scope
from config.errors import NotFound, SalamanderError, StorageUnavailable
from config.logging import logger
from config.webhooks import webhook_path, webhook_secret
from storage import breakers, deliveries, devices, dispatch
from storage.deliveries import Report
from storage.dispatch import Hold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.platforms.contract import Account, PlatformContract
    from actors.platforms.webhooks import DeliveryReport
    from config.home import Home
    from storage.credentials import CredentialSeal
    from storage.database import Connection, Database
    from storage.devices import Device

#: How long a lane waits when its provider reports that the sender itself is in trouble, in seconds.
_TROUBLE_SECONDS = 300.0


@dataclass(frozen=True)
class Webhook:
    """One webhook: for which device, and as it came, byte for byte."""

    device: str
    headers: Mapping[str, str]
    body: bytes
    query: str = ""


class Receiver:
    """Takes webhooks for the devices of one home. Safe for several threads.

    Args:
        home: its key makes the secrets of the addresses.
        database: where devices, messages and reports are.
        seal: opens credentials, which signatures are verified with.
        base_url: the address under which providers know the listener; a signature may cover it.
        loopback_allowed: the simulator runs.
    """

    def __init__(
        self, home: Home, database: Database, seal: CredentialSeal, *, base_url: str, loopback_allowed: bool
    ) -> None:
        self._home = home
        self._database = database
        self._seal = seal
        self._base_url = base_url
        self._loopback_allowed = loopback_allowed

    def knows(self, device: str, secret: str) -> bool:
        """Return whether ``secret`` is the one in the device's address; it takes as long wherever it is wrong."""
        expected = webhook_secret(self._home, device)
        return hmac.compare_digest(expected.encode(), secret.encode("utf-8", "surrogatepass"))

    def challenge(self, device: str, query: Mapping[str, str]) -> str | None:
        """Return the answer to the request by which a provider tries the address; None: refuse it.

        Raises:
            StorageUnavailable: PostgreSQL is away.
        """
        try:
            with self._database.transaction() as connection:
                _, contract, account = self._account(connection, device)
            return contract.answer_challenge(query, account)
        except StorageUnavailable:
            raise
        except SalamanderError:
            return None

    def take(self, webhook: Webhook) -> HTTPStatus:
        """Take one webhook and return the status to answer with; only ``OK`` says that nothing of it can be lost."""
        try:
            return self._take(webhook)
        except NotFound:
            return HTTPStatus.NOT_FOUND
        except SalamanderError as error:
            # It is delivered again later, when PostgreSQL (or the account) is in order.
            logger().warning("A webhook cannot be taken now", device=webhook.device, reason=error.sentence)
            return HTTPStatus.SERVICE_UNAVAILABLE
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, its text may hold what it said
            logger().error("A webhook broke its reader", device=webhook.device, error=type(error).__name__)
            return HTTPStatus.INTERNAL_SERVER_ERROR

    def _take(self, webhook: Webhook) -> HTTPStatus:
        with self._database.transaction() as connection:
            device, contract, account = self._account(connection, webhook.device)
            url = self._base_url + webhook_path(self._home, device.name)
            url += f"?{webhook.query}" if webhook.query else ""
            if not contract.verify_webhook(webhook.headers, webhook.body, url, account):
                logger().warning(f"A webhook is not signed as {contract.title} signs", device=device.name)
                return HTTPStatus.FORBIDDEN
            reference = _reference_in(webhook.query) if contract.takes_callback_url else None
            told = [
                replace(each, reference=each.reference or reference)
                for each in contract.parse_webhook(webhook.headers, webhook.body, account)
            ]
            moved = deliveries.receive(connection, device.id, [_report(each) for each in told]) if told else {}
            trouble = _trouble(told) if "failed" in moved.values() else None
            if trouble is not None:
                reason = f"{contract.title} reports about the sender: {trouble.reason}"
                dispatch.exchange(connection, "", holds=[Hold(device.id, _TROUBLE_SECONDS, reason)])
                breakers.report(connection, contract.name, device.name, reason)
        for message_id, state in moved.items():
            write = logger().warning if state == "failed" else logger().debug
            write(f"{contract.title} reports a message {state}", device=device.name, message=message_id)
        if trouble is not None:
            logger().error(
                "🚨 The sender is in trouble; its lane waits and its breaker opens",
                device=device.name,
                reason=trouble.reason,
            )
        return HTTPStatus.OK

    def _account(self, connection: Connection, name: str) -> tuple[Device, PlatformContract, Account]:
        device = devices.by_name(connection, name)
        if device.platform is None:
            raise NotFound("A WhatsApp device has no webhook.")
        contract = contract_of(device.platform)
        credentials = self._seal.open(device.credentials) if device.credentials else {}
        account = check_account(contract, device.base_url, credentials, loopback_allowed=self._loopback_allowed)
        return device, contract, account


def _reference_in(query: str) -> str | None:
    """Return our own name for the message that an address was given out for; what else stands there names none."""
    return next((value for name, value in parse_qsl(query) if name == REFERENCE_FIELD), None)


def _report(told: DeliveryReport) -> Report:
    reason = told.reason or told.code
    if told.code and told.code not in reason:
        reason = f"{reason} ({told.code})"
    return Report(told.stage.value, told.provider_id, told.reference, told.alias, reason)


def _trouble(told: Sequence[DeliveryReport]) -> DeliveryReport | None:
    """Return a report that is about more than its message: what is sent next would fare the same."""
    return next((each for each in told if each.scope not in {None, Scope.MESSAGE}), None)
