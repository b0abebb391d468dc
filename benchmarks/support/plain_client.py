"""What one would use without Salamander: plain neonize, one number a process, or a loop over many in one.

Run as a process of its own: its orders come as one line of JSON on standard input, what happens goes out as lines of
JSON. Each further line on standard input, ``{"to": [NUMBER, …], "texts": [TEXT, …]}``, lets each client of a loop send
all texts to its recipient, one after the other. It uses nothing of ours but the switch to the loopback WhatsApp.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from actors.whatsapp.loopback import replace_noise_root

#: How long one client may take to be connected, in seconds.
_CONNECT_SECONDS = 60.0


def main() -> None:
    """Read the orders, connect, and stay until standard input is closed."""
    orders = json.loads(sys.stdin.readline())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if orders["mode"] == "one":
        threading.Thread(target=_end_with_input, daemon=True).start()
        _one(orders)
    else:
        asyncio.run(_loop(orders))


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def _tell(**event: Any) -> None:
    os.write(_OUT, json.dumps(event).encode() + b"\n")


def _one(orders: dict[str, Any]) -> None:
    """One number, as the library's own example does it."""
    import pylibmagic  # noqa: F401, PLC0415
    from neonize.client import NewClient  # noqa: PLC0415
    from neonize.events import ConnectedEv  # noqa: PLC0415

    _prepare(orders)
    began = time.monotonic()
    client = NewClient(orders["store"], jid=_jid(orders["jids"][0]))

    def on_connected(_client: Any, _event: Any) -> None:
        _tell(event="up", online=1, seconds=time.monotonic() - began)

    client.event(ConnectedEv)(on_connected)
    client.connect()


async def _loop(orders: dict[str, Any]) -> None:
    """Many numbers on one event loop, connected one after the other (at once, they would crash the process)."""
    import pylibmagic  # noqa: F401, PLC0415
    from neonize.aioze import events  # noqa: PLC0415
    from neonize.aioze.client import NewAClient  # noqa: PLC0415

    _prepare(orders)
    loop = asyncio.get_running_loop()
    events.event_global_loop = loop
    loop.set_default_executor(ThreadPoolExecutor(len(orders["jids"]) + 64))
    clients = []
    began = time.monotonic()
    for jid in orders["jids"]:
        client = NewAClient(orders["store"], jid=_jid(jid))
        connected = asyncio.Event()

        async def on_connected(_client: Any, _event: Any, connected: asyncio.Event = connected) -> None:
            connected.set()

        client.event(events.ConnectedEv)(on_connected)
        clients.append((client, await client.connect()))
        await asyncio.wait_for(connected.wait(), _CONNECT_SECONDS)
    _tell(event="up", online=len(clients), seconds=time.monotonic() - began)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await _send([client for client, _ in clients], json.loads(line))
    os._exit(0)


async def _send(clients: list[Any], order: dict[str, list[str]]) -> None:
    """Let every client send the texts to its recipient, all clients at once; an error ends the process."""
    from neonize.utils.jid import build_jid  # noqa: PLC0415 - loads the library

    async def send_all(client: Any, to: str) -> None:
        for text in order["texts"]:
            await client.send_message(build_jid(to), text)

    began = time.monotonic()
    await asyncio.gather(*map(send_all, clients, order["to"]))
    _tell(event="sent", seconds=time.monotonic() - began)


def _prepare(orders: dict[str, Any]) -> None:
    for name in ("whatsmeow", "neonize", "Whatsmeow"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    replace_noise_root(bytes.fromhex(orders["noise_root"]), proxy=orders["proxy"])


def _jid(text: str) -> Any:
    from neonize.proto.Neonize_pb2 import JID  # noqa: PLC0415 - loads the library

    user, _, server = text.partition("@")
    number, _, device = user.partition(":")
    return JID(User=number, Device=int(device), Server=server, RawAgent=0, Integrator=0, IsEmpty=False)


if __name__ == "__main__":
    # The library prints to standard output; what we tell goes to where that led.
    _OUT = os.dup(1)
    os.dup2(2, 1)
    main()
