"""Sharing the fleet's connect budget out among its shards; the arithmetic of it is in ``budget.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.messages import ConnectShare
from supervisors.budget import planned, share_of, weight_of
from supervisors.children import Child, Children
from supervisors.recycling import Recycler

#: For how long a shard that was started again has a larger share of the fleet's connects, in seconds.
_HURRY_SECONDS = 20.0


class ConnectShares:
    """Each shard's share of ``per_second`` connects.

    ``send`` hands a message to an actor's address.
    """

    def __init__(
        self, children: Children, recycler: Recycler, per_second: float, send: Callable[[Any, Any], None]
    ) -> None:
        self._children = children
        self._recycler = recycler
        self._per_second = planned(per_second)
        self._send = send
        #: Shards that were started again a moment ago.
        self._hurried: frozenset[str] = frozenset()

    def of(self, child: Child) -> float:
        """Return a shard's share of the fleet's connects a second; a successor has that of the shard it replaces."""
        shards = self._recycler.as_one(self._children.placed())
        weights = {name: weight_of(len(ids), hurried=name in self._hurried) for name, ids in shards.items()}
        hosted = weights.get(child.name, len(child.device_ids))
        return share_of(self._per_second, hosted, sum(weights.values()))

    def share_out(self, now: float) -> None:
        """Share the budget out anew when a shard was started again, and when it has had its time."""
        begun = [child for child in self._children.shards if child.lives > 0]
        young = {child.name for child in begun if child.lives > 1 and now - child.created_at < _HURRY_SECONDS}
        hurried = frozenset(young.union(child.name for child in begun if child.address is None))
        if hurried == self._hurried:
            return
        self._hurried = hurried
        for child in self._children.shards:
            if child.up:
                self._send(child.address, ConnectShare(self.of(child)))
