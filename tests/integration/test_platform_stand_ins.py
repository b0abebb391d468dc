"""The stand-ins: the documented encoding and nothing else, each fault, and at most one record a send."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest

from actors.platforms import contract_of
from actors.platforms.checks import check_account
from actors.platforms.contract import Account
from actors.platforms.outcomes import Accepted, AccountState, Outcome, Rejected, Retryable, Scope, Unknown
from actors.platforms.transport import PlatformTransport
from config.errors import SalamanderError
from simulator.platforms.server import DEFAULT_ACCOUNTS
from tests.support.platforms import PATIENCE, TEXT, Running, send

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FORM_TYPE = "application/x-www-form-urlencoded"
AUTHORIZED = {
    "Authorization": "invented-wablas-token.invented-secret",
    "Content-Type": FORM_TYPE,
}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "platforms")
    yield running
    running.stop()


@pytest.fixture
def transport() -> Iterator[PlatformTransport]:
    transport = PlatformTransport()
    yield transport
    transport.close()


def raw(url: str, path: str, body: bytes | str, headers: dict[str, str], method: str = "POST") -> tuple[int, Any]:
    """Return the status and the JSON of one raw request."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, parts.path + path, body, headers)
        response = connection.getresponse()
        text = response.read()
    return response.status, json.loads(text) if text else None


def test_wablas_answers_with_the_id_it_recorded(running: Running, transport: PlatformTransport) -> None:
    outcome = send(running, transport, "wablas", TEXT)
    assert outcome == Accepted(running.stand_ins.log("wablas")[0]["id"], "pending")


def test_no_credential_is_recorded_with_a_send(running: Running, transport: PlatformTransport) -> None:
    for name in DEFAULT_ACCOUNTS:
        send(running, transport, name, TEXT)
        assert "invented" not in json.dumps(running.stand_ins.log(name))


FORM = {"phone": "6281234567890", "message": "hi"}
VOICE = {"phone": "6281234567890", "audio": "https://example.com/a.mp3"}
DEVICE = {"device_id": "invented-whacenter-device"}


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/api/send-message", json.dumps(FORM), {**AUTHORIZED, "Content-Type": "application/json"}, 400),
        ("/api/send-message", urlencode(FORM), {**AUTHORIZED, "Content-Type": "multipart/form-data"}, 400),
        ("/api/send-message", urlencode(FORM), {"Authorization": AUTHORIZED["Authorization"]}, 400),
        ("/api/send-message", urlencode({**FORM, "number": "1"}), AUTHORIZED, 400),
        ("/api/send-message", "phone=6281234567890&phone=6289&message=hi", AUTHORIZED, 400),
        ("/api/send-message", "phone=6281234567890&message=%zz", AUTHORIZED, 400),
        ("/api/send-message", "phone=6281234567890&message=%ff", AUTHORIZED, 400),
        ("/api/send-message", "phone=6281234567890&message=ä".encode(), AUTHORIZED, 400),
        ("/api/send-message", "", AUTHORIZED, 400),
        ("/api/send-message", urlencode({"phone": "6281234567890"}), AUTHORIZED, 400),
        ("/api/send-message", urlencode({**FORM, "phone": "+6281234567890"}), AUTHORIZED, 400),
        ("/api/send-message", urlencode({**FORM, "phone": "6281234567890,"}), AUTHORIZED, 400),
        ("/api/send-message", urlencode({**FORM, "message": "x" * 1025}), AUTHORIZED, 400),
        ("/api/send-image", urlencode({"phone": "6281234567890", "image": "a.jpg"}), AUTHORIZED, 400),
        ("/api/send-audio", urlencode({**VOICE, "caption": "x"}), AUTHORIZED, 400),
        (
            "/api/send-message",
            urlencode(FORM),
            {**AUTHORIZED, "Authorization": f"Bearer {AUTHORIZED['Authorization']}"},
            500,
        ),
        ("/api/send-message", urlencode(FORM), {**AUTHORIZED, "Authorization": "invented-wablas-token"}, 500),
        ("/api/send-message", urlencode(FORM), {"Content-Type": FORM_TYPE}, 500),
        ("/api/elsewhere", urlencode(FORM), AUTHORIZED, 404),
    ],
    ids=range(19),
)
def test_wablas_refuses_all_but_the_documented_encoding(
    running: Running, path: str, body: bytes | str, headers: dict[str, str], status: int
) -> None:
    answered, reply = raw(running.urls["wablas"], path, body, headers)
    assert answered == status
    assert reply["status"] is False
    assert running.stand_ins.log("wablas") == []


def test_wablas_takes_a_list_of_numbers_as_documented_and_records_each(running: Running) -> None:
    form = urlencode({**FORM, "phone": "6281234567890,6281234567891"})
    status, reply = raw(running.urls["wablas"], "/api/send-message", form, AUTHORIZED)
    assert status == 200
    assert len(reply["data"]["messages"]) == len(running.stand_ins.log("wablas")) == 2


@pytest.mark.parametrize(
    ("fields", "content_type", "status"),
    [
        ({"number": "62812345678", "message": "hi"}, FORM_TYPE, 401),
        ({"device_id": "unknown", "number": "62812345678", "message": "hi"}, FORM_TYPE, 401),
        ({**DEVICE, "phone": "62812345678", "message": "hi"}, FORM_TYPE, 400),
        ({**DEVICE, "number": "0812345678", "message": "hi"}, FORM_TYPE, 200),
        ({**DEVICE, "number": "62812345678"}, FORM_TYPE, 200),
        ({**DEVICE, "number": "62812345678", "message": "hi"}, "application/json", 400),
    ],
)
def test_whacenter_refuses_all_but_the_known_encoding(
    running: Running, fields: dict[str, str], content_type: str, status: int
) -> None:
    answered, reply = raw(running.urls["whacenter"], "/send", urlencode(fields), {"Content-Type": content_type})
    assert answered == status
    assert reply["status"] is False
    assert running.stand_ins.log("whacenter") == []


def test_a_send_is_not_taken_by_get(running: Running) -> None:
    query = f"?{urlencode(FORM)}"
    assert raw(running.urls["wablas"], f"/api/send-message{query}", b"", AUTHORIZED, "GET")[0] == 405
    assert raw(running.urls["whacenter"], f"/send{query}", b"", {}, "GET")[0] == 405


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /api/send-message HTTP/1.0\r\nHost: x\r\n\r\n",
        b"POST /api/send-message HTTP/1.1\r\n\r\n",
        b"POST /api/send-message\r\nHost: x\r\n\r\n",
        b"POST http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
    ],
    ids=range(11),
)
def test_broken_http_is_refused_and_the_connection_ends(running: Running, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(running.urls["wablas"]).port or 0), PATIENCE) as client:
        client.sendall(request_bytes)
        reply = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(4096):
                reply += piece
    assert reply == b"" or reply.startswith(b"HTTP/1.1 4")


def test_every_known_account_sends_and_others_do_not(running: Running, transport: PlatformTransport) -> None:
    wrong = send(running, transport, "wablas", TEXT, account=running.account("wablas", token="other"))
    assert isinstance(wrong, Rejected)
    assert wrong.scope is Scope.CREDENTIAL
    label = running.stand_ins.add_account("wablas", {"token": "other"})
    assert running.stand_ins.add_account("wablas", {"token": "other"}) == label
    taken = send(running, transport, "wablas", TEXT, account=running.account("wablas", token="other"))
    assert isinstance(taken, Accepted)
    assert [each["account"] for each in running.stand_ins.log("wablas")] == [label]
    for credentials in ({}, {"secret_key": "x"}, {"token": ""}, {"token": "x", "more": "y"}):
        with pytest.raises(SalamanderError):
            running.stand_ins.add_account("wablas", credentials)


@pytest.mark.parametrize("name", ["wablas", "whacenter"])
def test_the_check_tells_a_linked_device_from_an_unlinked_and_an_unknown_one(
    running: Running, transport: PlatformTransport, name: str
) -> None:
    contract = contract_of(name)

    def state(account: Account) -> AccountState:
        request = contract.build_check(account)
        assert request is not None
        return transport.check(request, contract, 5).state

    assert state(running.account(name)) is AccountState.CONNECTED
    running.stand_ins.set_fault(name, "disconnected")
    assert state(running.account(name)) is AccountState.DISCONNECTED
    unknown = running.account(name, **dict.fromkeys(DEFAULT_ACCOUNTS[name], "unknown"))
    # Whacenter has one sentence for both.
    assert state(unknown) is (AccountState.REFUSED if name == "wablas" else AccountState.DISCONNECTED)
    assert running.stand_ins.log(name) == []


def test_a_fault_ends_by_itself_after_its_time(running: Running, transport: PlatformTransport) -> None:
    running.stand_ins.set_fault("wablas", "throttle", 0.3)
    assert isinstance(send(running, transport, "wablas", TEXT), Retryable)
    deadline = time.monotonic() + PATIENCE
    while not isinstance(send(running, transport, "wablas", TEXT), Accepted):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("name", "taken", "code"), [("meta_cloud", 100, "throttled"), ("green_api", 63, "throttled")])
def test_a_documented_rate_is_enforced_for_each_account(
    running: Running, transport: PlatformTransport, name: str, taken: int, code: str
) -> None:
    stand_in = running.stand_ins._stand_ins[name]
    for number in range(taken):
        assert not stand_in.rates.is_too_fast("default", time.monotonic() + 0.5), number
    outcome = send(running, transport, name, TEXT)
    assert isinstance(outcome, Retryable)
    assert (outcome.code, outcome.scope) == (code, Scope.ACCOUNT)
    assert not stand_in.rates.is_too_fast("another", time.monotonic())


def test_metas_pace_for_a_recipient_is_enforced_for_that_recipient(
    running: Running, transport: PlatformTransport
) -> None:
    stand_in = running.stand_ins._stand_ins["meta_cloud"]
    while not stand_in.rates.is_too_often("default", "6280000000001", time.monotonic()):
        pass
    outcome = send(running, transport, "meta_cloud", replace(TEXT, to="6280000000001"))
    assert isinstance(outcome, Retryable)
    assert (outcome.code, outcome.scope) == ("pair_rate_limited", Scope.MESSAGE)
    assert isinstance(send(running, transport, "meta_cloud", replace(TEXT, to="6280000000002")), Accepted)


def test_an_unknown_platform_or_fault_is_refused(running: Running) -> None:
    for attempt in (
        lambda: running.stand_ins.set_fault("wablas", "earthquake"),
        lambda: running.stand_ins.set_fault("pigeon", "drip"),
        lambda: running.stand_ins.log("pigeon"),
    ):
        with pytest.raises(SalamanderError):
            attempt()


def test_stopping_ends_answers_under_way_and_frees_the_ports(tmp_path: Path, transport: PlatformTransport) -> None:
    running = Running(tmp_path)
    running.stand_ins.set_fault("wablas", "slow-after-recording")
    outcomes: list[Outcome] = []
    sending = threading.Thread(
        target=lambda: outcomes.append(send(running, transport, "wablas", TEXT, seconds=PATIENCE))
    )
    sending.start()
    deadline = time.monotonic() + PATIENCE
    while not running.stand_ins.log("wablas"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.stop()
    sending.join(PATIENCE)
    assert [type(each) for each in outcomes] == [Unknown]
    for url in running.urls.values():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), 1).close()


def test_accounts_ports_and_records_outlive_a_stop(tmp_path: Path, transport: PlatformTransport) -> None:
    first = Running(tmp_path)
    first.stand_ins.add_account("whacenter", {"device_id": "second-device"})
    send(first, transport, "wablas", TEXT)
    urls, log = first.urls, first.stand_ins.log("wablas")
    first.stop()
    again = Running(tmp_path)
    assert (again.urls, again.stand_ins.log("wablas")) == (urls, log)
    assert isinstance(
        send(again, transport, "whacenter", TEXT, account=again.account("whacenter", device_id="second-device")),
        Accepted,
    )
    again.stop()
    assert (tmp_path / "platforms.sqlite3").stat().st_mode & 0o077 == 0


def test_a_taken_port_is_replaced_by_a_free_one(tmp_path: Path) -> None:
    first = Running(tmp_path)
    first.stop()
    port = urlsplit(first.urls["wablas"]).port or 0
    with socket.create_server(("127.0.0.1", port)):
        again = Running(tmp_path)
        assert again.urls["wablas"] != first.urls["wablas"]
        assert again.urls["whacenter"] == first.urls["whacenter"]
        again.stop()


_SERVE = """
import asyncio, json, pathlib, sys
from simulator.platforms.server import PlatformStandIns

async def serve():
    stand_ins = PlatformStandIns(pathlib.Path(sys.argv[1]))
    print(json.dumps(await stand_ins.start()), flush=True)
    await asyncio.Event().wait()

asyncio.run(serve())
"""


def test_a_killed_stand_in_has_lost_nothing_it_answered_for(tmp_path: Path, transport: PlatformTransport) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    contract = contract_of("wablas")
    accepted: list[str | None] = []
    try:
        assert process.stdout is not None
        urls = json.loads(process.stdout.readline())
        account = check_account(contract, urls["wablas"], DEFAULT_ACCOUNTS["wablas"], loopback_allowed=True)
        killer = threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL))
        killer.start()
        for number in range(100_000):
            request = contract.build_request(replace(TEXT, reference=f"m-{number}"), account)
            outcome = transport.send(request, contract, 5)
            if not isinstance(outcome, Accepted):
                break
            accepted.append(outcome.provider_id)
        killer.join()
    finally:
        process.kill()
        process.communicate()
    again = Running(tmp_path)
    recorded = [each["id"] for each in again.stand_ins.log("wablas")]
    assert again.urls == urls
    again.stop()
    assert accepted
    assert recorded[: len(accepted)] == accepted
    assert len(recorded) <= len(accepted) + 1
