"""Carrying recycling out, step by step; what is decided there stands in ``recycling.py``."""

from __future__ import annotations

from actors.messages import RecycleShard
from config.logging import logger
from storage.restarts import Restart, RestartJournal
from supervisors.children import Children
from supervisors.connect_shares import ConnectShares
from supervisors.hosting import Hosting
from supervisors.recycling import Recycler, Recycling
from supervisors.supervision import Supervision


class RecyclingSteps:
    """Has fresh processes take over the devices of worn ones, and answers operators who ask for it."""

    def __init__(
        self,
        recycler: Recycler,
        children: Children,
        hosting: Hosting,
        shares: ConnectShares,
        supervision: Supervision,
        journal: RestartJournal,
    ) -> None:
        self._recycler = recycler
        self._children = children
        self._hosting = hosting
        self._shares = shares
        self._supervision = supervision
        self._journal = journal

    @property
    def current(self) -> Recycling | None:
        """The recycling that is under way."""
        return self._recycler.current

    def ask(self, message: RecycleShard) -> None:
        """Have a shard recycled as soon as no other is being recycled, or say why not."""
        child = self._children.find("shard", message.shard)
        if child is None or child.retiring:
            self._refuse(message.shard, message.request, "there is no such shard")
        elif not self._recycler.ask(message.shard, message.request):
            self._refuse(message.shard, message.request, "it is being recycled already")

    def step(self, now: float) -> bool:
        """Take the next step, if it is time for one; return whether a device was placed elsewhere for it."""
        shards = self._children.as_shards()
        if done := self._recycler.finished(shards):
            self._record(done, now)
        for name, request in self._recycler.forgotten(shards).items():
            self._refuse(name, request, "it is gone")
        began = self._recycler.begin(shards, now)
        current = self._recycler.current
        if current is None:
            return False
        if began:
            logger().info(
                f"♻️ Recycling {current.worn}: {current.fresh} takes over its devices",
                cause=current.cause.words,
                devices=len(current.staying),
            )
        fresh = self._children.find("shard", current.fresh)
        gap = 1.0 / self._shares.of(fresh) if fresh is not None else 0.0
        changed = self._recycler.advance(shards, now, gap) or began
        if changed:
            self._hosting.place()
        worn = self._children.find("shard", current.worn)
        if worn is not None and self._recycler.stuck(shards, now):
            self._supervision.fell(worn, "stuck", "It did not let a device go.")
        return changed

    def _record(self, done: Recycling, now: float) -> None:
        tried = f"moved its devices to {done.fresh}, one by one"
        if done.broken:
            tried = f"moved {done.moved} of its devices to {done.fresh}; then its process ended, and the rest followed"
        cause = done.cause
        took = now - done.began
        self._journal.record(
            Restart("shard", done.worn, cause.code, cause.words, tried, "ok", took, request=cause.request)
        )

    def _refuse(self, shard: str, request: str, why: str) -> None:
        words = "The operator asked for it."
        self._journal.record(Restart("shard", shard, "recycle_operator", words, "nothing", why, 0.0, request=request))
