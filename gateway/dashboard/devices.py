"""The device page: what is wrong, since when, what was tried, what comes next, and what can be done about it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import segno
from fastapi import Request, Response
from markupsafe import Markup

from actors.messages import AddDevice, DeviceCommand
from actors.platforms import contract_of, contracts
from actors.validation import check_proxy
from config.errors import Refused, SalamanderError
from gateway.dashboard.compose import new_form_key
from gateway.dashboard.desk import Desk, Visitor, go_to
from gateway.dashboard.rendering import segment
from storage import breakers, dashboard, devices, fallbacks, restarts
from supervisors.account import account_of
from supervisors.policy import advice_for

if TYPE_CHECKING:
    from fastapi import APIRouter
    from starlette.datastructures import FormData

    from actors.platforms.contract import PlatformContract
    from storage.database import Connection
    from storage.devices import Device

#: What an operator may tell a device here; each goes through the router, as the command of the same name does.
_COMMANDS = frozenset({"refresh", "pair", "pause", "resume", "remove"})
_RESTARTS = 10
#: Credentials that are files are pasted; none is longer, in characters.
_LONGEST_FIELD = 100_000


def add_routes(routes: APIRouter, desk: Desk) -> None:
    """Add the addresses of devices."""
    context = desk.context

    # --- adding ------------------------------------------------------------------------------------------

    async def show_form(request: Request, visitor: Visitor, **values: Any) -> Response:
        given: dict[str, Any] = {
            "name": "",
            "platform": request.query_params.get("platform", ""),
            "base_url": "",
            "error": None,
        }
        given |= values
        contract = contracts().get(given["platform"])
        return await desk.page(request, "devices/new.html", visitor, contracts=contracts(), contract=contract, **given)

    @routes.get("/add-device")
    async def new_device(request: Request) -> Response:
        return await show_form(request, await desk.visitor(request))

    @routes.post("/add-device")
    async def add_device(request: Request) -> Response:
        visitor, form = await desk.operators_form(request)
        name, platform, base_url = (_text(form, field) for field in ("name", "platform", "base_url"))
        try:
            message = _device_of(form, name, platform, base_url)
            await context.router.request(message)
        except SalamanderError as error:
            # What was typed comes back, but never a credential.
            return await show_form(
                request, visitor, status=422, name=name, platform=platform, base_url=base_url, error=error
            )
        return go_to(f"/devices/{segment(name)}")

    def _device_of(form: FormData, name: str, platform: str, base_url: str) -> AddDevice:
        proxy = _text(form, "proxy")
        check_proxy(proxy or None)
        sealed_proxy = context.seal.seal({"proxy": proxy}) if proxy else None
        if not platform:
            return AddDevice(name, proxy=sealed_proxy)
        credentials = _credentials(form, contract_of(platform))
        return AddDevice(name, platform, base_url or None, context.seal.seal(credentials), sealed_proxy)

    # --- one device --------------------------------------------------------------------------------------

    async def found(request: Request, name: str) -> dict[str, Any]:
        asked = request.query_params.get("request", "")[:64]

        def look(connection: Connection) -> dict[str, Any]:
            device = devices.by_name(connection, name)
            shown = breakers.all_breakers(connection) if device.platform else []
            return {
                "device": device,
                "waiting": dashboard.waiting_on(connection, device.id),
                "restarts": restarts.latest(connection, device_id=device.id, limit=_RESTARTS)[::-1],
                "recent": dashboard.recent_messages(connection, device.id),
                "stand_ins": fallbacks.of_device(connection, device.id),
                "breakers": [
                    row for row in shown if row["platform"] == device.platform and row["account"] in {"", device.name}
                ],
                "asked": asked,
                "outcome": restarts.by_request(connection, asked) if asked else None,
            }

        return await context.read(look)

    def values_of(seen: dict[str, Any]) -> dict[str, Any]:
        device: Device = seen["device"]
        return {
            **seen,
            "account": account_of(device, seen["waiting"]),
            "advice": advice_for(device),
            "qr": qr_svg(device.pairing_qr) if device.state == "pairing" and device.pairing_qr else None,
        }

    @routes.get("/devices/{name}")
    async def device_page(request: Request, name: str) -> Response:
        visitor = await desk.visitor(request)
        seen = await found(request, name)
        live = desk.part(request, "devices/live.html", visitor, **values_of(seen))
        tried = desk.part(request, "devices/tried.html", visitor, **seen)
        return await desk.page(
            request, "devices/page.html", visitor, device=seen["device"], live=live, tried=tried, key=new_form_key()
        )

    @routes.get("/devices/{name}/live")
    async def device_live(request: Request, name: str) -> Response:
        visitor = await desk.visitor(request)
        return desk.fragment(request, "devices/live.html", visitor, **values_of(await found(request, name)))

    @routes.get("/devices/{name}/tried")
    async def device_tried(request: Request, name: str) -> Response:
        visitor = await desk.visitor(request)
        return desk.fragment(request, "devices/tried.html", visitor, **await found(request, name))

    @routes.get("/devices/{name}/remove")
    async def ask_before_removal(request: Request, name: str) -> Response:
        visitor = await desk.visitor(request)
        seen = await found(request, name)
        return await desk.page(request, "devices/remove.html", visitor, **seen)

    @routes.post("/devices/{name}/{command}")
    async def tell_device(request: Request, name: str, command: str) -> Response:
        _, form = await desk.operators_form(request)
        if command not in _COMMANDS:
            raise Refused(f"A device cannot be told to {command}.", code="bad_command")
        message = DeviceCommand(name, command, _text(form, "number") or None if command == "pair" else None)
        await context.router.request(message)
        if command == "remove":
            return go_to("/")
        query = f"?{urlencode({'request': message.request})}" if command == "refresh" else ""
        return go_to(f"/devices/{segment(name)}{query}")


def qr_svg(text: str) -> Markup:
    """Return a QR code as SVG: dark on light whatever the page's colours, or no phone reads it."""
    drawn = io.BytesIO()
    look: dict[str, Any] = {"border": 4, "dark": "#000", "light": "#fff", "title": "QR code", "omitsize": True}
    segno.make_qr(text).save(drawn, kind="svg", xmldecl=False, **look)
    return Markup(drawn.getvalue().decode("utf-8"))  # noqa: S704 - segno draws modules; the text is not in it


def _credentials(form: FormData, contract: PlatformContract) -> dict[str, str]:
    """Return the credentials that a form brings.

    Raises:
        Refused: a required one is missing; the sentence names it.
    """
    given = {}
    for field in contract.credential_fields:
        value = _text(form, f"credential_{field.name}")
        if value:
            given[field.name] = value
        elif field.required:
            raise Refused(f"{contract.title} needs: {field.title}.", "Fill it in.", code="credential_missing")
    return given


def _text(form: FormData, field: str) -> str:
    value = form.get(field, "")
    return value.strip()[:_LONGEST_FIELD] if isinstance(value, str) else ""
