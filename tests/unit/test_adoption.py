"""What is decided before anything is adopted: names, who is meant, what is here already, which stores are usable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adoption.occupation import signs_of_life
from adoption.original import OriginalDevice, credentials_of, read_originals, token_of
from adoption.plan import Known, Session, Step, linked_at, make_plan
from adoption.postgres_source import read_dsn
from adoption.source import Source, StoreVersion
from adoption.store import Column, check_schema, companion_tables
from config.errors import Refused, SalamanderError
from storage.care import Limits

NOTHING = Known({}, {}, frozenset())
A, B = "60121000001:1@s.whatsapp.net", "60121000001:2@s.whatsapp.net"
OURS = {
    "whatsmeow_device": {"jid": Column("text", optional=False), "lid": Column("text", optional=True)},
    "whatsmeow_app_state_mutation_macs": {"jid": Column("text", optional=False)},
    "whatsmeow_app_state_version": {"jid": Column("text", optional=False)},
    "whatsmeow_retry_buffer": {"our_jid": Column("text", optional=False)},
    "whatsmeow_lid_map": {"lid": Column("text", optional=False)},
    "whatsmeow_version": {"version": Column("integer", optional=True)},
}
VERSION = StoreVersion(15, 8)


class Stub(Source):
    """A source made of dictionaries."""

    name = "the other store"
    how_judged = "it is made up"

    def __init__(self, version: int | None = 15, **tables: frozenset[str]) -> None:
        self._version = version
        self._tables = {name: tables.get(name, frozenset(columns)) for name, columns in OURS.items()} | tables
        self.originals: list[dict[str, Any]] = []

    def signs_of_life(self) -> list[str]:
        return []

    def tables(self) -> Mapping[str, frozenset[str]]:
        present = {name: columns for name, columns in self._tables.items() if columns}
        if self._version is None:
            del present["whatsmeow_version"]
        return present

    def rows(
        self, table: str, columns: Sequence[str], where: tuple[str, str] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        if table == "whatsmeow_version":
            yield (self._version,)
        for row in self.originals if table == "user_devices" else []:
            yield tuple(row[name] for name in columns)

    def counts(self, table: str, column: str) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


def original(number: int, name: str, jid: str = "", **more: Any) -> OriginalDevice:
    return OriginalDevice(
        number, name, more.pop("phone", ""), jid, more.pop("platform", None), more.pop("limits", None)
    )


def told(steps: list[Step]) -> list[tuple[str, str]]:
    return [(step.name, step.outcome) for step in steps]


def test_a_device_is_named_after_its_number_and_a_second_companion_gets_a_name_of_its_own() -> None:
    assert told(make_plan([Session(A), Session(B)], [], NOTHING, {})) == [
        ("60121000001", "planned"),
        ("60121000001-2", "planned"),
    ]


def test_what_is_here_already_is_skipped_and_its_name_told() -> None:
    known = Known({A: "shop-1"}, {("wablas", "t.s"): "desk-1"}, {"shop-1", "desk-1", "60121000001"})
    account = original(1, "x", "t.s", platform="wablas")

    steps = make_plan([Session(A), Session(B)], [account], known, {A: "shop-1"})

    assert told(steps) == [("", "skipped"), ("60121000001-2", "planned"), ("", "skipped")]
    assert "shop-1" in steps[0].reason
    assert "desk-1" in steps[2].reason


def test_the_originals_names_and_delays_come_along() -> None:
    rows = [
        original(1, "Kedai Ünggul!", A, limits=Limits(3, 4)),
        original(2, "!!!", phone="60121000001"),
        original(3, "nobody", "60129999999@s.whatsapp.net"),
    ]

    steps = make_plan([Session(A), Session(B)], rows, NOTHING, {})

    assert told(steps) == [("Kedai-Unggul", "planned"), ("60121000001", "planned"), ("", "skipped")]
    assert steps[0].limits == Limits(3, 4)


def test_a_number_with_several_companions_is_not_guessed() -> None:
    row = original(1, "which", phone="60121000001")

    assert told(make_plan([Session(A), Session(B)], [row], NOTHING, {})) == [
        ("60121000001", "planned"),
        ("60121000001-2", "planned"),
        ("", "skipped"),
    ]


@pytest.mark.parametrize(
    ("chosen", "code"),
    [
        ({"60129999999": "x"}, "bad_mapping"),
        ({"60121000001": "x"}, "bad_mapping"),
        ({A: "x", B: "x"}, "bad_mapping"),
        ({A: "not a name"}, "bad_name"),
        ({A: "taken"}, "name_taken"),
    ],
)
def test_a_name_that_cannot_be_given_is_refused_before_anything_is_changed(chosen: dict[str, str], code: str) -> None:
    with pytest.raises(Refused) as refusal:
        make_plan([Session(A), Session(B)], [], Known({}, {}, {"taken"}), chosen)
    assert refusal.value.code == code


def test_a_chosen_name_is_never_given_to_another() -> None:
    assert told(make_plan([Session(A), Session(B)], [], NOTHING, {B: "60121000001"})) == [
        ("60121000001-2", "planned"),
        ("60121000001", "planned"),
    ]


def test_the_time_of_linking_is_read_from_whatsapps_record() -> None:
    # ADVDeviceIdentity: rawID 7, timestamp 1700000000, keyIndex 1.
    record = bytes([0x08, 7, 0x10, *_varint(1_700_000_000), 0x18, 1])

    assert linked_at(record) == datetime.fromtimestamp(1_700_000_000, UTC)
    assert linked_at(b"") is None
    assert linked_at(record[:4]) is None
    assert linked_at(b"\xff\xff") is None


def _varint(value: int) -> list[int]:
    found = []
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return [*found, value]


def test_the_originals_rows_are_read_with_their_tokens_hidden() -> None:
    source = Stub(
        user_devices=frozenset({"id", "device_name", "jid", "platform", "min_delay_seconds", "max_delay_seconds"})
    )
    source.originals = [
        {
            "id": 2,
            "device_name": "b",
            "jid": "tok",
            "platform": "Wablas",
            "min_delay_seconds": 2,
            "max_delay_seconds": 5,
        },
        {"id": 1, "device_name": "a", "jid": A, "platform": None, "min_delay_seconds": None, "max_delay_seconds": 0},
    ]

    first, second = read_originals(source)

    assert (first.platform, first.limits) == (None, None)
    assert (second.platform, second.limits) == ("wablas", Limits(2, 3))
    assert "tok" not in repr(second)


def test_a_token_becomes_the_platforms_credentials_and_back() -> None:
    for platform, token in (("wablas", "tok.secret"), ("wablas", "tok"), ("whacenter", "dev")):
        credentials = credentials_of(original(1, "x", token, platform=platform))
        assert token_of(platform, credentials) == token
    with pytest.raises(SalamanderError):
        credentials_of(original(1, "x", "token", platform="nosuchplatform"))
    with pytest.raises(Refused, match="a token only"):
        credentials_of(original(1, "x", "token", platform="twilio"))


def test_a_store_of_a_compatible_version_is_usable_without_what_was_added_later() -> None:
    older = Stub(8, whatsmeow_device=frozenset({"jid"}), whatsmeow_retry_buffer=frozenset())

    assert check_schema(older, VERSION, OURS) == []
    assert check_schema(Stub(whatsmeow_mine=frozenset({"x"})), VERSION, OURS) != []


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (Stub(16), "source_newer"),
        (Stub(7), "source_older"),
        (Stub(None), "no_sessions"),
        (Stub(whatsmeow_device=frozenset()), "no_sessions"),
        (Stub(whatsmeow_device=frozenset({"jid", "lid", "surprise"})), "source_differs"),
        (Stub(whatsmeow_device=frozenset({"lid"})), "source_differs"),
    ],
)
def test_a_store_that_cannot_be_copied_as_it_is_is_refused(source: Source, code: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_schema(source, VERSION, OURS)
    assert refusal.value.code == code
    assert refusal.value.next_step


def test_tables_are_filled_in_the_order_in_which_they_refer_to_each_other() -> None:
    assert companion_tables(OURS) == [
        "whatsmeow_device",
        "whatsmeow_app_state_version",
        "whatsmeow_app_state_mutation_macs",
        "whatsmeow_retry_buffer",
    ]


def test_an_address_is_read_without_what_only_gos_driver_knows_and_never_repeated() -> None:
    parts = read_dsn("postgres://me:p%40ss@db/gowa?binary_parameters=yes&sslmode=require")
    assert parts == {"user": "me", "password": "p@ss", "host": "db", "dbname": "gowa", "sslmode": "require"}
    with pytest.raises(Refused) as refusal:
        read_dsn("postgres://me:secret word@[db/gowa")
    assert "secret" not in str(refusal.value)


def test_a_file_written_a_moment_ago_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"x")

    assert [sign for sign in signs_of_life(path) if "was written" in sign]
