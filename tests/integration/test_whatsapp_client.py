"""The real WhatsApp library against the simulator and a real PostgreSQL: every trap it has, and what we make of it."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import struct
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from actors.whatsapp.session import (
    delete_session,
    forget_secrets,
    message_ids_of,
    migrate_store,
    phone_of_lid,
    stored_session,
)
from simulator.client import SimulatorClient
from storage.embedded import EmbeddedPostgres
from tests.support.whatsapp_process import DriverError, Hosting, Simulating, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A phone that nobody pairs with: it only receives.
FRIEND = "60199990001"
#: The simulator's rule: numbers that end so are not on WhatsApp.
NOBODY = "60199990000"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres") / "server")
    server.start()
    server.ensure_database("whatsmeow")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def store_url(postgres: EmbeddedPostgres) -> str:
    url = postgres.url("whatsmeow")
    migrate_store(url)
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(store_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def whatsapp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorClient]:
    simulating = Simulating(tmp_path_factory.mktemp("simulator"))
    yield SimulatorClient(simulating.directory)
    simulating.stop()


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "whatsapp" in request.fixturenames:
        request.getfixturevalue("whatsapp").fault("clear")


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, store_url: str, whatsapp: SimulatorClient) -> Iterator[Hosting]:
    """One process for all tests that do not wear it out: that it outlives them all is a test by itself."""
    with Hosting(tmp_path_factory.mktemp("process"), store_url, whatsapp.info()) as hosting:
        yield hosting
        hosting.call("process")  # it lives


@pytest.fixture
def own_process(tmp_path: Path, store_url: str, whatsapp: SimulatorClient) -> Iterator[Hosting]:
    with Hosting(tmp_path / "process", store_url, whatsapp.info()) as hosting:
        yield hosting


def pair(process: Hosting, whatsapp: SimulatorClient, client: str, number: str) -> str:
    """Link a new companion by QR; return its JID once it is connected."""
    process.call("open", client=client)
    jid = whatsapp.scan(number, process.wait_for(client, "PairingQr")["text"])
    assert process.wait_for(client, "Paired")["jid"] == jid
    process.wait_for(client, "Connected")
    return jid


_numbers = iter(range(60_110_000_001, 60_119_999_999))


@pytest.fixture
def number() -> str:
    """A phone number that no other test uses."""
    return str(next(number for number in _numbers if not str(number).endswith("000")))


@pytest.fixture
def paired(request: pytest.FixtureRequest, process: Hosting, whatsapp: SimulatorClient, number: str) -> Iterator[str]:
    """The name of a client in the shared process that is linked and connected; its JID is in ``jid_of``."""
    client = f"{request.node.name}"
    pair(process, whatsapp, client, number)
    yield client
    process.call("close", client=client)


def jid_of(process: Hosting, client: str) -> str:
    return str(process.call("look", client=client)["jid"])


def refused(process: Hosting, code: str, **order: Any) -> DriverError:
    """Expect that an opening fails with ``code``."""
    with pytest.raises(DriverError) as caught:
        process.call("open", **order)
    assert (caught.value.kind, caught.value.code) == ("ClientError", code), caught.value.text
    return caught.value


# The store


def test_several_migrations_of_an_empty_database_at_once_all_succeed(postgres: EmbeddedPostgres) -> None:
    postgres.ensure_database("empty")
    url = postgres.url("empty")
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        list(threads.map(migrate_store, [url] * 3))
    with psycopg.connect(url) as connection:
        indexes = connection.execute("select indexname from pg_indexes where indexname like 'salamander%'").fetchall()
    assert indexes == [("salamander_message_secrets_key",)]


def test_a_migration_without_a_server_says_so_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="did not answer") as caught:
        migrate_store(f"postgres://me:hidden-word@/x?host={tmp_path}")
    assert "hidden-word" not in str(caught.value)


# Pairing


def test_a_phone_links_a_new_device_by_qr(
    process: Hosting, whatsapp: SimulatorClient, store: psycopg.Connection[Any], number: str
) -> None:
    jid = pair(process, whatsapp, "by qr", number)
    event = process.wait_for("by qr", "Paired")
    assert jid.startswith(f"{number}:")
    assert process.call("look", client="by qr") == {"jid": jid, "connected": True, "busy": False}
    session = stored_session(store, jid)
    assert session is not None
    assert event["lid"] == session.lid != ""
    assert phone_of_lid(store, session.lid) == number
    process.call("close", client="by qr")


def test_a_phone_links_a_new_device_by_code(process: Hosting, whatsapp: SimulatorClient, number: str) -> None:
    process.call("open", client="by code")
    code = process.call("pair_code", client="by code", number=number)
    jid = whatsapp.enter_code(number, code)
    assert process.wait_for("by code", "Paired")["jid"] == jid
    process.wait_for("by code", "Connected")
    process.call("close", client="by code")


def test_a_pairing_that_is_broken_off_costs_a_thread_and_nothing_else(own_process: Hosting) -> None:
    own_process.call("open", client="first")
    own_process.call("close", client="first")
    own_process.call("close", client="first")
    assert own_process.call("process")["abandoned"] == 1
    own_process.call("open", client="second")
    own_process.wait_for("second", "PairingQr")


def test_a_pairing_ends_with_its_connection_and_can_be_begun_anew(tmp_path: Path, store_url: str) -> None:
    simulating = Simulating(tmp_path / "other")
    try:
        other = SimulatorClient(simulating.directory).info()
        with Hosting(tmp_path / "elsewhere", store_url, other) as process:
            process.call("open", client="cut off")
            simulating.stop()
            process.wait_for("cut off", "PairingEnded", outcome="timeout")
            process.call("close", client="cut off")
            assert process.call("process")["abandoned"] == 1
            refused(process, "connect_refused", client="anew")
    finally:
        simulating.stop()


# Sending


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "🦎 emoji, família 👨‍👩‍👧, ümlaut, 漢字",
        "@60123456789 and @everyone are only words",
        "https://example.com/?a=1&b=2 https://youtu.be/dQw4w9WgXcQ",
        "  spaces \n\n lines \t *bold* _it_ ```code``` \\ %s {} \u200b\u202e",
        "x" * 20_000,
    ],
)
def test_a_text_arrives_exactly_as_it_was_written(
    process: Hosting, whatsapp: SimulatorClient, paired: str, store: psycopg.Connection[Any], text: str
) -> None:
    sent = process.send(paired, FRIEND, text)
    arrived = [message for message in whatsapp.inbox(FRIEND) if message["id"] == sent["message_id"]]
    assert [(message["text"], message["kind"]) for message in arrived] == [(text, "text")]
    assert arrived[0]["secret"] == sent["secret"].hex()
    assert message_ids_of(store, [sent["secret"], b"\0" * 32]) == {sent["secret"]: sent["message_id"]}
    assert abs(sent["timestamp"] - time.time()) < 60
    process.wait_for(paired, "ReceiptReceived", kind="delivered", message_ids=[sent["message_id"]])


def test_the_proof_of_a_send_can_be_forgotten(process: Hosting, paired: str, store: psycopg.Connection[Any]) -> None:
    sent = process.send(paired, FRIEND, "prune me")
    assert forget_secrets(store, [sent["secret"]]) == 1
    assert message_ids_of(store, [sent["secret"]]) == {}


def png(side: int) -> bytes:
    """A black square, as a PNG file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(3 * side) for _ in range(side)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


OGG = b"OggS\0\2" + bytes(20) + b"\1\x13OpusHead\1\1" + bytes(400)
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(500)
PDF = b"%PDF-1.4\n" + os.urandom(3000) + b"\n%%EOF"


@pytest.mark.parametrize(
    ("kind", "media", "name", "caption", "arrives_as", "media_type"),
    [
        ("image", png(300), "", "a black square", "image", "image/png"),
        ("video", MP4, "clip.mp4", "a clip", "video", "video/mp4"),
        ("audio", OGG, "voice.ogg", "", "audio", "audio/ogg"),
        ("audio", OGG, "voice.ogg", "listen", "document", "audio/ogg"),
        ("document", PDF, "../report.pdf", "the report", "document", "application/pdf"),
        ("document", b"a,b\n1,2\n", "table.csv", "", "document", "text/csv"),
        ("image", b"not an image at all", "", "", "image", "image/jpeg"),
    ],
)
def test_media_arrive_with_their_content_type_and_caption(
    process: Hosting, whatsapp: SimulatorClient, paired: str,
    kind: str, media: bytes, name: str, caption: str, arrives_as: str, media_type: str,
) -> None:  # fmt: skip
    sent = process.send(paired, FRIEND, caption, kind=kind, media=media, name=name)
    [arrived] = [message for message in whatsapp.inbox(FRIEND) if message["id"] == sent["message_id"]]
    assert (arrived["kind"], arrived["mimetype"]) == (arrives_as, media_type)
    assert arrived["media_sha256"] == hashlib.sha256(media).hexdigest()
    assert (arrived["caption"] or "") == caption
    if arrives_as == "document":
        assert arrived["file_name"] == Path(name).name


@pytest.mark.parametrize(
    ("to", "content", "code"),
    [
        (NOBODY, {"body": "x"}, "not_on_whatsapp"),
        ("not a number", {"body": "x"}, "recipient_invalid"),
        (f"{FRIEND}:1@s.whatsapp.net", {"body": "x"}, "recipient_invalid"),
        ("status@broadcast", {"body": "x"}, "recipient_invalid"),
        (FRIEND, {"body": "x", "kind": "image"}, "media_empty"),
        (FRIEND, {"body": "half of a pair: \ud83e"}, "text_invalid"),
    ],
)
def test_what_can_never_be_delivered_is_refused(
    process: Hosting, paired: str, to: str, content: dict[str, Any], code: str
) -> None:
    with pytest.raises(DriverError) as caught:
        process.send(paired, to, **content)
    assert (caught.value.kind, caught.value.code) == ("SendRefused", code)


def test_a_recipient_may_be_named_by_lid(process: Hosting, whatsapp: SimulatorClient, paired: str) -> None:
    process.send(paired, f"+{FRIEND}", "to the number first")
    chat = process.wait_for(paired, "ReceiptReceived", kind="delivered")["chat"]
    assert chat.endswith("@lid")
    sent = process.send(paired, chat, "to the LID")
    assert sent["message_id"] in {message["id"] for message in whatsapp.inbox(FRIEND)}


def test_an_error_of_the_server_is_a_refusal_with_its_number(
    process: Hosting, whatsapp: SimulatorClient, paired: str
) -> None:
    whatsapp.fault("ack-error", jid_of(process, paired))
    with pytest.raises(DriverError) as caught:
        process.send(paired, FRIEND, "463")
    assert (caught.value.kind, caught.value.code) == ("SendRefused", "whatsapp_463")


def test_a_recipient_that_cannot_be_looked_up_means_not_sent(
    process: Hosting, whatsapp: SimulatorClient, paired: str, store: psycopg.Connection[Any]
) -> None:
    whatsapp.fault("iq-error", jid_of(process, paired))
    with pytest.raises(DriverError) as caught:
        process.send(paired, "60199990777", "who are you?")
    assert (caught.value.kind, caught.value.code) == ("NotSent", "not_prepared")


def test_a_message_without_a_copy_for_its_recipient_counts_as_not_sent(
    process: Hosting, whatsapp: SimulatorClient, paired: str, store: psycopg.Connection[Any]
) -> None:
    recipient = "60199990778"
    whatsapp.add_phone(recipient)
    assert process.call("is_on_whatsapp", client=paired, number=recipient)
    lid = whatsapp.add_phone("60199990779")["lid"].partition("@")[0]
    store.execute("insert into whatsmeow_lid_map (lid, pn) values (%s, %s)", (lid, "60199990779"))
    # Its LID is known and so are its devices, but there is no Signal session, and its keys cannot be fetched.
    whatsapp.fault("iq-error", jid_of(process, paired))
    with pytest.raises(DriverError) as caught:
        process.send(paired, "60199990779", "sealed for nobody")
    assert caught.value.kind == "NotSent"
    whatsapp.fault("clear")
    sent = process.send(paired, "60199990779", "sealed for nobody")
    assert [message["id"] for message in whatsapp.inbox("60199990779")] == [sent["message_id"]]


def test_a_lost_acknowledgement_leaves_a_proof_and_blocks_nobody_for_long(
    process: Hosting, whatsapp: SimulatorClient, paired: str, store: psycopg.Connection[Any]
) -> None:
    process.send(paired, FRIEND, "a session first")
    whatsapp.fault("lost-ack", jid_of(process, paired))
    secret = os.urandom(32)
    order: dict[str, Any] = {"client": paired, "to": FRIEND, "body": "did it arrive?", "secret": secret.hex()}
    with pytest.raises(DriverError) as caught:
        process.call("send", **order, seconds=1)
    assert caught.value.kind == "TimeoutError"
    [message_id] = message_ids_of(store, [secret]).values()
    assert message_id in {message["id"] for message in whatsapp.inbox(FRIEND)}
    assert process.call("look", client=paired)["busy"]
    with pytest.raises(DriverError) as caught:
        process.call("send", **{**order, "secret": os.urandom(32).hex()})
    assert (caught.value.kind, caught.value.code) == ("NotSent", "busy")
    started = time.monotonic()
    process.call("close", client=paired)
    assert time.monotonic() - started < 3
    with pytest.raises(DriverError) as caught:
        process.call("send", **order)
    assert (caught.value.kind, caught.value.code) == ("NotSent", "closed")


def test_a_secret_that_cannot_be_stored_is_journaled_before_the_message_leaves(
    process: Hosting, whatsapp: SimulatorClient, paired: str, store: psycopg.Connection[Any]
) -> None:
    store.execute("alter table whatsmeow_message_secrets add constraint broken check (false) not valid")
    try:
        sent = process.send(paired, FRIEND, "without proof")
    finally:
        store.execute("alter table whatsmeow_message_secrets drop constraint broken")
    assert message_ids_of(store, [sent["secret"]]) == {}
    journaled = process.wait_for(paired, "journal")
    assert journaled["message_id"] == sent["message_id"]
    assert not journaled["on_loop"]
    process.wait_for(paired, "SecretNotStored", message_id=sent["message_id"])
    names = process.names(paired)
    assert "ReceiptReceived" not in names[: names.index("journal")]


def test_messages_from_others_arrive(process: Hosting, whatsapp: SimulatorClient, paired: str) -> None:
    message_id = whatsapp.say(FRIEND, jid_of(process, paired), "👋 hi back")
    event = process.wait_for(paired, "MessageReceived", message_id=message_id)
    assert (event["text"], event["kind"], event["from_me"]) == ("👋 hi back", "text", False)
    assert FRIEND in event["sender_alternative"] + event["sender"]
    assert abs(event["timestamp"] - time.time()) < 60


def test_questions_about_numbers_are_answered(process: Hosting, paired: str) -> None:
    assert process.call("is_on_whatsapp", client=paired, number=FRIEND) is True
    assert process.call("is_on_whatsapp", client=paired, number=f"+{NOBODY}") is False


# Sessions that are not there


@pytest.mark.parametrize(
    "jid",
    [
        "60111111111:1@s.whatsapp.net",
        "60123456789@s.whatsapp.net",
        "60123456789:0@s.whatsapp.net",
        "123:1@lid",
        "x",
    ],
)
def test_a_jid_without_a_stored_session_is_an_error_and_no_crash(process: Hosting, jid: str) -> None:
    refused(process, "store_missing", client="nobody", jid=jid)
    process.call("process")


def test_a_deleted_session_cannot_be_opened(process: Hosting, paired: str, store: psycopg.Connection[Any]) -> None:
    jid = jid_of(process, paired)
    process.call("close", client=paired)
    assert delete_session(store, jid)
    assert not delete_session(store, jid)
    refused(process, "store_missing", client=paired, jid=jid)


def test_a_session_can_be_open_only_once_in_a_process(process: Hosting, paired: str) -> None:
    refused(process, "already_open", client="twin", jid=jid_of(process, paired))
    assert process.call("look", client=paired)["connected"]


def test_a_store_that_cannot_be_reached_is_told_as_such(tmp_path: Path, whatsapp: SimulatorClient, number: str) -> None:
    with Hosting(tmp_path / "process", f"postgres://me:pw@/x?host={tmp_path}", whatsapp.info()) as process:
        refused(process, "store_unavailable", client="a", jid="60123456789:1@s.whatsapp.net")
        refused(process, "store_unavailable", client="b")
        process.call("process")


# Several clients in one process


def test_two_companions_of_one_number_do_not_disturb_each_other(
    process: Hosting, whatsapp: SimulatorClient, number: str
) -> None:
    first, second = (pair(process, whatsapp, name, number) for name in ("left", "right"))
    assert first != second
    for name in ("left", "right"):
        process.send(name, FRIEND, name)
    process.call("close", client="left")
    process.call("drop", client="left")
    process.send("right", FRIEND, "still here")
    process.call("open", client="left", jid=first)
    senders = {process.send(name, FRIEND, "both")["message_id"]: name for name in ("left", "right")}
    arrived = {m["id"]: m["sender_jid"] for m in whatsapp.inbox(FRIEND) if m["id"] in senders}
    assert sorted(arrived.values()) == sorted([first, second])
    for name in ("left", "right"):
        process.call("close", client=name)


def test_a_client_reopened_twenty_times_is_not_stopped_by_its_forgotten_forerunners(
    own_process: Hosting, whatsapp: SimulatorClient, number: str
) -> None:
    jid = pair(own_process, whatsapp, "again", number)
    before: dict[str, Any] = {}
    for turn in range(20):
        own_process.call("close", client="again")
        own_process.call("drop", client="again")
        own_process.call("open", client="again", jid=jid)
        own_process.send("again", FRIEND, f"turn {turn}")
        before = before or own_process.call("process")
    own_process.call("process")
    assert own_process.call("probe", client="again", seconds=5)
    after = own_process.call("process")
    assert after["abandoned"] == 0
    assert after["threads"] <= before["threads"] + 2
    assert after["descriptors"] - before["descriptors"] <= 19 * 5


def test_ten_devices_opened_at_the_same_moment_all_connect(own_process: Hosting, whatsapp: SimulatorClient) -> None:
    jids = {f"d{i}": pair(own_process, whatsapp, f"d{i}", f"6011200001{i}") for i in range(10)}
    for name in jids:
        own_process.call("close", client=name)
    orders = [own_process.start("open", client=name, jid=jid) for name, jid in jids.items()]
    for order in orders:
        own_process.finish(order)
    sends = [own_process.start("send", client=name, to=FRIEND, body=name, secret=os.urandom(32).hex()) for name in jids]
    # Opening, closing and sending all at once is what a busy shard does.
    closing = [own_process.start("close", client=f"d{i}") for i in range(3)]
    opening = [own_process.start("open", client=f"new {i}") for i in range(3)]
    outcomes = []
    for order in sends:
        try:
            outcomes.append(own_process.finish(order)["message_id"])
        except DriverError as error:
            assert error.kind in {"NotSent", "SendUnknown"}  # noqa: PT017  # closed under its hands
    for order in closing + opening:
        own_process.finish(order)
    assert len(outcomes) >= 7
    own_process.call("shut")


def test_cut_database_connections_cost_neither_a_send_nor_an_opening(
    process: Hosting, paired: str, store: psycopg.Connection[Any]
) -> None:
    jid = jid_of(process, paired)
    cut = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where pid <> pg_backend_pid() and usename = user"
    )
    for turn in range(3):
        store.execute(cut)
        sent = process.send(paired, FRIEND, f"cut {turn}")
        assert message_ids_of(store, [sent["secret"]]) == {sent["secret"]: sent["message_id"]}
    store.execute(cut)
    process.call("close", client=paired)
    process.call("open", client=paired, jid=jid)


# What the network and the server do


def test_a_refused_connection_is_told_at_once_and_can_be_repeated(
    process: Hosting, whatsapp: SimulatorClient, paired: str
) -> None:
    jid = jid_of(process, paired)
    process.call("close", client=paired)
    whatsapp.fault("refuse")
    for _ in range(2):
        started = time.monotonic()
        refused(process, "connect_refused", client="later", jid=jid)
        assert time.monotonic() - started < 3
    whatsapp.fault("clear")
    process.call("open", client="later", jid=jid)
    process.call("close", client="later")


def test_a_server_that_never_answers_hurts_nobody_else(
    process: Hosting, whatsapp: SimulatorClient, paired: str, number: str
) -> None:
    jid = jid_of(process, paired)
    process.call("close", client=paired)
    pair(process, whatsapp, "healthy", "60113000001")
    healthy = jid_of(process, "healthy")
    process.call("close", client="healthy")
    whatsapp.fault("blackhole")
    connects = whatsapp.stats()["connects"]
    hanging = process.start("open", client="hanging", jid=jid, seconds=3)
    started = time.monotonic()
    eventually(lambda: whatsapp.stats()["connects"] > connects, 2)
    whatsapp.fault("clear")
    process.call("open", client="healthy", jid=healthy, within=2)
    with pytest.raises(DriverError) as caught:
        process.finish(hanging)
    assert caught.value.code == "connect_timeout"
    assert time.monotonic() - started < 6.5
    # The dial itself ends after 10 s; the same session can be opened then, and not before.
    process.call("open", client="hanging", jid=jid, seconds=20)
    assert process.call("look", client="healthy")["connected"]
    for name in ("hanging", "healthy"):
        process.call("close", client=name)


def test_an_opening_that_is_given_up_leaves_the_session_free(
    process: Hosting, whatsapp: SimulatorClient, paired: str
) -> None:
    jid = jid_of(process, paired)
    process.call("close", client=paired)
    whatsapp.fault("failure-503")
    with pytest.raises(DriverError) as caught:
        process.call("open_briefly", client=paired, jid=jid, patience=0.5)
    assert caught.value.kind == "TimeoutError"
    whatsapp.fault("clear")
    process.call("open", client=paired, jid=jid)
    process.send(paired, FRIEND, "alone")
    assert "StreamReplaced" not in process.names(paired)


@pytest.mark.parametrize(
    ("fault", "code", "event", "values"),
    [
        ("failure-401", "logged_out", "LoggedOut", {"code": 401}),
        ("failure-403", "logged_out", "LoggedOut", {"code": 403}),
        ("failure-406", "logged_out", "LoggedOut", {"code": 406}),
        ("failure-402", "banned", "TemporarilyBanned", {"seconds": 3600.0}),
        ("failure-405", "outdated", "ClientOutdated", {}),
        ("failure-503", "server_error", "ConnectRefused", {"code": 503}),
        ("http-503", "server_error", None, {}),
        ("tls-failure", "certificate_refused", None, {}),
    ],
)
def test_a_refused_login_is_told_by_its_reason(
    process: Hosting, whatsapp: SimulatorClient, paired: str, store: psycopg.Connection[Any],
    fault: str, code: str, event: str | None, values: dict[str, Any],
) -> None:  # fmt: skip
    jid = jid_of(process, paired)
    process.call("close", client=paired)
    whatsapp.fault(fault)
    client = f"refused by {fault}"
    refused(process, code, client=client, jid=jid, seconds=4)
    if event is not None:
        process.wait_for(client, event, within=1, **values)
    # The library deletes the session of a device that was logged out, a moment after it says so.
    eventually(lambda: (stored_session(store, jid) is None) == (code == "logged_out"), 10)
    whatsapp.fault("clear")
    if code != "logged_out":
        process.call("open", client=client, jid=jid)
        process.call("close", client=client)


def test_a_dropped_connection_comes_back_by_itself(process: Hosting, whatsapp: SimulatorClient, paired: str) -> None:
    process.events[paired].clear()
    whatsapp.fault("reset", jid_of(process, paired))
    process.wait_for(paired, "Disconnected")
    process.wait_for(paired, "Connected")
    process.send(paired, FRIEND, "back again")


def test_a_replaced_client_is_down_and_stays_so(process: Hosting, whatsapp: SimulatorClient, paired: str) -> None:
    whatsapp.fault("replaced", jid_of(process, paired))
    process.wait_for(paired, "StreamReplaced")
    assert not process.call("look", client=paired)["connected"]
    assert not process.call("probe", client=paired, seconds=1)
    with pytest.raises(DriverError) as caught:
        process.send(paired, FRIEND, "x")
    assert caught.value.kind == "NotSent"


def test_an_unlinked_device_is_logged_out_and_its_session_deleted(
    process: Hosting, whatsapp: SimulatorClient, paired: str, store: psycopg.Connection[Any]
) -> None:
    jid = jid_of(process, paired)
    whatsapp.fault("device-removed", jid)
    process.wait_for(paired, "LoggedOut", code=401)
    eventually(lambda: stored_session(store, jid) is None, 5)


def test_a_logout_unlinks_the_device_and_it_can_be_closed_afterwards(
    process: Hosting, whatsapp: SimulatorClient, paired: str, store: psycopg.Connection[Any], number: str
) -> None:
    jid = jid_of(process, paired)
    process.call("logout", client=paired)
    process.call("close", client=paired)
    assert stored_session(store, jid) is None
    assert jid not in next(phone for phone in whatsapp.phones() if phone["number"] == number)["companions"]
    refused(process, "store_missing", client=paired, jid=jid)


def test_a_half_open_connection_fails_the_probe_and_shows_in_keep_alives(
    tmp_path: Path, store_url: str, whatsapp: SimulatorClient, number: str
) -> None:
    keep_alive = (1.0, 1.0, 1.5, 180.0)
    with Hosting(tmp_path / "process", store_url, whatsapp.info(), keep_alive=keep_alive) as process:
        jid = pair(process, whatsapp, "silent", number)
        assert process.call("probe", client="silent", seconds=5)
        whatsapp.fault("half-open", jid)
        started = time.monotonic()
        assert not process.call("probe", client="silent", seconds=1)
        assert time.monotonic() - started < 2
        process.wait_for("silent", "KeepAliveTimedOut", errors=1)
        assert process.call("look", client="silent")["connected"]
        started = time.monotonic()
        process.call("close", client="silent")
        assert time.monotonic() - started < 11
        whatsapp.fault("clear")
        process.call("open", client="silent", jid=jid)


@pytest.mark.parametrize(
    ("proxy", "code"),
    [
        ("http://127.0.0.1:9", "proxy_error"),
        ("http://192.0.2.1:8080", "proxy_error"),
        ("gopher://127.0.0.1:1", "proxy_error"),
        ("127.0.0.1:8080", "proxy_error"),
        ("http://127.0.0.1:99999", "proxy_error"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_as_the_cause(
    process: Hosting, paired: str, proxy: str, code: str
) -> None:
    jid = jid_of(process, paired)
    process.call("close", client=paired)
    refused(process, code, client=paired, jid=jid, proxy=proxy)


# The process


def test_nothing_is_delivered_after_a_close(
    process: Hosting, whatsapp: SimulatorClient, paired: str, number: str
) -> None:
    jid = jid_of(process, paired)
    process.call("close", client=paired)
    process.events[paired].clear()
    whatsapp.say(FRIEND, jid, "too late")
    process.call("open", client="next", jid=jid)
    process.wait_for("next", "MessageReceived", text="too late")
    process.call("close", client="next")
    assert process.names(paired) == []


def test_the_library_says_nothing_but_its_own_few_lines(process: Hosting, paired: str) -> None:
    process.send(paired, FRIEND, "quiet")
    handlers, level = process.call("root_logger")
    assert (handlers, level) == (0, 30)
    # The last is its Signal library, when a message comes twice.
    known = ("Press Ctrl+C to exit", "Login event: ", "SendMessage: Error sending message: ", "[ERROR] ")
    assert [line for line in process.output.splitlines() if not line.startswith(known)] == []


def test_the_library_leaves_no_file_where_the_process_runs(process: Hosting) -> None:
    assert sorted(path.name for path in process.directory.iterdir()) == ["driver.log", "output.txt"]
