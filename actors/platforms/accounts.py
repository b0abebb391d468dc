"""The accounts of one platform's devices, opened from their rows and kept open until the rows say otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from actors.platforms.checks import check_account
from actors.platforms.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.platforms.contract import Account, PlatformContract
    from storage.credentials import CredentialSeal
    from storage.dispatch import Lane


@dataclass(frozen=True)
class OpenAccount:
    """A device's account, ready to send.

    Attributes:
        lane: the row it was opened from.
        account: what requests are built for.
        proxy: the device's HTTP proxy as a URL, or None.
        pace: how fast it may send; None: its platform documents no rate.
        provider: what it shares with other accounts: its base URL, or "" for the platform's own address.
    """

    lane: Lane
    account: Account
    proxy: str | None
    pace: Pace | None
    provider: str = ""


class Accounts:
    """The open accounts of one platform.

    Args:
        contract: the platform.
        seal: opens credentials.
        loopback_allowed: the simulator runs.
        callback_url_of: the address at which the platform may report about a device of this name; "": nowhere.
    """

    def __init__(
        self,
        contract: PlatformContract,
        seal: CredentialSeal,
        *,
        loopback_allowed: bool,
        callback_url_of: Callable[[str], str],
    ) -> None:
        self._contract = contract
        self._seal = seal
        self._loopback_allowed = loopback_allowed
        self._callback_url_of = callback_url_of
        self._open: dict[int, OpenAccount] = {}

    def known(self, device_id: int) -> OpenAccount | None:
        """Return an account that was opened before."""
        return self._open.get(device_id)

    def open(self, lane: Lane) -> OpenAccount:
        """Return the account of a device; its row as it is now.

        Raises:
            SalamanderError: the account cannot be used; the sentence tells no credential.
        """
        former = self._open.get(lane.device_id)
        if former is not None and former.lane == lane:
            return former
        self._open.pop(lane.device_id, None)
        credentials = self._seal.open(lane.credentials) if lane.credentials else {}
        account = check_account(self._contract, lane.base_url, credentials, loopback_allowed=self._loopback_allowed)
        opened = OpenAccount(
            lane,
            replace(account, callback_url=self._callback_url_of(lane.name)),
            self._seal.open(lane.proxy).get("proxy") if lane.proxy else None,
            former.pace if former is not None else Pace.of(self._contract.limits),
            "" if account.base_url == self._contract.default_base_url else account.base_url,
        )
        self._open[lane.device_id] = opened
        return opened

    def keep_only(self, device_ids: frozenset[int]) -> None:
        """Forget the accounts of devices that are gone."""
        for device_id in self._open.keys() - device_ids:
            del self._open[device_id]
