"""Whether a device's route can carry a message at all: told before it is accepted, by whoever takes it in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.platforms import contract_of
from actors.platforms.checks import check_message as check_for_platform
from actors.platforms.contract import PlatformMessage
from actors.validation import Problem
from config.errors import SalamanderError

if TYPE_CHECKING:
    from actors.validation import Checked


def check_route(platform: str | None, checked: Checked) -> None:
    """Refuse what a device of ``platform`` (None: WhatsApp) cannot carry.

    Raises:
        Problem: it cannot; the sentence says why.
    """
    if platform is None:
        if checked.kind == "template":
            raise Problem(
                "platform_only",
                "Templates go by platforms of WhatsApp's official API only.",
                "Send a text, or send by such a device.",
            )
        return
    message = PlatformMessage(
        reference="0",
        to=checked.recipient,
        kind=checked.kind,
        body=checked.body,
        media_url=checked.media_url,
        media_name=checked.media_name,
        to_group="@" in checked.recipient,
    )
    try:
        check_for_platform(contract_of(platform), message)
    except SalamanderError as error:
        raise Problem(error.code, error.sentence, error.next_step) from None
