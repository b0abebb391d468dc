"""A trouble of all devices that ends for one of them: its neighbours try soon, whatever their back-off had come to."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.whatsapp.mailbox import DeviceMessage, Refresh
from config.settings import Settings
from supervisors.devices import DeviceSupervisor, Supervised

#: Enough troubles in a row that the next attempt is a minute or more away.
_TROUBLES = 9


class _Gate:
    """A gate that lets everybody through."""

    def fell(self, _device_id: int) -> None:
        pass

    def came_online(self) -> None:
        pass

    async def turn(self, _device_id: int, *, again: bool = False) -> None:
        pass


def supervised(supervisor: DeviceSupervisor, device_id: int) -> list[DeviceMessage]:
    """Let a device be supervised that does nothing; return what it is told."""
    told: list[DeviceMessage] = []
    actor: Any = SimpleNamespace(id=device_id, name=f"device-{device_id}", state="refreshing", tell=told.append)
    task = asyncio.get_running_loop().create_task(asyncio.sleep(0))
    supervisor._supervised[device_id] = Supervised(actor, task)
    return told


@pytest.mark.parametrize(
    ("cause", "tries"),
    [
        ("connect_refused", True),
        ("connect_timeout", True),
        ("certificate_refused", True),
        ("server_error", True),
        ("store_unavailable", True),
        ("proxy_error", False),
        ("crashed", False),
        ("replaced", False),
        ("banned", False),
    ],
)
def test_a_neighbour_that_came_online_brings_a_shared_trouble_forward_and_no_other(
    monkeypatch: pytest.MonkeyPatch, cause: str, tries: bool
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    settings = Settings.model_validate({})
    services: Any = SimpleNamespace(settings=settings, database=None, owner="shard", gate=_Gate())

    async def run() -> list[DeviceMessage]:
        supervisor = DeviceSupervisor(cast("Any", services), restarted=False)
        told = supervised(supervisor, 1)
        supervised(supervisor, 2)
        for _ in range(_TROUBLES):
            supervisor.decide(1, cause)
        assert supervisor.refresh_is_pending(1)
        supervisor.came_online(2)
        await asyncio.sleep(0.05)
        supervisor.forget(1)
        return told

    refreshes = [each for each in asyncio.run(run()) if isinstance(each, Refresh)]
    assert [each.cause_code for each in refreshes] == [cause] * tries


def test_a_device_that_falls_too_often_keeps_to_its_slowed_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    services: Any = SimpleNamespace(settings=Settings.model_validate({}), database=None, owner="shard", gate=_Gate())

    async def run() -> list[DeviceMessage]:
        supervisor = DeviceSupervisor(services, restarted=False)
        told = supervised(supervisor, 1)
        supervised(supervisor, 2)
        for _ in range(20):
            supervisor.decide(1, "connect_refused")
        supervisor.came_online(2)
        await asyncio.sleep(0.05)
        supervisor.forget(1)
        return told

    assert asyncio.run(run()) == []
