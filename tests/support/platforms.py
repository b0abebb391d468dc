"""Stand-ins at work in a thread, a listener for what they report, and one message of every kind."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from actors.platforms import contract_of
from actors.platforms.checks import check_account, check_message
from actors.platforms.contract import Account, PlatformContract, PlatformMessage
from actors.platforms.limits import TEMPLATE
from simulator.platforms.server import DEFAULT_ACCOUNTS, PlatformStandIns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from actors.platforms.outcomes import Outcome
    from actors.platforms.transport import PlatformTransport

#: The longest a test waits for something that should happen at once, in seconds.
PATIENCE = 10.0
TEXT = PlatformMessage(reference="m-1", to="6281234567890", kind="text", body="Selamat pagi 🦎\n1+1=2 & 50%")
SUFFIXES = {"image": "jpg", "document": "pdf", "video": "mp4", "audio": "mp3"}


def a_message_of(kind: str, contract: PlatformContract, reference: str = "m-1") -> PlatformMessage:
    """Return a message of ``kind`` that ``contract`` takes, with a caption where there may be one."""
    message = replace(TEXT, reference=reference, kind=kind)
    if kind == TEMPLATE:
        return replace(message, body='{"name": "HXinvented", "language": "en_US"}')
    if kind != "text":
        url = f"https://example.com/a.{SUFFIXES[kind]}?x=1&y=2"
        caption = f"a {kind} & more" if kind in contract.limits.captioned_kinds else ""
        return replace(message, body=caption, media_url=url, media_name=f"my {kind}.{SUFFIXES[kind]}")
    return message


class Running:
    """Stand-ins at work in a thread of their own."""

    def __init__(self, directory: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.stand_ins = PlatformStandIns(directory)
        self.urls = self._run(self.stand_ins.start())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def account(self, name: str, **credentials: str) -> Account:
        """Return the account of ``name`` that the stand-in knows, or one with other credentials."""
        return check_account(
            contract_of(name), self.urls[name], credentials or DEFAULT_ACCOUNTS[name], loopback_allowed=True
        )

    def stop(self) -> None:
        """Stop the stand-ins and their thread."""
        self._run(self.stand_ins.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._loop.close()


def send(
    running: Running,
    transport: PlatformTransport,
    name: str,
    message: PlatformMessage,
    *,
    account: Account | None = None,
    seconds: float = 5.0,
) -> Outcome:
    """Send a message through the platform ``name``, checked as the router does."""
    contract = contract_of(name)
    check_message(contract, message)
    request = contract.build_request(message, account or running.account(name))
    return transport.send(request, contract, seconds)


class Listener:
    """Takes webhooks on loopback and keeps them as they came."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the library's name
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                received.append((dict(self.headers.items()), body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook/invented-secret-path"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds, and fail when it does not in time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
