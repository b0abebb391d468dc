"""/v1/recipients and /v1/opt-outs: who is on WhatsApp, and who must not be written to."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from actors.care_requests import NUMBERS_LIMIT, normalise_number
from actors.messages import DeviceCommand, OptIn, OptOut
from actors.validation import Problem
from config.errors import NoAnswer, NotFound, Refused
from gateway.api.description import PAGE, Body, DeviceName, Limit, Page, Text, examples, page, problems
from gateway.api.devices import visible_device
from gateway.callers import Admin, Reader, Sender, Unbound
from gateway.context import Context, Here
from storage import care, pages
from storage.database import Connection

#: How long WhatsApp may take to say whether a number is there, and how often it is looked whether it did, in seconds.
_CHECK_SECONDS = 20.0
_LOOK_SECONDS = 0.1
#: An answer of WhatsApp's that is younger than this is given without asking again.
_FRESH = timedelta(days=1)

_routes = APIRouter(tags=["recipients"])

Number = Annotated[
    str, Path(min_length=1, max_length=100, description="A number, with country code.", examples=["60123456789"])
]


class Recipient(BaseModel):
    """What is known of a number."""

    number: str
    opted_out: bool
    on_whatsapp: bool | None = Field(description="What WhatsApp said last; null: it was never asked.")
    checked_at: datetime | None


class Check(Body):
    """How to ask WhatsApp about a number."""

    device: DeviceName
    fresh: bool = Field(False, description="Ask even if WhatsApp was asked within a day.")


class OptedOutNumber(BaseModel):
    """A number that must not be written to."""

    number: str
    at: datetime
    source: str
    device: str | None = Field(description="The device that was told so.")
    word: str = Field(description="What it was told.")


class Numbers(Body):
    """Numbers, each with its country code."""

    numbers: list[Text] = Field(min_length=1, max_length=NUMBERS_LIMIT, examples=[["+60123456789"]])


class OptedOut(BaseModel):
    """What changed."""

    added: int = Field(description="Numbers that had not opted out before.")
    cancelled: int = Field(description="Queued messages to them that were cancelled.")


def router(_context: Context) -> APIRouter:
    """Return the addresses of recipients and opt-outs."""
    return _routes


def _normal(number: str, here: Context) -> str:
    try:
        return normalise_number(number, here.settings.default_region)
    except Problem as found:
        raise Refused(found.reason, found.next_step, code=found.code) from None


async def _recipient(here: Context, number: str) -> dict[str, Any]:
    def look(connection: Connection) -> dict[str, Any]:
        known = care.check_of(connection, number) or {"on_whatsapp": None, "checked_at": None}
        return {"number": number, "opted_out": bool(care.opted_out(connection, {number})), **known}

    return await here.read(look)


@_routes.get("/recipients/{number}", response_model=Recipient, responses=problems(HTTPStatus.NOT_FOUND))
async def show_recipient(number: Number, here: Here, _caller: Reader) -> Any:
    """Show what is known of a number: whether it opted out, and what WhatsApp said of it."""
    return await _recipient(here, _normal(number, here))


@_routes.post(
    "/recipients/{number}/check",
    response_model=Recipient,
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, change=True),
    openapi_extra=examples(over_a_device={"device": "shop-1"}),
)
async def check_recipient(number: Number, check: Check, here: Here, caller: Sender) -> Any:
    """Ask WhatsApp, over an online device, whether a number is there."""
    wanted = _normal(number, here)
    device = await visible_device(here, caller, check.device)
    known = await _recipient(here, wanted)
    began = datetime.now(UTC)
    if not check.fresh and known["checked_at"] is not None and known["checked_at"] > began - _FRESH:
        return known
    before = known["checked_at"]
    await here.router.request(DeviceCommand(device.name, "check", wanted))
    deadline = asyncio.get_running_loop().time() + _CHECK_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(_LOOK_SECONDS)
        known = await _recipient(here, wanted)
        if known["checked_at"] is not None and known["checked_at"] != before:
            return known
    raise NoAnswer("WhatsApp did not say in time whether the number is there.", "Ask again later.")


@_routes.get("/opt-outs", response_model=Page[OptedOutNumber], responses=problems(), dependencies=[Unbound])
async def list_opt_outs(
    here: Here,
    _caller: Reader,
    after: Annotated[str | None, Query(pattern="^[0-9]{1,20}$", description="`next` of the page before.")] = None,
    limit: Limit = PAGE,
) -> Any:
    """List the numbers that have opted out, in the order of their digits."""
    rows = await here.read(lambda connection: pages.opt_outs(connection, after=after or "", limit=limit + 1))
    return page(rows, limit, "number")


@_routes.post(
    "/opt-outs",
    response_model=OptedOut,
    responses=problems(change=True),
    dependencies=[Unbound],
    openapi_extra=examples(one={"numbers": ["+60123456780"]}),
)
async def add_opt_outs(numbers: Numbers, here: Here, _caller: Sender) -> Any:
    """Write to these numbers no more, by any route; what is queued for them is cancelled."""
    return json.loads(await here.router.request(OptOut(tuple(numbers.numbers))))


@_routes.delete(
    "/opt-outs/{number}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(HTTPStatus.NOT_FOUND, change=True),
    dependencies=[Unbound],
)
async def remove_opt_out(number: Number, here: Here, _caller: Admin) -> Response:
    """Let a number be written to again."""
    if await here.router.request(OptIn((_normal(number, here),))) == "0":
        raise NotFound("The number had not opted out.", "See GET /v1/opt-outs.", code="not_opted_out")
    return Response(status_code=HTTPStatus.NO_CONTENT)
