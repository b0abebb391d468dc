"""A process that hosts WhatsApp clients for the tests, and takes its orders as JSON lines.

The library reads its environment as it was when the process started, and a crash of it ends the process: so tests
never load it themselves. The first line on standard input holds the settings, each further line an order
``{"id", "op", …}``; answers ``{"id", "ok"}`` or ``{"id", "error"}`` and events ``{"client", "event", …}`` come back
on what was standard output.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gc
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from actors.whatsapp.events import ClientError, Content
from actors.whatsapp.library import ClientLibrary
from actors.whatsapp.loopback import KeepAlive, replace_keep_alive
from config.logging import configure_logging


class Driver:
    """The clients of this process, by the names the test gave them."""

    def __init__(self, output: int, settings: dict[str, Any]) -> None:
        self._output = output
        self._clients: dict[str, Any] = {}
        root = settings.get("noise_root")
        self._library = ClientLibrary(
            store_url=settings["store_url"],
            default_proxy=settings.get("proxy"),
            noise_root=bytes.fromhex(root) if root else None,
            threads=8,
        )
        if settings.get("keep_alive"):
            replace_keep_alive(KeepAlive(*settings["keep_alive"]))

    def say(self, line: dict[str, Any]) -> None:
        """Write one line to the test."""
        os.write(self._output, json.dumps(line).encode() + b"\n")

    async def obey(self, order: dict[str, Any]) -> None:
        """Carry out one order and answer it."""
        number, op = order.pop("id"), order.pop("op")
        try:
            self.say({"id": number, "ok": await getattr(self, op)(**order)})
        except ClientError as error:
            said = {"kind": type(error).__name__, "code": error.code, "text": str(error)}
            self.say({"id": number, "error": said})
        except Exception as error:
            self.say({"id": number, "error": {"kind": type(error).__name__, "code": "", "text": str(error)}})

    async def open(self, client: str, jid: str | None = None, proxy: str | None = None, seconds: float = 20) -> None:
        def tell(event: Any) -> None:
            self.say({"client": client, "event": type(event).__name__, **dataclasses.asdict(event)})

        def journal(message_id: str) -> None:
            thread = threading.current_thread() is threading.main_thread()
            self.say({"client": client, "event": "journal", "message_id": message_id, "on_loop": thread})

        self._clients[client] = await self._library.open(
            jid=jid, proxy=proxy, on_event=tell, on_secret_not_stored=journal, connect_seconds=seconds
        )

    async def open_briefly(self, client: str, jid: str, patience: float) -> None:
        await asyncio.wait_for(self.open(client, jid), patience)

    async def send(
        self, client: str, to: str, body: str, secret: str, kind: str = "text", media: str = "", name: str = "",
        seconds: float = 30,
    ) -> dict[str, Any]:  # fmt: skip
        content = Content(kind, body, base64.b64decode(media), name)
        work = self._clients[client].send(to, content, bytes.fromhex(secret))
        return dataclasses.asdict(await asyncio.wait_for(work, seconds))

    async def probe(self, client: str, seconds: float) -> bool:
        return bool(await self._clients[client].probe(seconds))

    async def pair_code(self, client: str, number: str) -> str:
        return str(await self._clients[client].pair_code(number))

    async def is_on_whatsapp(self, client: str, number: str) -> bool:
        return bool(await self._clients[client].is_on_whatsapp(number))

    async def logout(self, client: str) -> None:
        await self._clients[client].logout()

    async def close(self, client: str) -> None:
        await self._clients[client].close()

    async def drop(self, client: str) -> None:
        """Forget a client without closing it, as a careless caller would."""
        del self._clients[client]
        gc.collect()

    async def look(self, client: str) -> dict[str, Any]:
        found = self._clients[client]
        return {"jid": found.jid, "connected": found.connected, "busy": found.busy}

    async def process(self) -> dict[str, Any]:
        wear = self._library.wear
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a look at the kernel, not at a disk
        return {**dataclasses.asdict(wear), "threads": threading.active_count(), "descriptors": descriptors}

    async def root_logger(self) -> list[int]:
        import logging  # noqa: PLC0415  # looked at only here

        return [len(logging.getLogger().handlers), logging.getLogger().level]

    async def shut(self) -> None:
        await self._library.close()


async def host(output: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    driver = Driver(output, json.loads(await reader.readline()))
    driver.say({"ready": os.getpid()})
    under_way = set()
    while line := await reader.readline():
        task = asyncio.create_task(driver.obey(json.loads(line)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)


if __name__ == "__main__":
    # What the library prints goes to a file, as in the product; the test's lines keep the original pipe.
    answers = os.dup(1)
    noise = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    configure_logging(Path("driver.log").absolute(), "debug", "driver")
    asyncio.run(host(answers))
    os._exit(0)
