"""/v1/webhooks: who is told what happens, what they were told and what they answered."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from actors.endpoint_client import new_secret, seal_secret
from actors.messages import AddEndpoint, ChangeEndpoint, RemoveEndpoint, ReplayDeliveries, TryEndpoint
from config.errors import NotFound
from gateway.api.description import PAGE, AfterId, Body, DeviceName, Limit, Page, Text, examples, page, problems
from gateway.callers import Admin, Unbound
from gateway.context import Context, Here
from storage import endpoint_deliveries, endpoints
from storage.database import Connection, Row
from storage.pages import NEWEST

_routes = APIRouter(prefix="/webhooks", tags=["webhooks"], dependencies=[Unbound])

EndpointId = Annotated[int, Path(ge=1, le=NEWEST, description="The endpoint's id.", examples=[1])]
DeliveryId = Annotated[int, Path(ge=1, le=NEWEST, description="The delivery's id.", examples=[1])]
Url = Annotated[Text, Field(min_length=1, max_length=2048, description="https.", examples=["https://example.com/hook"])]
Events = Annotated[
    list[Annotated[Text, Field(max_length=60)]],
    Field(
        min_length=1,
        max_length=50,
        description="Kinds (`message.sent`), families (`message.*`), or `*`.",
        examples=[["message.received", "device.*"]],
    ),
]
Description = Annotated[Text, Field(max_length=200, description="What it is for, in your words.")]


class NewEndpoint(Body):
    """Where to tell what."""

    url: Url
    events: Events = Field(default_factory=lambda: ["*"])
    device: DeviceName | None = Field(None, description="Only what happens to this device.")
    description: Description = ""


class EndpointChange(Body):
    """What of an endpoint shall be different."""

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    enabled: bool | None = Field(None, description="Switched off, it is told nothing; what is pending waits.")


class Endpoint(BaseModel):
    """An endpoint, and how it fares."""

    id: int
    url: str
    description: str
    events: list[str]
    device: str | None = Field(description="Only what happens to this device; null: to any.")
    enabled: bool
    disabled_reason: str
    created_at: datetime
    pending: int = Field(description="Deliveries that wait or are tried again.")
    oldest: datetime | None = Field(description="Since when the oldest of them waits.")
    dead: int = Field(description="Deliveries that were given up after three days.")


class AddedEndpoint(Endpoint):
    """An endpoint that was just added."""

    secret: str = Field(description="What its receiver verifies signatures with. It is not shown again.")


class Endpoints(BaseModel):
    """Every endpoint."""

    items: list[Endpoint]


class Delivery(BaseModel):
    """One event on its way to an endpoint."""

    id: int
    event_id: UUID = Field(description="`webhook-id` is `evt_` and this without dashes.")
    type: str
    state: str = Field(description="pending, delivered or dead.")
    attempts: int
    created_at: datetime
    tried_at: datetime | None = Field(description="When it was last tried.")
    next_at: datetime = Field(description="When it is tried next, while it is pending.")
    status: int | None = Field(description="What the endpoint answered last; null: nothing.")
    answer: str = Field(description="The beginning of that answer.")
    problem: str = Field(description="Why the last attempt failed.")


class WholeDelivery(Delivery):
    """A delivery with what is told."""

    body: dict[str, Any]


class Test(BaseModel):
    """A test that is on its way."""

    delivery: int = Field(description="The delivery's id: its answer stands there once it was tried.")


class Replay(Body):
    """What to tell once more."""

    delivery: int | None = Field(None, ge=1, le=NEWEST, description="Only this one; null: every dead letter.")


class Replayed(BaseModel):
    """What is told once more."""

    replayed: int


def router(_context: Context) -> APIRouter:
    """Return the addresses of webhooks."""
    return _routes


def _told(endpoint: endpoints.Endpoint, counts: dict[int, Row]) -> dict[str, Any]:
    count = counts.get(endpoint.id, {"pending": 0, "oldest": None, "dead": 0})
    return {**endpoint.as_dict(), **{name: count[name] for name in ("pending", "oldest", "dead")}}


async def _one(here: Context, endpoint_id: int) -> dict[str, Any]:
    def look(connection: Connection) -> dict[str, Any]:
        return _told(_find(connection, endpoint_id), endpoint_deliveries.counts(connection))

    return await here.read(look)


def _find(connection: Connection, endpoint_id: int) -> endpoints.Endpoint:
    try:
        return endpoints.by_id(connection, endpoint_id)
    except NotFound as error:
        raise NotFound(error.sentence, "See GET /v1/webhooks.", code=error.code) from None


@_routes.get("", response_model=Endpoints, responses=problems())
async def list_endpoints(here: Here, _caller: Admin) -> Any:
    """List the endpoints."""

    def look(connection: Connection) -> list[dict[str, Any]]:
        counts = endpoint_deliveries.counts(connection)
        return [_told(each, counts) for each in endpoints.all_endpoints(connection)]

    return {"items": await here.read(look)}


@_routes.post(
    "",
    response_model=AddedEndpoint,
    status_code=HTTPStatus.CREATED,
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, change=True),
    openapi_extra=examples(
        everything={"url": "https://example.com/hook"},
        what_one_device_is_told={
            "url": "https://example.com/hook?from=salamander",
            "events": ["message.received", "message.delivered", "device.*"],
            "device": "shop-1",
            "description": "The shop's own system",
        },
    ),
)
async def add_endpoint(wanted: NewEndpoint, here: Here, _caller: Admin) -> Any:
    """Tell an address what happens from now on; the answer holds the secret that deliveries are signed with."""
    secret = new_secret()
    added = await here.router.request(
        AddEndpoint(wanted.url, tuple(wanted.events), seal_secret(here.seal, secret), wanted.device, wanted.description)
    )
    return {**await _one(here, int(added)), "secret": secret}


@_routes.get("/{endpoint_id}", response_model=Endpoint, responses=problems(HTTPStatus.NOT_FOUND))
async def show_endpoint(endpoint_id: EndpointId, here: Here, _caller: Admin) -> Any:
    """Show an endpoint."""
    return await _one(here, endpoint_id)


@_routes.patch(
    "/{endpoint_id}",
    response_model=Endpoint,
    responses=problems(HTTPStatus.NOT_FOUND, change=True),
    openapi_extra=examples(
        other_events={"events": ["message.*"], "description": "Only messages"},
        switched_off={"enabled": False},
        switched_on={"enabled": True},
    ),
)
async def change_endpoint(endpoint_id: EndpointId, change: EndpointChange, here: Here, _caller: Admin) -> Any:
    """Change an endpoint; what is not given, or null, stays. Switched on again, it is told what waits."""
    events = None if change.events is None else tuple(change.events)
    await here.router.request(ChangeEndpoint(endpoint_id, change.url, events, change.description, change.enabled))
    return await _one(here, endpoint_id)


@_routes.delete(
    "/{endpoint_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(HTTPStatus.NOT_FOUND, change=True),
)
async def remove_endpoint(endpoint_id: EndpointId, here: Here, _caller: Admin) -> Response:
    """Remove an endpoint; what it was still to be told is told to nobody."""
    await here.router.request(RemoveEndpoint(endpoint_id))
    return Response(status_code=HTTPStatus.NO_CONTENT)


@_routes.post(
    "/{endpoint_id}/test",
    response_model=Test,
    status_code=HTTPStatus.ACCEPTED,
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, change=True),
)
async def try_endpoint(endpoint_id: EndpointId, here: Here, _caller: Admin) -> Any:
    """Tell an endpoint something that happened to nobody."""
    return {"delivery": int(await here.router.request(TryEndpoint(endpoint_id)))}


@_routes.post(
    "/{endpoint_id}/replay",
    response_model=Replayed,
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, change=True),
    openapi_extra=examples(every_dead_letter={}),
)
async def replay_deliveries(endpoint_id: EndpointId, replay: Replay, here: Here, _caller: Admin) -> Any:
    """Tell an endpoint its dead letters once more, or one delivery that is over."""
    return {"replayed": int(await here.router.request(ReplayDeliveries(endpoint_id, replay.delivery)))}


@_routes.get("/{endpoint_id}/deliveries", response_model=Page[Delivery], responses=problems(HTTPStatus.NOT_FOUND))
async def list_deliveries(
    endpoint_id: EndpointId,
    here: Here,
    _caller: Admin,
    dead: Annotated[bool, Query(description="Only dead letters.")] = False,
    after: AfterId = None,
    limit: Limit = PAGE,
) -> Any:
    """List an endpoint's deliveries with their answers, newest first; kept for three days (dead letters: 30)."""

    def look(connection: Connection) -> list[Row]:
        _find(connection, endpoint_id)
        return endpoint_deliveries.latest(connection, endpoint_id, dead=dead, before=after, limit=limit + 1)

    return page(await here.read(look), limit)


@_routes.get(
    "/{endpoint_id}/deliveries/{delivery_id}",
    response_model=WholeDelivery,
    responses=problems(HTTPStatus.NOT_FOUND),
)
async def show_delivery(endpoint_id: EndpointId, delivery_id: DeliveryId, here: Here, _caller: Admin) -> Any:
    """Show one delivery, with what is told."""
    row = await here.read(lambda connection: endpoint_deliveries.by_id(connection, delivery_id))
    if row["endpoint_id"] != endpoint_id:
        raise NotFound(
            f"There is no delivery {delivery_id}.", "See its endpoint's deliveries.", code="unknown_delivery"
        )
    return row
