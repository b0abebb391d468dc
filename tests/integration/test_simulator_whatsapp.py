"""The loopback WhatsApp, driven by the real client."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from config.errors import SalamanderError
from simulator.client import SimulatorClient, SimulatorNotRunning, SimulatorRefused, simulator_info
from tests.integration.whatsapp_client_process import ClientProcess

_ROOT = Path(__file__).parents[2]
_NUMBERS = itertools.count(60120000001)


def eventually(check: Callable[[], Any], seconds: float = 15) -> Any:
    """Return what ``check`` returns as soon as it is true."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s; last seen: {found!r}")
        time.sleep(0.02)


class SimulatorProcess:
    """A simulator in a process of its own, on one directory and one port."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.client = SimulatorClient(directory)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "simulator", str(self.directory), "--proxy-port", str(self.port)], cwd=_ROOT
        )
        eventually(self.answers)

    def answers(self) -> bool:
        assert self.process.poll() is None, "the simulator ended"
        with contextlib.suppress(SimulatorNotRunning):
            return bool(self.client.info()["pid"] == self.process.pid)
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(tmp_path_factory.mktemp("simulator"))
    yield process
    if process.process.poll() is None:
        assert process.stop() == 0


@pytest.fixture
def sim(simulator: SimulatorProcess) -> Iterator[SimulatorClient]:
    yield simulator.client
    simulator.client.fault("clear")


@pytest.fixture
def number() -> str:
    return str(next(_NUMBERS))


@pytest.fixture
def other() -> str:
    return str(next(_NUMBERS))


Start = Callable[..., ClientProcess]


@pytest.fixture
def start(sim: SimulatorClient, tmp_path: Path) -> Iterator[Start]:
    """Start a client process; each store it is given is a session of its own."""
    running: list[ClientProcess] = []

    def begin(store: str = "session.db", **settings: Any) -> ClientProcess:
        running.append(ClientProcess(sim.info(), tmp_path / store, **settings))
        return running[-1]

    yield begin
    for client in running:
        client.close()


def link(sim: SimulatorClient, client: ClientProcess, number: str) -> str:
    """Pair ``client`` with the phone ``number`` and wait until it is connected; return its JID."""
    since = client.mark
    jid = sim.scan(number, client.pair())
    client.wait("connected", since=since)
    return jid


def texts(sim: SimulatorClient, number: str) -> list[str]:
    return [entry["text"] for entry in sim.inbox(number)]


def test_a_device_pairs_by_qr_and_sends_a_text_that_both_phones_decrypt(
    sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client = start()
    jid = link(sim, client, number)
    assert jid == f"{number}:1@s.whatsapp.net"
    assert client.wait("paired")["jid"] == jid
    client.wait("history")
    identifier = client.send(other, "hello")
    (entry,) = sim.inbox(other)
    assert (entry["id"], entry["sender"], entry["sender_jid"]) == (identifier, number, jid)
    assert (entry["text"], entry["kind"]) == ("hello", "text")
    assert abs(entry["time"] - time.time()) < 60
    (copy,) = sim.sent(number)
    assert (copy["id"], copy["text"]) == (identifier, "hello")
    client.wait("receipt", ids=[identifier], own=False)
    client.wait("receipt", ids=[identifier], own=True)
    assert sim.read(other) == 1
    eventually(lambda: client.saw("receipt") == 3)
    eventually(lambda: sim.queued(number) == 0)
    assert sim.stats()["undecryptable"] == 0


def test_a_device_pairs_by_a_code_and_a_wrong_code_is_refused(sim: SimulatorClient, start: Start, number: str) -> None:
    client = start()
    client.pair()
    with pytest.raises(SimulatorRefused, match="No device asked"):
        sim.enter_code(number, "ABCD-1234")
    client.do("code", number=number)
    code = client.wait("code")["text"]
    assert [waiting["code_for"] for waiting in sim.waiting()] == [number]
    wrong = ("2" if code[0] == "1" else "1") + code[1:]
    with pytest.raises(SimulatorRefused, match="Wrong code"):
        sim.enter_code(number, wrong)
    jid = sim.enter_code(number, code)
    assert client.wait("paired")["jid"] == jid
    client.wait("connected")
    client.send("60199990001", "paired with a code")


@pytest.mark.parametrize(("spoil", "reason"), [("hmac", "hmac-mismatch"), ("signature", "signature-mismatch")])
def test_a_device_refuses_a_phone_whose_statement_is_wrong(
    sim: SimulatorClient, start: Start, number: str, spoil: str, reason: str
) -> None:
    client = start()
    qr = client.pair()
    with pytest.raises(SimulatorRefused) as refused:
        sim.call("scan", number=number, qr=qr, spoil=spoil)
    assert refused.value.code == reason
    assert client.saw("paired") == 0
    assert all(phone["companions"] == [] for phone in sim.phones() if phone["number"] == number)


def test_a_qr_code_is_refused_when_nobody_shows_it_or_when_it_shows_other_keys(
    sim: SimulatorClient, start: Start, number: str
) -> None:
    client = start()
    qr = client.pair()
    ref, noise, identity, secret, kind = qr.partition("#")[2].split(",")
    with pytest.raises(SimulatorRefused, match="No device waits"):
        sim.scan(number, ",".join(["2@nobody", noise, identity, secret, kind]))
    with pytest.raises(SimulatorRefused, match="other keys"):
        sim.scan(number, ",".join([ref, identity, noise, secret, kind]))
    with pytest.raises(SimulatorRefused, match="not the text"):
        sim.scan(number, "hello")
    assert sim.scan(number, qr) == f"{number}:1@s.whatsapp.net"
    client.wait("connected")


def test_media_are_uploaded_encrypted_and_opened_by_the_recipient(
    sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client = start()
    link(sim, client, number)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    client.do("media", kind="image", to=other, data=picture.getvalue().hex(), caption="a picture")
    client.wait("answer", error=None)
    document = os.urandom(100_000)
    since = client.mark
    client.do("media", kind="document", to=other, data=document.hex(), caption="paper", file_name="a.txt")
    client.wait("answer", since=since, error=None)
    image, paper = sim.inbox(other)
    assert (image["kind"], image["text"], image["mimetype"]) == ("image", "a picture", "image/png")
    assert image["media_sha256"] == hashlib.sha256(picture.getvalue()).hexdigest()
    assert (paper["kind"], paper["caption"], paper["file_name"]) == ("document", "paper", "a.txt")
    assert paper["media_sha256"] == hashlib.sha256(document).hexdigest()


def test_some_numbers_are_not_on_whatsapp(sim: SimulatorClient, start: Start, number: str) -> None:
    client = start()
    link(sim, client, number)
    client.do("is on whatsapp", numbers=["+60199990001", "+60199990000"])
    assert client.wait("is on whatsapp")["numbers"] == {"+60199990001": True, "+60199990000": False}
    client.do("send", to="60199990000", text="nobody")
    assert "no LID found" in client.wait("answer")["error"]
    sim.add_phone("60199991000")
    client.send("60199991000", "added explicitly")
    assert texts(sim, "60199991000") == ["added explicitly"]
    with pytest.raises(SimulatorRefused, match="no phone number"):
        sim.add_phone("0123")


def test_a_phone_speaks_to_a_device_now_or_when_it_is_back(
    sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client = start()
    jid = link(sim, client, number)
    said = sim.say(other, jid, "first")
    message = client.wait("message", id=said)
    assert (message["text"], message["sender_number"], message["own"]) == ("first", other, False)
    client.send(other, "an answer in the session the phone began")
    client.kill()
    eventually(lambda: jid not in sim.stats()["live"])
    waiting = [sim.say(other, number, text) for text in ("second", "third")]
    again = start()
    again.do("open", jid=jid)
    again.wait("connected")
    assert [again.wait("message", id=identifier)["text"] for identifier in waiting] == ["second", "third"]
    eventually(lambda: sim.queued(number) == 0)
    assert texts(sim, number) == ["second", "third"]


def test_a_phone_that_is_off_answers_when_it_is_on_again(
    sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client = start()
    link(sim, client, number)
    sim.add_phone(other)
    sim.phone_power(other, False)
    identifier = client.send(other, "later")
    client.wait("receipt", ids=[identifier], own=True)
    assert sim.inbox(other) == []
    assert sim.stats()["waiting_for_phones"] == 1
    with pytest.raises(SimulatorRefused, match="is off"):
        sim.say(other, number, "off")
    sim.phone_power(other, True)
    client.wait("receipt", ids=[identifier], own=False)
    assert texts(sim, other) == ["later"]


def test_two_devices_of_one_phone_see_each_others_messages(
    sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    first, second = start("first.db"), start("second.db")
    link(sim, first, number)
    assert link(sim, second, number) == f"{number}:2@s.whatsapp.net"
    identifier = first.send(other, "from the first")
    assert second.wait("message", id=identifier)["own"] is True
    identifier = second.send(number, "to myself")
    assert first.wait("message", id=identifier)["own"] is True


def test_a_device_linked_later_is_learnt_from_the_hash_in_an_acknowledgement(
    sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client, later = start("first.db"), start("later.db")
    link(sim, client, number)
    client.send(other, "nobody is linked yet")
    link(sim, later, other)
    missed = client.send(other, "with the old list of devices")
    identifier = client.send(other, "with the new one")
    assert later.wait("message", id=identifier)["own"] is False
    assert not [event for event in later.events if event["event"] == "message" and event["id"] == missed]
    assert len(sim.inbox(other)) == 3


def test_a_killed_simulator_comes_back_with_everything_it_had(
    simulator: SimulatorProcess, sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client = start()
    jid = link(sim, client, number)
    sim.add_phone(other)
    client.send(other, "before")
    before, figures = sim.info(), sim.stats()
    sim.phone_power(other, False)
    waiting = client.send(other, "waiting for the phone")
    simulator.kill()
    client.wait("disconnected")
    simulator.start()
    after = sim.info()
    assert [after[key] for key in ("proxy", "noise_root", "ca_file")] == [
        before[key] for key in ("proxy", "noise_root", "ca_file")
    ]
    since = client.mark
    client.wait("connected", since=0)
    eventually(lambda: jid in sim.stats()["live"])
    assert sim.stats()["messages"] == figures["messages"] + 1
    sim.phone_power(other, True)
    client.wait("receipt", ids=[waiting], own=False)
    client.send(other, "after")
    assert texts(sim, other) == ["before", "waiting for the phone", "after"]
    client.wait("message", id=sim.say(other, jid, "the session is still there"), since=since)
    assert sim.stats()["undecryptable"] == figures["undecryptable"]
    assert sim.stats()["most_live"][jid] == 1


def test_a_phone_that_lost_its_sessions_asks_for_the_message_again(
    simulator: SimulatorProcess, sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client = start()
    link(sim, client, number)
    client.send(other, "first")
    client.wait("message", id=sim.say(other, number, "so that the session is established"))
    client.send(other, "second")
    undecryptable = sim.stats()["undecryptable"]
    simulator.kill()
    with contextlib.closing(sqlite3.connect(simulator.directory / "whatsapp.db")) as database:
        database.execute("DELETE FROM sessions WHERE number = ?", (other,))
        database.commit()
    simulator.start()
    client.wait("connected", since=client.mark)
    identifier = client.send(other, "third")
    eventually(lambda: len(sim.inbox(other)) == 3)
    assert sim.inbox(other)[-1]["id"] == identifier
    assert texts(sim, other) == ["first", "second", "third"]
    assert sim.stats()["undecryptable"] == undecryptable + 1
    client.wait("receipt", ids=[identifier], own=False)


def test_a_device_that_lost_its_sessions_asks_the_phone_again(
    sim: SimulatorClient, start: Start, tmp_path: Path, number: str, other: str
) -> None:
    client = start("lost.db")
    jid = link(sim, client, number)
    client.wait("message", id=sim.say(other, number, "first"))
    client.send(other, "so that the session is established")
    client.kill()
    with contextlib.closing(sqlite3.connect(tmp_path / "lost.db")) as database:
        database.execute("DELETE FROM whatsmeow_sessions")
        database.commit()
    said = sim.say(other, number, "second")
    again = start("lost.db")
    again.do("open", jid=jid)
    again.wait("undecryptable")
    assert again.wait("message", id=said)["text"] == "second"
    eventually(lambda: sim.queued(number) == 0)


def test_receipts_wait_for_a_client_that_died_before_it_saw_them(
    sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client = start()
    jid = link(sim, client, number)
    sim.add_phone(other)
    sim.phone_power(other, False)
    identifier = client.send(other, "receipt later")
    client.kill()
    eventually(lambda: jid not in sim.stats()["live"])
    sim.phone_power(other, True)
    assert sim.queued(jid) >= 1
    again = start()
    again.do("open", jid=jid)
    again.wait("receipt", ids=[identifier], own=False)
    eventually(lambda: sim.queued(number) == 0)


def test_a_second_client_of_one_device_replaces_the_first(sim: SimulatorClient, start: Start, number: str) -> None:
    first = start()
    jid = link(sim, first, number)
    second = start()
    second.open(jid)
    first.wait("replaced")
    eventually(lambda: sim.stats()["live"].get(jid) == 1)
    assert sim.stats()["most_live"][jid] == 2
    second.send("60199990001", "only one is left")


def test_a_device_that_logs_out_is_forgotten(sim: SimulatorClient, start: Start, number: str) -> None:
    client = start()
    link(sim, client, number)
    client.do("logout")
    client.wait("answer", error=None)
    assert {"number": number, "on": True, "companions": []} in sim.phones()


def test_faults_on_a_connection_show_as_they_do_with_the_real_service(
    sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client = start()
    jid = link(sim, client, number)
    for kind in ("reset", "stream-503"):
        since = client.mark
        assert sim.fault(kind, jid) == 1
        client.wait("disconnected", since=since)
        client.wait("connected", since=since)
    for kind, seconds in (("refuse", 1.0), ("http-503", 1.0), ("tls-failure", 1.0), ("failure-503", 1.0)):
        since = client.mark
        sim.fault(kind, seconds=seconds)
        sim.fault("reset", number)
        client.wait("disconnected", since=since)
        client.wait("connected", since=since)
        client.send(other, kind)
    assert texts(sim, other) == ["refuse", "http-503", "tls-failure", "failure-503"]
    assert sim.call("current_faults") == []
    assert sim.stats()["most_live"][jid] == 1


def test_faults_on_messages_show_as_they_do_with_the_real_service(
    sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client = start()
    jid = link(sim, client, number)
    client.send(other, "before")
    since = client.mark
    sim.fault("ack-error", jid)
    client.do("send", to=other, text="refused")
    assert "463" in client.wait("answer", since=since)["error"]
    sim.fault("clear")
    since = client.mark
    sim.fault("iq-error", number)
    client.do("send", to="60199990123", text="needs a query")
    assert "SendMessageError" in client.wait("answer", since=since)["error"]
    sim.fault("clear")
    # Swallowed, then the connection drops: the client sends the same message again by itself.
    since, figures = client.mark, sim.stats()
    sim.fault("drop-message", jid)
    client.do("send", to=other, text="swallowed")
    eventually(lambda: sim.stats().get("dropped", 0) == figures.get("dropped", 0) + 1)
    sim.fault("clear")
    sim.fault("reset", jid)
    assert client.wait("answer", since=since)["error"] is None
    assert sim.stats()["duplicates"] == figures["duplicates"]
    # Delivered without an acknowledgement, then the connection drops: sent again, counted, delivered once.
    since = client.mark
    sim.fault("lost-ack", jid)
    client.do("send", to=other, text="delivered")
    eventually(lambda: "delivered" in texts(sim, other))
    sim.fault("clear")
    sim.fault("reset", jid)
    assert client.wait("answer", since=since)["error"] is None
    assert sim.stats()["duplicates"] == figures["duplicates"] + 1
    assert texts(sim, other) == ["before", "swallowed", "delivered"]
    sim.fault("slow", jid)
    begun = time.monotonic()
    client.send(other, "late")
    assert time.monotonic() - begun > 2.9


def test_a_half_open_connection_shows_by_its_keep_alive_alone(
    sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client = start(keep_alive=(0.4, 0.2, 0.4, 60.0))
    jid = link(sim, client, number)
    since = client.mark
    sim.fault("half-open", jid)
    client.wait("keep-alive timeout", since=since)
    client.do("send", to=other, text="stuck")
    client.wait("keep-alive timeout", since=client.mark)
    assert client.saw("disconnected", since) == 0
    assert sim.inbox(other) == []
    sim.fault("clear")
    client.wait("keep-alive restored", since=since)
    eventually(lambda: texts(sim, other) == ["stuck"])


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("failure-401", "logged out"),
        ("failure-403", "logged out"),
        ("failure-406", "logged out"),
        ("failure-402", "banned"),
        ("failure-405", "outdated"),
        ("replaced", "replaced"),
        ("device-removed", "logged out"),
    ],
)
def test_a_session_ends_as_it_does_with_the_real_service(
    sim: SimulatorClient, start: Start, number: str, kind: str, event: str
) -> None:
    client = start()
    jid = link(sim, client, number)
    since = client.mark
    if kind.startswith("failure"):
        sim.fault(kind, jid)
        sim.fault("reset", jid)
    else:
        assert sim.fault(kind, jid) == 1
    client.wait(event, since=since)
    gone = event == "logged out"
    (phone,) = (phone for phone in sim.phones() if phone["number"] == number)
    assert phone["companions"] == ([] if gone else [jid])
    assert client.saw("connected", since) == 0


def test_a_device_is_unlinked_while_it_is_away(sim: SimulatorClient, start: Start, number: str) -> None:
    client = start()
    jid = link(sim, client, number)
    client.kill()
    assert sim.fault("device-removed", jid) == 1
    again = start()
    again.do("open", jid=jid)
    again.wait("logged out")
    assert sim.stats()["logged_out_attempts"] >= 1


def test_each_message_arrives_once_while_the_simulator_is_killed_again_and_again(
    simulator: SimulatorProcess, sim: SimulatorClient, start: Start, number: str, other: str
) -> None:
    client = start()
    link(sim, client, number)
    acknowledged: list[str] = []
    failed: list[dict[str, Any]] = []
    for count in range(30):
        if count % 10 == 3:
            client.do("send", to=other, text=f"in flight {count}")
            simulator.kill()
            since = client.mark
            simulator.start()
            client.wait("connected", since=since)
        client.do("send", to=other, text=f"message {count}")
        answer = client.wait("answer", seconds=90, text=f"message {count}")
        if answer["error"]:
            failed.append(answer)
        else:
            acknowledged.append(f"message {count}")
    assert failed == []
    eventually(lambda: set(acknowledged) <= set(texts(sim, other)))
    arrived = texts(sim, other)
    assert len(arrived) == len(set(arrived))


def test_a_black_hole_says_nothing(sim: SimulatorClient, start: Start, number: str) -> None:
    client = start()
    jid = link(sim, client, number)
    sim.fault("blackhole")
    sim.fault("reset", jid)
    client.wait("disconnected")
    eventually(lambda: jid not in sim.stats()["live"])
    connects = sim.stats()["connects"]
    sim.fault("clear")
    # The client gives a silent connection ten seconds, then tries again.
    client.wait("connected", seconds=30, since=client.mark)
    assert sim.stats()["connects"] > connects


def test_orders_that_make_no_sense_are_refused_with_the_next_step(
    simulator: SimulatorProcess, sim: SimulatorClient, tmp_path: Path
) -> None:
    with pytest.raises(SimulatorRefused, match="no fault") as refused:
        sim.fault("earthquake")
    assert "reset" in refused.value.next_step
    with pytest.raises(SimulatorRefused, match="before the server knows"):
        sim.fault("refuse", "60120000001")
    with pytest.raises(SimulatorRefused, match="no such operation"):
        sim.call("dance")
    with pytest.raises(SimulatorRefused, match="Not a request"):
        sim.call("say", words=1)
    with pytest.raises(SimulatorRefused, match="No device is linked"):
        sim.unlink("60199999999:3@s.whatsapp.net")
    with pytest.raises(SimulatorNotRunning):
        SimulatorClient(tmp_path).stats()
    assert set(sim.faults()) >= {"reset", "half-open", "lost-ack", "clear"}
    second = subprocess.run(
        [sys.executable, "-m", "simulator", str(simulator.directory)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert second.returncode == 6
    assert "already runs" in second.stderr


def test_a_simulator_stops_cleanly_and_tells_it(tmp_path: Path) -> None:
    process = SimulatorProcess(tmp_path / "a directory with a name so long that sockets in it need another name" / "x")
    info = simulator_info(process.directory)
    assert info["pid"] == process.process.pid
    assert set(info) == {"pid", "proxy", "ca_file", "noise_root", "control", "platforms"}
    assert set(info["platforms"]) >= {"wablas", "whacenter"}
    assert (process.directory / "control.sock").stat().st_mode & 0o777 == 0o600
    assert (process.directory / "simulator.json").stat().st_mode & 0o777 == 0o600
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(10) == 0
    with pytest.raises(SalamanderError):
        simulator_info(process.directory)
    assert not (process.directory / "control.sock").exists()
