"""/v1/devices/NAME/pairing: link a phone by QR or by a code. QRs renew themselves, so there is a stream of them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import segno
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from actors.messages import DeviceCommand
from config.errors import NotFound, SalamanderError
from gateway.api.description import Body, InPath, Text, examples, problems
from gateway.api.devices import Asked, visible_device
from gateway.api.streams import EVENT_STREAM, Accept, streamed, wants_stream
from gateway.callers import Admin
from gateway.context import Context, Here
from storage.devices import Device

#: How often a pairing is looked at while somebody follows it, and how often the stream says that it lives, in seconds.
_LOOK_SECONDS = 0.3
_HEARTBEAT_LOOKS = 40
#: A phone takes this long, at most, to come from the scan to being online.
_LONGEST_SECONDS = 600.0
_STREAM = "Streamed: events named `pairing`, each with a Pairing; the last one's state is not `pairing`."

_routes = APIRouter(prefix="/devices", tags=["devices"])


class PairRequest(Body):
    """How to pair."""

    number: Text | None = Field(
        None, max_length=64, description="The phone's number: pair by a code typed there. Without: by QR."
    )


class Pairing(BaseModel):
    """How far a pairing is."""

    state: str = Field(description="The device's state; `pairing` while a QR or code is shown.")
    reason: str
    qr: str | None = Field(description="The text of the QR to show. It changes; the phone scans the newest.")
    code: str | None = Field(description="The code to type on the phone.")
    jid: str | None = Field(description="The companion, once a phone is linked.")


def router(_context: Context) -> APIRouter:
    """Return the addresses of pairing."""
    return _routes


def _pairing_of(device: Device) -> dict[str, Any]:
    return {
        "state": device.state,
        "reason": device.reason,
        "qr": device.pairing_qr,
        "code": device.pairing_code,
        "jid": device.jid,
    }


@_routes.post(
    "/{name}/pairing",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Asked,
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, change=True),
    openapi_extra=examples(by_qr={}, by_code={"number": "+60123456789"}),
)
async def pair(name: InPath, here: Here, _caller: Admin, how: PairRequest | None = None) -> Any:
    """Begin to link a phone. Then show what `GET …/pairing` brings."""
    message = DeviceCommand(name, "pair", how.number if how is not None else None)
    await here.router.request(message)
    return {"request": message.request}


@_routes.get(
    "/{name}/pairing",
    response_model=Pairing,
    responses={**problems(HTTPStatus.NOT_FOUND), 200: streamed(_STREAM)},
)
async def show_pairing(name: InPath, here: Here, caller: Admin, accept: Accept = None) -> Any:
    """Show how far a pairing is, and what to show for it.

    With `Accept: text/event-stream` each new QR, the code, and the end are streamed as they come.
    """
    device = await visible_device(here, caller, name)
    if wants_stream(accept):
        return StreamingResponse(_pairings(here, caller, device), media_type=EVENT_STREAM)
    return _pairing_of(device)


@_routes.get(
    "/{name}/pairing.svg",
    response_class=Response,
    responses={
        **problems(HTTPStatus.NOT_FOUND),
        200: {"description": "The QR.", "content": {"image/svg+xml": {"schema": {"type": "string"}}}},
    },
)
async def draw_pairing(name: InPath, here: Here, caller: Admin) -> Response:
    """Draw the QR that the phone is to scan."""
    device = await visible_device(here, caller, name)
    if device.pairing_qr is None:
        raise NotFound(f"{name} shows no QR now.", "Begin with POST …/pairing.", code="no_qr")
    return Response(qr_svg(device.pairing_qr), media_type="image/svg+xml")


async def _pairings(here: Context, caller: Admin, device: Device) -> AsyncIterator[str]:
    shown: dict[str, Any] = {}
    deadline = asyncio.get_running_loop().time() + _LONGEST_SECONDS
    looks = 0
    began = False
    while asyncio.get_running_loop().time() < deadline:
        now = _pairing_of(device)
        began = began or device.state == "pairing"
        if now != shown:
            shown = now
            yield f"event: pairing\ndata: {json.dumps(now)}\n\n"
        elif looks % _HEARTBEAT_LOOKS == 0:
            yield ": still here\n\n"
        if device.state not in {"pairing", "connecting", "refreshing"} and (began or device.jid is not None):
            return
        looks += 1
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            device = await visible_device(here, caller, device.name)
        except NotFound:
            return
        except SalamanderError:
            continue


def qr_svg(text: str) -> bytes:
    """Return a QR as an SVG image that scales."""
    image = io.BytesIO()
    segno.make_qr(text).save(image, kind="svg", omitsize=True, border=4, light="#fff", xmldecl=False)
    return image.getvalue()
