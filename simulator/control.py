"""The control socket: one JSON object a line asks, one a line answers."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.errors import Refused, SalamanderError
from config.logging import logger
from simulator.addresses import short_path
from simulator.platforms.server import PlatformStandIns
from simulator.whatsapp.faults import FAULTS, Target
from simulator.whatsapp.network import Network
from simulator.whatsapp.nodes import Jid
from simulator.whatsapp.records import number_of

#: Longest request taken, in bytes: thousands of seeded companions are one request.
_LONGEST_REQUEST = 256 << 20


class Control:
    """Takes orders for a network and the platforms beside it."""

    def __init__(self, network: Network, platforms: PlatformStandIns, info: Callable[[], dict[str, Any]]) -> None:
        self._network = network
        self._platforms = platforms
        self._info = info
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._operations: dict[str, Callable[..., Any]] = {
            name.removeprefix("do_"): method
            for name, method in inspect.getmembers(self, inspect.ismethod)
            if name.startswith("do_")
        }

    async def start(self, path: Path) -> None:
        """Listen on the socket ``path``, readable and writable by its owner alone."""
        _remove(path)
        earlier = os.umask(0o177)
        try:
            with short_path(path) as name:
                self._server = await asyncio.start_unix_server(self._serve, name, limit=_LONGEST_REQUEST)
        finally:
            os.umask(earlier)

    async def stop(self) -> None:
        """Close the socket and its connections."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._clients):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass  # the client went away, or sent more than a line may hold
        finally:
            self._clients.discard(writer)
            with contextlib.suppress(OSError):
                writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            operation = self._operations.get(str(request.pop("op", "")))
            if operation is None:
                raise Refused("There is no such operation.", f"Choose one of: {', '.join(self._operations)}.")
            inspect.signature(operation).bind(**request)
        except (ValueError, TypeError, AttributeError) as error:
            return {"ok": False, "code": "bad_request", "error": f"Not a request: {error}.", "next_step": ""}
        except SalamanderError as error:
            return {"ok": False, **error.as_dict()}
        try:
            result = operation(**request)
            return {"ok": True, "result": await result if inspect.isawaitable(result) else result}
        except SalamanderError as error:
            return {"ok": False, **error.as_dict()}
        except Exception as error:  # noqa: BLE001  (one wrong order must not end the simulator)
            logger().exception("an order failed")
            sentence = f"The simulator failed: {error!r}."
            return {"ok": False, "code": "internal_error", "error": sentence, "next_step": "See its log."}

    # Operations

    def do_info(self) -> dict[str, Any]:
        """How to reach the simulator."""
        return self._info()

    def do_add_phone(self, number: str) -> dict[str, Any]:
        """Register a phone."""
        with self._network.recording():
            phone = self._network.phones.add(number.lstrip("+"))
        return {"number": phone.number, "lid": str(phone.lid)}

    def do_phones(self) -> list[dict[str, Any]]:
        """List the phones and what is linked to them."""
        accounts = self._network.store.accounts
        return [
            {
                "number": number,
                "on": bool(phone and phone.powered),
                "companions": [str(companion.jid) for companion in accounts.companions(number)],
            }
            for number in accounts.numbers()
            for phone in [accounts.phone(number)]
        ]

    def do_phone_power(self, number: str, on: bool) -> None:
        """Switch a phone on or off."""
        with self._network.recording():
            self._network.phones.power(number.lstrip("+"), on)

    def do_waiting(self) -> list[dict[str, Any]]:
        """List the devices that wait to be linked."""
        return self._network.pairing.waiting()

    async def do_scan(self, number: str, qr: str, spoil: str | None = None) -> str:
        """Scan a QR code with a phone."""
        return await self._network.pairing.scan(number.lstrip("+"), qr, spoil)

    async def do_enter_code(self, number: str, code: str) -> str:
        """Type a pairing code into a phone."""
        return await self._network.pairing.enter_code(number.lstrip("+"), code)

    def do_inbox(self, number: str) -> list[dict[str, Any]]:
        """Return what a phone received."""
        return self._entries(number.lstrip("+"), sent=False)

    def do_sent(self, number: str) -> list[dict[str, Any]]:
        """Return the copies a phone has of what its companions sent."""
        return self._entries(number.lstrip("+"), sent=True)

    def do_all_inboxes(self) -> dict[str, list[dict[str, Any]]]:
        """Return what every phone received."""
        boxes: dict[str, list[dict[str, Any]]] = {}
        for entry in self._network.store.messages.inbox(None, sent=False):
            boxes.setdefault(entry.number, []).append(entry.as_dict())
        return boxes

    def do_say(self, sender: str, to: str, text: str) -> str:
        """Let a phone send a text to a number (its phone and all its companions) or to one companion."""
        jid = Jid.parse(to.lstrip("+"))
        network = self._network
        with network.recording():
            if jid.device:
                return network.phones.say(sender.lstrip("+"), "", network.companions_at(to), text)
            number = number_of(jid) or jid.server
            if network.phones.find(number) is None:
                raise Refused(f"{to} is not on WhatsApp.", "Check the number.")
            devices = network.store.accounts.companions(number)
            return network.phones.say(sender.lstrip("+"), number, devices, text)

    def do_queued(self, jid: str) -> int:
        """Return how many stanzas wait for a companion (or all of a number) to acknowledge them."""
        messages = self._network.store.messages
        return sum(len(messages.queued(one.key)) for one in self._network.companions_at(jid))

    def do_read(self, number: str, message_id: str | None = None) -> int:
        """Let a phone read what it received; return how many read receipts left."""
        with self._network.recording():
            return self._network.phones.read(number.lstrip("+"), message_id)

    def do_unlink(self, jid: str) -> int:
        """Remove companions from their phone's list of linked devices; return how many."""
        with self._network.recording():
            companions = self._network.companions_at(jid)
            for companion in companions:
                self._network.unlink(companion)
        return len(companions)

    def do_fault(self, kind: str, jid: str | None = None, seconds: float | None = None) -> int:
        """Set a fault for all, for a companion, or for all companions of a number."""
        return self._network.set_fault(kind, self._target(jid), seconds)

    def do_platform_fault(self, name: str, kind: str, seconds: float | None = None) -> None:
        """Set a fault on a platform."""
        self._platforms.set_fault(name, kind, seconds)

    def do_platform_callback(self, name: str, url: str) -> None:
        """Let a platform report each message's stages to an address on loopback ("": nowhere)."""
        self._platforms.set_callback(name, url)

    def do_faults(self) -> dict[str, str]:
        """Return the kinds of faults of WhatsApp, one line each."""
        return {kind: fault.line for kind, fault in FAULTS.items()}

    def do_platform_faults(self) -> dict[str, str]:
        """Return the kinds of faults of the platforms, one line each."""
        return self._platforms.faults()

    def do_current_faults(self) -> list[dict[str, Any]]:
        """Return the faults that are set now."""
        return [
            {"kind": kind, "number": target and target[0], "device": target and target[1], "seconds": seconds}
            for kind, target, seconds in self._network.faults.current()
        ]

    def do_stats(self) -> dict[str, Any]:
        """Return all figures."""
        network = self._network
        return {
            **network.statistics.report(),
            "waiting_for_phones": network.store.messages.count_mail(),
            "waiting_for_companions": network.store.messages.count_queued(),
        }

    def do_timeline(self) -> dict[str, Any]:
        """Return when each companion logged in last, and the connects of each second."""
        return self._network.statistics.timeline()

    def do_platform_log(self, name: str) -> list[dict[str, Any]]:
        """Return the requests a platform accepted."""
        return self._platforms.log(name)

    def do_seed(self, companions: list[dict[str, Any]]) -> int:
        """Link companions whose keys were made elsewhere."""
        return self._network.seed(companions)

    def _entries(self, number: str, *, sent: bool) -> list[dict[str, Any]]:
        return [entry.as_dict() for entry in self._network.store.messages.inbox(number, sent=sent)]

    def _target(self, jid: str | None) -> Target | None:
        if jid is None:
            return None
        parsed = Jid.parse(jid.lstrip("+"))
        number = number_of(parsed) if parsed.user else parsed.server
        if number is None:
            raise Refused(f"{jid} is no address of a device.", "Write a JID or a phone number.")
        return number, parsed.device


def _remove(path: Path) -> None:
    """Remove the socket that a killed simulator left behind; the lock on the directory says that it is dead."""
    path.unlink(missing_ok=True)
