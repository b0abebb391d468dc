"""device test: ask a platform how a device's account is, by the provider's own status call. Nothing is sent."""

from __future__ import annotations

from typing import Annotated

import typer

from actors.platforms import contract_of
from actors.platforms.checks import check_account
from actors.platforms.outcomes import AccountCheck, AccountState
from actors.platforms.transport import PlatformTransport
from commands.output import AsJson, current_home, out, print_json, reported
from config.daemon import read_daemon_file
from config.errors import DaemonNotRunning, Refused
from config.home import Home
from config.settings import Settings, load_settings
from storage import devices
from storage.credentials import CredentialSeal
from storage.database import connect, database_url
from storage.devices import Device

#: How the command ends, by what the provider said.
EXIT_CODES = {
    AccountState.CONNECTED: 0,
    AccountState.DISCONNECTED: 10,
    AccountState.REFUSED: 11,
    AccountState.UNKNOWN: 12,
}


@reported
def check_device(
    name: Annotated[str, typer.Argument(help="The device's name.")],
    as_json: AsJson = False,
) -> None:
    """Check a platform device's credentials with its provider, without sending anything.

    Ends with 0: connected, 10: the phone is not linked, 11: the credentials are refused, 12: nobody can tell.
    """
    home = current_home()
    device = _device(home, load_settings(home), name)
    answer = ask_provider(home, device)
    if as_json:
        print_json({"name": name, "platform": device.platform, "state": answer.state.value, "detail": answer.detail})
    else:
        detail = f" ({answer.detail})" if answer.detail and answer.detail != answer.state.value else ""
        out.print(f"{name}: {answer.state.value}{detail}", markup=False)
    raise typer.Exit(EXIT_CODES[answer.state])


def _device(home: Home, settings: Settings, name: str) -> Device:
    if settings.database_url is None and not home.daemon_file.exists():
        # The embedded server lives and dies with the daemon.
        raise DaemonNotRunning(home.path)
    with connect(database_url(home, settings)) as connection:
        device = devices.by_name(connection, name)
    if device.is_whatsapp:
        raise Refused(
            f"{name} is a WhatsApp device; it has no account at a provider.",
            f"See run.py device show {name}.",
            code="not_a_platform_device",
        )
    return device


def ask_provider(home: Home, device: Device) -> AccountCheck:
    """Return what a platform device's provider says of its account.

    Raises:
        Refused: the account cannot be used as it is.
        ConfigurationInvalid: its credentials were sealed with another key.
    """
    daemon = read_daemon_file(home)
    contract, seal = contract_of(device.platform or ""), CredentialSeal(home.credentials_key)
    account = check_account(
        contract,
        device.base_url,
        seal.open(device.credentials) if device.credentials else {},
        loopback_allowed=daemon is not None and daemon.simulator,
    )
    request = contract.build_check(account)
    if request is None:
        return AccountCheck(AccountState.UNKNOWN, f"{contract.title} has no such check")
    transport = PlatformTransport(connections=1)
    try:
        proxy = seal.open(device.proxy).get("proxy") if device.proxy else None
        return transport.check(request, contract, proxy=proxy)
    finally:
        transport.close()
