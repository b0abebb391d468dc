"""Messages received, on a real PostgreSQL: whose number it is, and who is not written to any more."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.whatsapp.events import MessageReceived, ReceiptReceived
from actors.whatsapp.inbound import record_message
from actors.whatsapp.receipts import Receipts
from actors.whatsapp.services import Services
from config.home import Home
from config.settings import Settings
from storage import care, devices, events, outbox
from storage.database import Connection, Database, SingleConnection
from storage.outbox import NewMessage
from tests.integration.conftest import NewDatabase
from tests.support.outbox import accept

NUMBER, LID = "60199960001", "100060199960001@lid"
_ids = itertools.count(1)


@pytest.fixture
def services(database: Database, new_database: NewDatabase, tmp_path: Path) -> Iterator[Services]:
    """What a shard lends to its devices, without keys and the library: nothing here opens a client."""
    sessions = SingleConnection(new_database())
    with sessions.transaction() as connection:
        connection.execute("create table whatsmeow_lid_map (lid text primary key, pn text unique not null)")
        connection.execute("insert into whatsmeow_lid_map values (%s, %s)", (LID.removesuffix("@lid"), NUMBER))
    none: Any = None
    made = Services(
        home=Home(tmp_path),
        settings=Settings.model_validate({}),
        owner="tests",
        database=database,
        sessions=sessions,
        seal=none,
        loopback=True,
        library=none,
        gate=none,
        recorder=none,
    )
    yield made
    made.close()


@pytest.fixture
def device_id(connection: Connection) -> int:
    return devices.add(connection, name=f"inbound-{next(_ids)}", platform=None)


def received(text: str, **other: Any) -> MessageReceived:
    message = MessageReceived(f"message-{next(_ids)}", LID, LID, "", False, 1_700_000_000, text, "text")
    return replace(message, **other)


def record(services: Services, device_id: int, *messages: MessageReceived) -> None:
    for message in messages:
        asyncio.run(record_message(services, device_id, "shop", message))


def bodies(connection: Connection, device_id: int, kind: str = "message") -> list[dict[str, Any]]:
    rows = [row for row in events.latest(connection, limit=500) if row["kind"] == kind]
    mine = connection.execute("select id from event where device_id = %s", (device_id,)).fetchall()
    return [row["body"] for row in rows if row["id"] in {each["id"] for each in mine}]


@pytest.mark.parametrize(
    ("addresses", "number", "chat_number"),
    [
        ({"sender": f"{NUMBER}:3@s.whatsapp.net", "chat": f"{NUMBER}@s.whatsapp.net"}, NUMBER, NUMBER),
        ({"sender": "100@lid", "sender_alternative": f"{NUMBER}@s.whatsapp.net", "chat": "100@lid"}, NUMBER, NUMBER),
        ({"sender": LID.replace("@", ":7@"), "chat": LID}, NUMBER, NUMBER),
        ({"sender": "999@lid", "chat": "999@lid"}, None, None),
        ({"sender": LID, "chat": "120363012345678901@g.us"}, NUMBER, None),
    ],
)
def test_addresses_are_resolved_to_numbers_as_far_as_they_are_known(
    services: Services,
    connection: Connection,
    device_id: int,
    addresses: dict[str, str],
    number: str | None,
    chat_number: str | None,
) -> None:
    record(services, device_id, received("hello", **addresses))
    [body] = bodies(connection, device_id)
    assert (body["sender_number"], body["chat_number"]) == (number, chat_number)
    assert (body["chat"], body["sender"], body["text"]) == (addresses["chat"], addresses["sender"], "hello")


def test_a_word_from_a_hidden_number_opts_it_out_and_repeated_changes_nothing(
    services: Services, connection: Connection, device_id: int
) -> None:
    [queued] = accept(connection, NewMessage(device_id, NUMBER, "text", "campaign"))
    stop = received(" Stop\n")
    record(services, device_id, stop)
    assert care.opted_out(connection, [NUMBER]) == {NUMBER}
    assert outbox.states(connection, [queued.id])[queued.id]["state"] == "cancelled"
    assert bodies(connection, device_id, "opt_out") == [{"number": NUMBER, "word": "Stop", "cancelled": 1}]
    # The number is written to again by the operator's word; the same message delivered again must not undo that.
    care.opt_in(connection, [NUMBER])
    record(services, device_id, stop)
    assert care.opted_out(connection, [NUMBER]) == frozenset()
    record(services, device_id, received("STOP"))
    assert care.opted_out(connection, [NUMBER]) == {NUMBER}
    care.opt_in(connection, [NUMBER])


@pytest.mark.parametrize(
    "message",
    [
        received("STOP", chat="120363012345678901@g.us"),
        received("STOP", chat="status@broadcast"),
        received("please stop"),
        received("STOP", sender="999@lid", chat="999@lid"),
    ],
)
def test_what_is_not_said_to_us_or_by_nobody_known_opts_nobody_out(
    services: Services, connection: Connection, device_id: int, message: MessageReceived
) -> None:
    before = care.overview(connection)["opted_out"]
    record(services, device_id, message)
    assert care.overview(connection)["opted_out"] == before
    assert [body["text"] for body in bodies(connection, device_id)] == [message.text]


def test_a_receipt_is_recorded_once_with_the_number_behind_its_chat(
    services: Services, connection: Connection, device_id: int
) -> None:
    receipts = Receipts(services, device_id)
    receipt = ReceiptReceived(("3EB0-1",), "delivered", LID, LID, 1_700_000_000)
    for _ in range(2):
        asyncio.run(receipts.record(receipt))
    asyncio.run(receipts.record(replace(receipt, message_ids=("3EB0-2",), chat="120363012345678901@g.us")))
    assert [(body["message_id"], body["chat_number"]) for body in bodies(connection, device_id, "receipt")] == [
        ("3EB0-1", NUMBER),
        ("3EB0-2", None),
    ]
