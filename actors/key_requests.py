"""What the router does when it is asked to add or end an API key. It learns a key's hash, never the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from config.api_keys import SCOPES
from config.errors import NotFound, Refused
from config.logging import logger
from storage import devices, keys
from storage.text import is_storable

if TYPE_CHECKING:
    from actors.messages import AddKey, RevokeKey
    from storage.database import Connection

_NAME_LIMIT = 100
_MOST_PER_MINUTE = 10_000_000


def add_key(connection: Connection, message: AddKey) -> str:
    """Add a key; return its public id.

    Raises:
        NotFound: one of its devices does not exist.
        Refused: the scope, the name or the limit cannot be used.
    """
    if message.scope not in SCOPES:
        raise Refused(f"There is no scope {message.scope!r}.", f"Use one of {', '.join(SCOPES)}.", code="bad_scope")
    if message.scope == "admin" and message.devices:
        reason = "An admin key manages the whole fleet; it cannot be bound to devices."
        raise Refused(reason, "Make it a send or read key.", code="bad_scope")
    if len(message.name) > _NAME_LIMIT or not is_storable(message.name):
        raise Refused("The key's name cannot be used.", f"Use up to {_NAME_LIMIT} characters.", code="bad_name")
    if message.per_minute is not None and not 0 <= message.per_minute <= _MOST_PER_MINUTE:
        raise Refused("The limit cannot be used.", f"Use 0 (none) to {_MOST_PER_MINUTE:,}.", code="bad_limit")
    bound = [devices.by_name(connection, name).id for name in message.devices] or None
    keys.add(
        connection,
        public_id=message.public_id,
        name=message.name,
        scope=message.scope,
        digest=message.digest,
        device_ids=bound,
        per_minute=message.per_minute,
    )
    logger().info("Added an API key", key_id=message.public_id, scope=message.scope)
    return message.public_id


def revoke_key(connection: Connection, message: RevokeKey) -> str:
    """End a key; return its public id.

    Raises:
        NotFound: no key that can be used has that id.
    """
    if not (is_storable(message.public_id) and keys.revoke(connection, message.public_id)):
        raise NotFound(f"There is no key {message.public_id!r} to revoke.", "See run.py key list.", code="unknown_key")
    logger().info("Revoked an API key", key_id=message.public_id)
    return message.public_id
