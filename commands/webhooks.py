"""device webhook: the address to enter at a provider, so that it reports how far messages came."""

from __future__ import annotations

from typing import Annotated

import typer

from actors.fleet import Fleet
from actors.platforms import contract_of
from actors.platforms.contract import PlatformContract
from commands.output import AsJson, current_home, err, out, print_json, reported
from config.errors import Refused
from config.settings import load_settings
from config.webhooks import webhook_base_url, webhook_path


@reported
def webhook(
    name: Annotated[str, typer.Argument(help="The device's name.")],
    as_json: AsJson = False,
) -> None:
    """Show a platform device's webhook address. It holds a secret: whoever knows it can report as the provider."""
    home = current_home()
    settings = load_settings(home)
    with Fleet(home.path) as fleet:
        device = fleet.device(name)
    if device.platform is None:
        raise Refused(f"{name} is a WhatsApp device; its receipts come by themselves.", code="no_webhook")
    contract = contract_of(device.platform)
    if type(contract).parse_webhook is PlatformContract.parse_webhook:
        raise Refused(f"{contract.title} reports nothing by webhook.", code="no_webhook")
    if not settings.webhook_port:
        raise Refused(
            "The webhook listener is off.",
            f"Set webhook_port in {home.configuration} (or SALAMANDER_WEBHOOK_PORT), and start the daemon again.",
            code="webhook_off",
        )
    url = webhook_base_url(settings) + webhook_path(home, name)
    reachable = bool(settings.webhook_base_url)
    if as_json:
        print_json({"name": name, "url": url, "signed": bool(contract.webhook_signature), "reachable": reachable})
        return
    out.print(url, markup=False, soft_wrap=True)
    if not reachable:
        err.print(
            "Only this machine reaches it: set webhook_base_url to the address of the reverse proxy before it.",
            markup=False,
            soft_wrap=True,
        )
