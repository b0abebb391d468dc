"""Whether a platform that takes an address for its reports with each message is told one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.platforms import contract_of
from config.webhooks import webhook_base_url

if TYPE_CHECKING:
    from config.settings import Settings


def told_no_address(settings: Settings, platform: str, *, loopback: bool) -> str:
    """Return the sentence that says why a platform is not asked to report although the listener is on; "": all is well.

    Only the stand-ins (``loopback``) reach the listener's own address; a provider would refuse a message that names it.
    """
    contract = contract_of(platform)
    if loopback or not contract.takes_callback_url or not settings.webhook_port or settings.webhook_base_url:
        return ""
    return (
        f"{contract.title} is not asked to report deliveries: it cannot reach {webhook_base_url(settings)}."
        " Set webhook_base_url to the address of the reverse proxy before it, and start the daemon again."
    )
