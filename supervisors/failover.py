"""Fail-over: messages whose route definitely does not take them go on by another, once per route.

Only queued messages move: they were never tried, or each attempt is proven not to have left. What is in doubt stays.
"""

from __future__ import annotations

from actors.platforms import contract_of
from actors.platforms.checks import check_message
from actors.platforms.contract import PlatformMessage
from config.errors import SalamanderError
from config.logging import logger
from storage import fallbacks
from storage.database import Connection, Row


def reroute(connection: Connection, *, patience: float, attempts: int) -> list[int]:
    """Move stranded messages to the best route that can carry them; return the devices that have new work."""
    if not fallbacks.any_exist(connection):
        return []
    targets: set[int] = set()
    for message in fallbacks.stranded(connection, patience=patience, attempts=attempts):
        for target in fallbacks.candidates(connection, message):
            if _can_carry(target["platform"], message) and fallbacks.move(connection, message, target):
                targets.add(target["id"])
                logger().warning(
                    f"↪ Message {message['id']} goes by {target['name']}",
                    device=message["device"],
                    reason=message["why"],
                )
                break
    return sorted(targets)


def _can_carry(platform: str | None, message: Row) -> bool:
    """Return whether a route takes this kind of message at all."""
    if platform is None:
        return bool(message["kind"] != "template")  # templates belong to WhatsApp's official API
    try:
        check_message(
            contract_of(platform),
            PlatformMessage(
                reference="0",
                to=message["recipient"],
                kind=message["kind"],
                body=message["body"],
                media_url=message["media_url"],
                media_name=message["media_name"],
                to_group="@" in message["recipient"],
            ),
        )
    except SalamanderError:
        return False
    return True
