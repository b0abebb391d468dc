"""Keys, allowances, names of hosts, places of events, and uploaded files: the gateway's pure parts."""

from __future__ import annotations

import os
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import uploads
from actors.messages import Media
from actors.uploads import Upload
from actors.validation import check_media
from config.api_keys import SCOPES, digest_of, new_key, public_id
from config.errors import NoAnswer, NotFound, Refused, StorageUnavailable
from config.gateway import gateway_url, keep_port, kept_port
from config.home import Home
from config.settings import Settings
from gateway.callers import Allowance, Caller
from gateway.guard import name_of_host
from gateway.problems import status_of
from storage.events import Place, Wanted


def settings(**values: Any) -> Settings:
    return Settings(**values)


def test_a_key_is_long_random_and_known_by_its_middle() -> None:
    key = new_key()
    assert key != new_key()
    assert public_id(key) == key.split("_")[1]
    assert len(key.split("_", 2)[2]) == 43  # 256 bits
    assert len(digest_of(key)) == 32
    assert key.encode() not in digest_of(key)
    for other in ("", "sal_", key[:-1], key + "x", key.upper(), " " + key):
        assert public_id(other) is None


def test_each_scope_may_what_the_ones_before_it_may() -> None:
    for position, scope in enumerate(SCOPES):
        caller = Caller("id", scope, None)
        assert [caller.may(each) for each in SCOPES] == [each <= position for each in range(len(SCOPES))]


def test_a_caller_that_is_bound_sees_its_devices_alone() -> None:
    bound, free = Caller("id", "send", {3: "shop-1"}), Caller("id", "send", None)
    assert (bound.sees(3), bound.sees(4), free.sees(4)) == (True, False, True)
    bound.check_name("shop-1")
    free.check_name("shop-2")
    with pytest.raises(NotFound, match="no device named 'shop-2'"):
        bound.check_name("shop-2")
    with pytest.raises(NotFound):
        Caller("id", "send", {}).check_name("shop-1")  # its device was removed: it is not free for that


def test_an_allowance_fills_evenly() -> None:
    allowance = Allowance(60, 0.0)
    assert [allowance.take(0.0) for _ in range(60)] == [0.0] * 60
    assert allowance.take(0.0) == pytest.approx(1.0)
    assert allowance.take(0.5) == pytest.approx(0.5)
    assert allowance.take(1.0) == 0.0
    assert allowance.take(1.0) > 0
    assert [allowance.take(1000.0) for _ in range(60)] == [0.0] * 60  # never more than a minute's worth
    assert allowance.take(1000.0) > 0


@given(st.integers(1, 600), st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_no_more_than_the_allowance_is_ever_taken(per_minute: int, pauses: list[float]) -> None:
    allowance, now, taken = Allowance(per_minute, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += allowance.take(now) == 0.0
    assert taken <= per_minute + now * per_minute / 60 + 1


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost:8080", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("Example.COM", "example.com"),
        ("", ""),
    ],
)
def test_a_host_is_told_apart_from_its_port(host: str, name: str) -> None:
    assert name_of_host(host) == name


def test_errors_have_the_status_that_their_code_or_kind_says() -> None:
    assert status_of(Refused("x", code="key_conflict")) is HTTPStatus.CONFLICT
    assert status_of(Refused("x", code="unknown_device")) is HTTPStatus.NOT_FOUND
    assert status_of(Refused("x", code="bad_number")) is HTTPStatus.UNPROCESSABLE_ENTITY
    assert status_of(StorageUnavailable("x")) is HTTPStatus.SERVICE_UNAVAILABLE
    assert status_of(NoAnswer("x")) is HTTPStatus.GATEWAY_TIMEOUT


@given(st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))
def test_a_place_is_read_as_it_was_written(moment: int, event_id: int) -> None:
    place = Place(moment, event_id)
    assert Place.read(str(place)) == place


def test_places_are_in_the_order_of_their_moments() -> None:
    assert Place(1, 9) < Place(2, 1) < Place(2, 2)
    assert Place.read("") is None
    assert Place.read("1") is None
    assert Place.read("-1-2") is None


def test_a_reader_takes_what_it_wants() -> None:
    row = {"device_id": 1, "device": "shop-1", "kind": "message"}
    assert Wanted().takes(row)
    assert Wanted((1,), "shop-1", "message").takes(row)
    for other in (Wanted(()), Wanted((2,)), Wanted(None, "shop-2"), Wanted(None, None, "state")):
        assert not other.takes(row)


def test_the_gateways_address_is_kept(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert gateway_url(home, settings()) is None
    keep_port(home, 20_001)
    assert kept_port(home) == 20_001
    assert gateway_url(home, settings()) == "http://127.0.0.1:20001"
    assert gateway_url(home, settings(gateway_port=8080, gateway_address="::1")) == "http://[::1]:8080"
    assert gateway_url(home, settings(gateway_enabled=False)) is None
    home.gateway_port.write_text("nonsense")
    assert kept_port(home) is None


def test_an_upload_is_found_until_nobody_needed_it_for_a_day(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.uploads.mkdir()
    upload = Upload(uploads.new_upload_id(), "menu.pdf", "application/pdf", 3, "digest")
    uploads.path_of(home, upload.id).write_bytes(b"pdf")
    assert uploads.find(home, upload.id) is None  # it is not whole before it is noted
    uploads.keep(home, upload)
    assert uploads.find(home, upload.id) == upload
    assert uploads.bytes_kept(home) > 3
    assert list(uploads.stale(home)) == []
    long_ago = time.time() - uploads.KEPT_SECONDS - 10
    for path in home.uploads.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert list(uploads.stale(home)) == [upload.id]
    uploads.named_now(home, upload.id)
    uploads.forget(home, upload.id)  # a message named it a moment ago
    assert uploads.find(home, upload.id) == upload
    os.utime(home.uploads / f"{upload.id}.json", (long_ago, long_ago))
    uploads.forget(home, upload.id)
    assert list(home.uploads.iterdir()) == []
    assert uploads.find(home, upload.id) is None


def test_only_an_id_is_a_way_to_an_uploaded_file(tmp_path: Path) -> None:
    good = uploads.new_upload_id()
    assert uploads.id_in(f"upload:{good}") == good
    for bad in (good, "upload:", "upload:../../frame.key", f"upload:{good}x", f"https://example.com/upload:{good}"):
        assert uploads.id_in(bad) is None
    assert uploads.find(Home(tmp_path), "../frame.key") is None


def test_an_uploaded_files_name_says_what_it_is() -> None:

    url = f"upload:{uploads.new_upload_id()}"
    assert check_media(Media(url, name="shop.png"), loopback_allowed=False) == ("image", url, "shop.png")
    assert check_media(Media(url, "document", "shop.png"), loopback_allowed=False)[0] == "document"
    assert check_media(Media(url), loopback_allowed=False) == ("document", url, "file")
