"""/v1/platforms: what each platform takes and asks for, and the breakers that are not closed."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from actors.platforms import contract_of, contracts
from actors.platforms.contract import PlatformContract
from config.errors import NotFound
from gateway.api.description import Text, problems
from gateway.callers import Caller, Reader
from gateway.context import Context, Here
from storage import breakers
from storage.database import Row

_routes = APIRouter(prefix="/platforms", tags=["platforms"])


class Credential(BaseModel):
    """What an account needs."""

    name: str
    title: str
    secret: bool
    required: bool


class Breaker(BaseModel):
    """A circuit breaker that is not closed: nothing is sent through it."""

    account: str = Field(description="The device; empty: the whole provider.")
    state: str
    reason: str
    failures: int
    since: datetime


class Platform(BaseModel):
    """A platform: what it takes, what it asks for, and how it is."""

    name: str
    title: str
    documentation: str
    notes: list[str]
    kinds: list[str]
    groups: bool
    text_characters: int | None
    caption_characters: int | None
    media_bytes: dict[str, int]
    messages_per_second: float | None
    seconds_per_recipient: float | None
    base_url: str | None = Field(description="The API's address; null: it differs by account.")
    credentials: list[Credential]
    webhook_signature: str
    breakers: list[Breaker]


class Platforms(BaseModel):
    """Every platform."""

    items: list[Platform]


def router(_context: Context) -> APIRouter:
    """Return the addresses of platforms."""
    return _routes


@_routes.get("", response_model=Platforms, responses=problems())
async def list_platforms(here: Here, caller: Reader) -> Any:
    """List the platforms with what they can do, and the breakers that are not closed."""
    open_ones = await _breakers(here, caller)
    return {"items": [_described(contract, open_ones) for contract in contracts().values()]}


@_routes.get("/{name}", response_model=Platform, responses=problems(HTTPStatus.NOT_FOUND))
async def show_platform(
    name: Annotated[Text, Path(max_length=64, examples=["wablas"])], here: Here, caller: Reader
) -> Any:
    """Show one platform."""
    try:
        contract = contract_of(name)
    except NotFound as error:
        raise NotFound(error.sentence, "See GET /v1/platforms.", code="unknown_platform") from None
    return _described(contract, await _breakers(here, caller))


async def _breakers(here: Context, caller: Caller) -> list[Row]:
    rows = await here.read(breakers.all_breakers)
    if caller.devices is None:
        return rows
    seen = {"", *caller.devices.values()}
    return [row for row in rows if row["account"] in seen]


def _described(contract: PlatformContract, open_ones: list[Row]) -> dict[str, Any]:
    limits = contract.limits
    return {
        "name": contract.name,
        "title": contract.title,
        "documentation": contract.documentation,
        "notes": list(contract.notes),
        "kinds": sorted(limits.kinds),
        "groups": limits.groups,
        "text_characters": limits.text_characters,
        "caption_characters": limits.caption_characters,
        "media_bytes": dict(limits.media_bytes),
        "messages_per_second": limits.messages_per_second,
        "seconds_per_recipient": limits.seconds_per_recipient,
        "base_url": contract.default_base_url,
        "credentials": [
            {"name": each.name, "title": each.title, "secret": each.secret, "required": each.required}
            for each in contract.credential_fields
        ],
        "webhook_signature": contract.webhook_signature,
        "breakers": [row for row in open_ones if row["platform"] == contract.name],
    }
