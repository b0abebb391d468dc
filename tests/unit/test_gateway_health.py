"""A PostgreSQL that holds questions without an answer is told in time, and asked once for all who want to know."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from gateway import health


class FrozenStorage:
    """Surroundings whose PostgreSQL never answers, and whose router does."""

    def __init__(self) -> None:
        self.asked = 0
        self.router = self

    async def read(self, _look: Any) -> None:
        self.asked += 1
        await asyncio.Event().wait()

    async def answers(self) -> bool:
        return True


def test_a_frozen_database_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PATIENCE_SECONDS", 0.05)
    frozen = FrozenStorage()

    async def ask() -> list[httpx.Response]:
        app = FastAPI()
        app.include_router(health.router(cast("Any", frozen)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            async with asyncio.timeout(20):
                return [await client.get("/readyz") for _ in range(3)]

    for answer in asyncio.run(ask()):
        assert answer.status_code == 503
        assert answer.json() == {"ready": False, "missing": ["PostgreSQL does not answer."]}
    assert frozen.asked == 1
