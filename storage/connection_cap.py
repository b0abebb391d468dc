"""How connections to the embedded server are shared out. Pure arithmetic."""

from __future__ import annotations

from config.errors import ConfigurationInvalid

#: For everybody who is no shard: router, supervisors, platforms, gateway, commands, people.
_OTHERS = 30
#: What the WhatsApp library's clients of one shard share (see ``storage/pooler.py``).
_STORE = 1
#: More than this many a shard has no use for: so much database work it does at once.
_MOST = 2


def connection_past_pgbouncer(cap: int, max_shards: int, *, pooled: int, others: int) -> bool:
    """Return whether each shard may have one connection of its own beside PgBouncer's.

    Statements stay prepared on it; through PgBouncer, PostgreSQL plans each anew.

    Args:
        cap: connections to the server, at most.
        max_shards: shards, at most.
        pooled: what PgBouncer may open.
        others: what is left for whoever else connects directly.
    """
    return cap - pooled - others > max_shards


def shard_connections(cap: int, max_shards: int) -> int:
    """Return how many connections of its own, besides the library's, each shard may have.

    Raises:
        ConfigurationInvalid: the cap is too low for so many shards.
    """
    # One more: a shard that is being recycled lives beside its successor.
    each = (cap - _OTHERS) // (max_shards + 1) - _STORE
    if each < 1:
        needed = (max_shards + 1) * (_STORE + 1) + _OTHERS
        raise ConfigurationInvalid(
            f"Without PgBouncer, {max_shards} shards need {needed} connections; database_connections is {cap}.",
            "Install PgBouncer, raise database_connections, or lower max_shards.",
        )
    return min(each, _MOST)
