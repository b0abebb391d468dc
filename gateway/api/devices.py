"""/v1/devices: add, list, show with its story, refresh, pause, resume, limits, fallbacks, remove."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, SecretStr

from actors.messages import AddDevice, DeviceCommand, SetFallbacks, SetLimits
from config.errors import Refused
from gateway.api.description import (
    PAGE,
    AfterId,
    Body,
    DeviceName,
    InPath,
    Limit,
    Page,
    Text,
    examples,
    page,
    problems,
)
from gateway.callers import Admin, Caller, Reader, unknown_device
from gateway.context import Context, Here
from storage import devices, fallbacks, pages
from storage.care import Limits
from storage.database import Connection
from storage.devices import Device
from supervisors.policy import advice_for, needs_attention

_NOT_FOUND = HTTPStatus.NOT_FOUND
_CONFLICT = HTTPStatus.CONFLICT
_PROXIES = ("http://", "https://", "socks5://")

_routes = APIRouter(prefix="/devices", tags=["devices"])


class NewDevice(Body):
    """A device to add. Without a platform it is a WhatsApp companion, to be paired with a phone."""

    name: DeviceName
    platform: Text | None = Field(None, max_length=64, examples=["wablas"])
    base_url: Text | None = Field(None, max_length=2048, description="The platform account's API address.")
    credentials: dict[Text, SecretStr] | None = Field(
        None, max_length=32, description="What the platform asks for (`GET /v1/platforms`). Kept sealed, never shown."
    )
    proxy: SecretStr | None = Field(None, max_length=2048, description="An http, https or socks5 proxy. Kept sealed.")


class DeviceItem(BaseModel):
    """A device."""

    id: int
    name: str
    platform: str
    jid: str | None = Field(description="The companion that a phone linked.")
    base_url: str | None
    desired_state: str
    state: str
    reason_code: str
    reason: str
    state_since: datetime
    next_attempt_at: datetime | None = Field(description="When something is tried next.")
    held_until: datetime | None = Field(description="Until when its messages wait.")
    held_reason: str
    last_online_at: datetime | None
    created_at: datetime
    waiting: int = Field(description="Messages that have no outcome yet.")


class Happening(BaseModel):
    """A restart, or a state that a device came into."""

    at: datetime
    kind: str = Field(description="`restart`, or the state.")
    code: str | None
    words: str | None
    tried: str | None
    outcome: str | None
    seconds: float | None


class DeviceLimits(Body):
    """Limits of a device's own. Null: the installation's setting holds; 0: no such limit."""

    gap_seconds: float | None = Field(None, ge=0, le=86_400)
    jitter_seconds: float | None = Field(None, ge=0, le=86_400)
    per_hour: int | None = Field(None, ge=0, le=1_000_000)
    per_day: int | None = Field(None, ge=0, le=1_000_000)


class DeviceStory(DeviceItem):
    """A device with its story: what is wrong, since when, what was tried, what comes next, what you can do."""

    needs_attention: bool
    advice: str
    limits: DeviceLimits
    fallbacks: list[str]
    timeline: list[Happening]


class Fallbacks(Body):
    """Who stands in for a device, in this order."""

    devices: list[DeviceName] = Field(max_length=32, examples=[["shop-2"]])


class Asked(BaseModel):
    """The request was handed on. What comes of a refresh: `GET /v1/restarts?request=…`."""

    request: str


def router(_context: Context) -> APIRouter:
    """Return the addresses of devices."""
    return _routes


async def visible_device(here: Context, caller: Caller, name: str) -> Device:
    """Return a device that the caller may see.

    Raises:
        NotFound: there is none.
    """
    caller.check_name(name)
    device = await here.read(lambda connection: devices.by_name(connection, name))
    if not caller.sees(device.id):
        raise unknown_device(name)
    return device


@_routes.get("", response_model=Page[DeviceItem], responses=problems())
async def list_devices(
    here: Here,
    caller: Reader,
    state: Annotated[Text | None, Query(max_length=64, examples=["online"])] = None,
    platform: Annotated[Text | None, Query(max_length=64, description="`whatsapp`, or a platform's name.")] = None,
    name: Annotated[Text | None, Query(max_length=64, description="A part of the name.")] = None,
    after: AfterId = None,
    limit: Limit = PAGE,
) -> Any:
    """List devices in the order they were added."""
    rows = await here.read(
        lambda connection: pages.devices(
            connection,
            after=after or 0,
            limit=limit + 1,
            device_ids=caller.device_ids,
            state=state,
            platform=platform,
            part_of_name=name,
        )
    )
    return page(rows, limit)


@_routes.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=DeviceItem,
    responses=problems(_NOT_FOUND, _CONFLICT, change=True),
    openapi_extra=examples(whatsapp={"name": "shop-9"}),
)
async def add_device(new: NewDevice, here: Here, _caller: Admin) -> Any:
    """Add a device. A WhatsApp companion is paired next; a platform device can send at once."""
    credentials = {name: value.get_secret_value() for name, value in (new.credentials or {}).items()}
    proxy = new.proxy.get_secret_value() if new.proxy is not None else None
    if proxy is not None and not proxy.startswith(_PROXIES):
        raise Refused(
            "The proxy is not an http, https or socks5 URL.", "Write it as http://HOST:PORT.", code="bad_proxy"
        )
    device_id = await here.router.request(
        AddDevice(
            name=new.name,
            platform=None if new.platform == "whatsapp" else new.platform,
            base_url=new.base_url,
            credentials=here.seal.seal(credentials) if credentials else None,
            proxy=here.seal.seal({"proxy": proxy}) if proxy else None,
        )
    )
    found = await here.read(lambda connection: pages.devices(connection, limit=1, device_ids=[int(device_id)]))
    if not found:
        raise unknown_device(new.name)  # removed a moment later
    return found[0]


@_routes.get("/{name}", response_model=DeviceStory, responses=problems(_NOT_FOUND))
async def show_device(name: InPath, here: Here, caller: Reader) -> Any:
    """Show one device with its story: what is wrong, since when, what was tried, what comes next, what you can do."""
    device = await visible_device(here, caller, name)

    def look(connection: Connection) -> dict[str, Any] | None:
        found = pages.devices(connection, limit=1, device_ids=[device.id])
        if not found:
            return None
        return {
            **found[0],
            "needs_attention": needs_attention(device),
            "advice": advice_for(device),
            "limits": asdict(device.limits),
            "fallbacks": fallbacks.of_device(connection, device.id) if caller.devices is None else [],
            "timeline": pages.timeline(connection, device.id),
        }

    story = await here.read(look)
    if story is None:
        raise unknown_device(name)
    return story


@_routes.delete("/{name}", status_code=HTTPStatus.NO_CONTENT, responses=problems(_NOT_FOUND, _CONFLICT, change=True))
async def remove_device(name: InPath, here: Here, _caller: Admin) -> Response:
    """Remove a device: it is unlinked, and what it has still to send is cancelled."""
    await here.router.request(DeviceCommand(name, "remove"))
    return Response(status_code=HTTPStatus.NO_CONTENT)


_COMMAND: dict[str, Any] = {
    "status_code": HTTPStatus.ACCEPTED,
    "response_model": Asked,
    "responses": problems(_NOT_FOUND, _CONFLICT, change=True),
}


@_routes.post("/{name}/refresh", **_COMMAND)
async def refresh_device(name: InPath, here: Here, _caller: Admin) -> Any:
    """Reload a WhatsApp device's stored session now: the same steps as every restart."""
    return await _tell(here, DeviceCommand(name, "refresh"))


@_routes.post("/{name}/pause", **_COMMAND)
async def pause_device(name: InPath, here: Here, _caller: Admin) -> Any:
    """Pause a device: it disconnects, its messages wait."""
    return await _tell(here, DeviceCommand(name, "pause"))


@_routes.post("/{name}/resume", **_COMMAND)
async def resume_device(name: InPath, here: Here, _caller: Admin) -> Any:
    """Resume a paused device."""
    return await _tell(here, DeviceCommand(name, "resume"))


async def _tell(here: Context, message: DeviceCommand) -> dict[str, str]:
    await here.router.request(message)
    return {"request": message.request}


@_routes.put(
    "/{name}/limits",
    response_model=DeviceLimits,
    responses=problems(_NOT_FOUND, change=True),
    openapi_extra=examples(slowly={"gap_seconds": 2, "jitter_seconds": 3, "per_day": 500}),
)
async def set_limits(name: InPath, limits: DeviceLimits, here: Here, _caller: Admin) -> Any:
    """Set a device's own limits, all four: what is left out goes back to the installation's setting."""
    await here.router.request(SetLimits(name, Limits(**limits.model_dump()), reset=True))
    return limits


@_routes.put(
    "/{name}/fallbacks",
    response_model=Fallbacks,
    responses=problems(_NOT_FOUND, change=True),
    openapi_extra=examples(one={"devices": ["desk-1"]}),
)
async def set_fallbacks(name: InPath, others: Fallbacks, here: Here, _caller: Admin) -> Any:
    """Say who stands in for a device whose route definitely takes no message; nobody when the list is empty."""
    await here.router.request(SetFallbacks(name, tuple(others.devices)))
    return others
