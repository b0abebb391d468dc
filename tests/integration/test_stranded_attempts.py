"""Attempts that nobody is at: they are told from one whose claim is still on its way to its lane."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from actors.whatsapp.events import Content, Sent
from actors.whatsapp.group_commit import GroupCommit
from actors.whatsapp.sending import Sender
from config.settings import Settings
from storage import care, turns
from storage.care import Limits
from storage.database import PooledConnections
from storage.turns import Turn
from supervisors.devices import DeviceSupervisor
from tests.support.outbox import accept_texts, new_device, story_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from actors.whatsapp.client import WhatsAppClient
    from actors.whatsapp.device import Known
    from actors.whatsapp.services import Services
    from storage.database import Connection
    from storage.devices import Device

_JID = "60123456789:1@s.whatsapp.net"
_OWNER = "shard-1/one"
_SECONDS = 120.0


class SlowClient:
    """Takes a message when it is told to, and notes it."""

    jid = _JID

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.sent: list[str] = []

    async def send(self, _to: str, content: Content, _secret: bytes) -> Sent:
        self.asked.set()
        await self.may_answer.wait()
        self.sent.append(content.body)
        return Sent(f"3EB0{len(self.sent)}", 0)


class ShardOfOne:
    """What a sender needs of its shard; PostgreSQL goes away with the ``lost``-th answer."""

    def __init__(self, database: PooledConnections, directory: Path, lost: int) -> None:
        self.owner = _OWNER
        self.settings = Settings.model_validate({"check_recipients": False})
        self.home = SimpleNamespace(journal=directory)
        self.database = database
        self.recorder = SimpleNamespace(inside=lambda _: contextlib.nullcontext())
        self.back = asyncio.Event()
        self.committed = asyncio.Event()
        self.group = GroupCommit(database, _OWNER, self._losing_an_answer)
        self._until_lost = lost
        self.turn = self.group.turn

    async def store(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await self.group.store(lambda connection: work(connection, *arguments))

    async def run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(work)

    async def look(self, _: Callable[..., Any]) -> Any:
        return {}, True  # nothing was stored, and the session is there

    async def _losing_an_answer(self, work: Callable[[], list[Any]]) -> list[Any]:
        answer = await asyncio.to_thread(work)
        self._until_lost -= 1
        if self._until_lost != 0:
            return answer
        self.committed.set()
        await self.back.wait()
        return await asyncio.to_thread(work)


@pytest.fixture
def database(storage_url: str) -> Iterator[PooledConnections]:
    with contextlib.closing(PooledConnections(storage_url, 2)) as database:
        yield database


@pytest.mark.parametrize("limited", [False, True])
def test_a_claim_whose_answer_was_lost_is_sent_once(
    database: PooledConnections, connection: Connection, tmp_path: Path, *, limited: bool
) -> None:
    lane = new_device(connection)
    if limited:
        care.set_limits(connection, lane, Limits(per_day=5))
    (message_id,) = accept_texts(connection, lane, "hello")

    async def main() -> list[str]:
        # A lane with limits of its own asks by its rules, after it has learnt of them.
        shard, client = ShardOfOne(database, tmp_path, lost=2 if limited else 1), SlowClient()
        sender = Sender(cast("Services", shard), lane, "shop-1", f"{_OWNER}/{lane}.1")
        sending = asyncio.ensure_future(sender.send_lane(cast("WhatsAppClient", client), lambda: True, lambda: None))
        await shard.committed.wait()
        # The outage lasts.
        connection.execute("update attempt set started_at = started_at - interval '5 minutes'")
        connection.execute("update device set created_at = created_at - interval '1 hour'")
        settling = asyncio.ensure_future(sender.settle_stranded(_JID, _SECONDS))
        await asyncio.wait({settling}, timeout=2.0)
        shard.back.set()
        await client.asked.wait()
        await settling
        client.may_answer.set()
        await sending
        return client.sent

    assert asyncio.run(main()) == ["hello"]
    assert story_of(connection, message_id) == ["queued", "sending", "sent"]


def test_what_a_device_left_open_in_this_very_process_is_settled_when_it_comes_back(
    database: PooledConnections, connection: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settled, left = new_device(connection), new_device(connection)
    accept_texts(connection, left, "hello")
    with database.transaction() as own:
        turns.take(own, _OWNER, [Turn(left, secret=secrets.token_bytes(32))])
    found: dict[int, bool] = {}

    def note(_: DeviceSupervisor, row: Device, *, known: Known, **__: Any) -> None:
        found[row.id] = known.settled

    monkeypatch.setattr(DeviceSupervisor, "_start", note)

    async def main() -> None:
        shard = ShardOfOne(database, tmp_path, lost=0)
        await DeviceSupervisor(cast("Services", shard), restarted=False).host([settled, left], moved=True)

    asyncio.run(main())
    assert found == {settled: True, left: False}
