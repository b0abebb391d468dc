"""The HTTP API of a running daemon: who may do what, and that what it says is true."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.api import Api, api_of, data_of, problem_of, server_sent_events, url_of
from tests.support.collector import WAITING
from tests.support.daemon import Daemon, error_line_of, eventually

SETTINGS = {"upload_megabytes": 1}
PHONE, FRIEND = "60120000001", "60198887777"
TEXT = {"device": "shop-1", "to": f"+{FRIEND}", "text": "Your order is ready."}


@pytest.fixture(scope="module")
def fleet(daemon: Daemon) -> Daemon:
    """A daemon with a linked device, a platform device, and somebody to write to."""
    daemon.add_paired("shop-1", PHONE)
    daemon.add_platform("desk-1", "wablas")
    daemon.simulator.add_phone(FRIEND)
    return daemon


@pytest.fixture(scope="module")
def admin(fleet: Daemon) -> Iterator[Api]:
    api = api_of(fleet, "admin")
    yield api
    api.client.close()


def await_state(api: Api, message_id: int, *states: str) -> None:
    eventually(
        lambda: api.get(f"/v1/messages/{message_id}")["state"] in states, 30, f"message {message_id} to be {states}"
    )


# --- keys --------------------------------------------------------------------------------------------------


def test_nothing_is_answered_without_a_key(fleet: Daemon) -> None:
    url = url_of(fleet)
    for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer sal_000000000000_" + 43 * "A"}):
        for path in ("/v1/devices", "/v1/messages", "/v1/nothing"):
            reply = httpx.get(url + path, headers=headers, trust_env=False)
            assert problem_of(reply, 401)["code"] == "no_key"
            assert reply.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{url}/readyz", trust_env=False).json() == {"ready": True, "missing": []}


def test_a_key_is_shown_once_and_ends_at_once(fleet: Daemon) -> None:
    printed = fleet.ok("key", "create", "--scope", "read", "--name", "a screen").strip()
    api = Api(url_of(fleet), printed)
    own = api.get("/v1/key")
    assert own == {"id": printed.split("_")[1], "scope": "read", "devices": None}
    listed = fleet.json("key", "list")
    assert {"public_id": own["id"], "name": "a screen", "scope": "read"}.items() <= listed[-1].items()
    secret = printed.split("_", 2)[2]
    assert secret not in fleet.ok("key", "list", "--json")
    assert secret not in fleet.home.log_file.read_text(encoding="utf-8")
    fleet.ok("key", "revoke", own["id"])
    eventually(lambda: api.client.get("/v1/key").status_code == 401, 5, "the key to end")
    assert "There is no key" in error_line_of(fleet.run("key", "revoke", own["id"]))
    assert fleet.refused("key", "create", "--scope", "all").code == "bad_scope"
    assert fleet.refused("key", "create", "--scope", "admin", "--device", "shop-1").code == "bad_scope"
    assert fleet.refused("key", "create", "--scope", "read", "--device", "nobody").code == "unknown_device"


def test_a_key_does_what_its_scope_says(fleet: Daemon) -> None:
    reader, sender = api_of(fleet, "read"), api_of(fleet, "send")
    body: Any
    assert [each["name"] for each in reader.get("/v1/devices")["items"]] == ["shop-1", "desk-1"]
    for method, path, body in (
        ("POST", "/v1/messages", TEXT),
        ("POST", "/v1/messages/batch", {"messages": [TEXT]}),
        ("POST", "/v1/messages/1/cancel", None),
        ("POST", "/v1/messages/1/resolve", {"sent": True}),
        ("POST", "/v1/opt-outs", {"numbers": ["+60123456789"]}),
        ("POST", f"/v1/recipients/{FRIEND}/check", {"device": "shop-1"}),
        ("POST", "/v1/uploads", None),
    ):
        assert reader.problem(method, path, 403, body) == "scope_missing"
    for method, path, body in (
        ("POST", "/v1/devices", {"name": "shop-2"}),
        ("DELETE", "/v1/devices/shop-1", None),
        ("POST", "/v1/devices/shop-1/pause", None),
        ("POST", "/v1/devices/shop-1/pairing", None),
        ("GET", "/v1/devices/shop-1/pairing", None),
        ("PUT", "/v1/devices/shop-1/limits", {}),
        ("PUT", "/v1/devices/shop-1/fallbacks", {"devices": []}),
        ("DELETE", "/v1/opt-outs/60123456789", None),
    ):
        assert sender.problem(method, path, 403, body) == "scope_missing"
    assert reader.get("/v1/messages")["items"] == []


def test_a_key_that_is_bound_to_a_device_sees_no_other(fleet: Daemon, admin: Api) -> None:
    other = admin.ask("POST", "/v1/messages", 202, TEXT | {"device": "desk-1"}, headers={"Idempotency-Key": "desk"})
    own = admin.ask("POST", "/v1/messages", 202, TEXT)
    await_state(admin, own["id"], "delivered", "read")
    bound = api_of(fleet, "send", "--device", "shop-1")
    assert bound.get("/v1/key")["devices"] == ["shop-1"]
    assert [each["name"] for each in bound.get("/v1/devices")["items"]] == ["shop-1"]
    assert {each["device"] for each in bound.get("/v1/messages")["items"]} == {"shop-1"}
    assert bound.get("/v1/messages", device="desk-1")["items"] == []
    assert {each["device"] for each in bound.get("/v1/events", limit=500)["items"]} == {"shop-1"}
    assert bound.get("/v1/events", device="desk-1")["items"] == []
    assert all(each["name"] == "shop-1" for each in bound.get("/v1/restarts")["items"])
    assert bound.get(f"/v1/messages/{own['id']}")["id"] == own["id"]
    assert bound.problem("GET", f"/v1/messages/{other['id']}", 404) == "unknown_message"
    assert bound.problem("POST", f"/v1/messages/{other['id']}/cancel", 404) == "unknown_message"
    assert bound.problem("GET", "/v1/devices/desk-1", 404) == "unknown_device"
    assert bound.problem("POST", "/v1/messages", 404, TEXT | {"device": "desk-1"}) == "unknown_device"
    check = bound.client.post("/v1/recipients/60123456789/check", json={"device": "desk-1"})
    assert problem_of(check, 404)["code"] == "unknown_device"
    batch = {"messages": [TEXT | {"device": "desk-1"}, TEXT]}
    results = bound.ask("POST", "/v1/messages/batch", 200, batch)["results"]
    assert [results[0]["code"], sorted(results[1])] == ["unknown_device", ["id", "repeated"]]
    taken = bound.client.post("/v1/messages", json=TEXT, headers={"Idempotency-Key": "desk"})
    assert str(other["id"]) not in problem_of(taken, 409)["detail"]
    assert bound.problem("GET", "/v1/opt-outs", 403) == "bound_key"


def test_a_key_that_asks_too_often_is_told_when_to_come_back(fleet: Daemon) -> None:
    api = api_of(fleet, "read", "--per-minute", "3")
    assert [api.client.get("/v1/key").status_code for _ in range(3)] == [200, 200, 200]
    reply = api.client.get("/v1/key")
    assert problem_of(reply, 429)["code"] == "too_many_requests"
    assert 1 <= int(reply.headers["retry-after"]) <= 20


# --- messages ----------------------------------------------------------------------------------------------


def test_a_message_is_sent_once_however_often_it_is_asked_for(fleet: Daemon, admin: Api) -> None:
    headers = {"Idempotency-Key": "order-1017"}
    message = TEXT | {"text": "Once."}
    first = admin.ask("POST", "/v1/messages", 202, message, headers=headers)
    assert first["repeated"] is False
    for _ in range(3):
        again = admin.ask("POST", "/v1/messages", 202, message, headers=headers)
        assert again == {"id": first["id"], "repeated": True}
    assert admin.problem("POST", "/v1/messages", 409, message | {"text": "Twice."}, headers=headers) == "key_conflict"
    await_state(admin, first["id"], "delivered", "read")
    shown = admin.get(f"/v1/messages/{first['id']}")
    assert [step["state"] for step in shown["story"]][:3] == ["queued", "sending", "sent"]
    assert [attempt["outcome"] for attempt in shown["attempts_made"]] == ["sent"]
    assert fleet.texts(FRIEND).count("Once.") == 1


def test_a_batch_is_accepted_together_and_may_be_sent_again(admin: Api) -> None:
    texts = [TEXT | {"text": f"Batch {number}."} for number in range(5)]
    batch = {"messages": [*texts, TEXT | {"to": "nobody"}]}
    first = admin.ask("POST", "/v1/messages/batch", 200, batch, headers={"Idempotency-Key": "monday"})
    assert (first["accepted"], first["refused"]) == (5, 1)
    assert first["results"][5]["code"] == "bad_number"
    again = admin.ask("POST", "/v1/messages/batch", 200, batch, headers={"Idempotency-Key": "monday"})
    assert [each["id"] for each in again["results"][:5]] == [each["id"] for each in first["results"][:5]]
    assert all(each["repeated"] for each in again["results"][:5])
    assert admin.problem("POST", "/v1/messages/batch", 422, {"messages": [TEXT] * 501}) == "invalid_request"


def test_a_message_that_waits_can_be_cancelled_and_one_that_is_gone_cannot(admin: Api) -> None:
    waiting = admin.ask("POST", "/v1/messages", 202, TEXT | {"not_before": "2099-01-01T00:00:00Z"})
    assert admin.ask("POST", f"/v1/messages/{waiting['id']}/cancel", 200)["state"] == "cancelled"
    assert admin.problem("POST", f"/v1/messages/{waiting['id']}/cancel", 409) == "not_queued"
    assert admin.problem("POST", f"/v1/messages/{waiting['id']}/resolve", 409, {"sent": True}) == "not_in_doubt"
    assert admin.problem("GET", "/v1/messages/999999", 404) == "unknown_message"


def test_lists_are_read_page_by_page(admin: Api) -> None:
    everything = [each["id"] for each in admin.get("/v1/messages", limit=500)["items"]]
    assert everything == sorted(everything, reverse=True)
    seen: list[int] = []
    query: dict[str, object] = {"limit": 3}
    while True:
        page = admin.get("/v1/messages", **query)
        seen += [each["id"] for each in page["items"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert seen == everything
    assert {each["state"] for each in admin.get("/v1/messages", state="cancelled")["items"]} == {"cancelled"}
    assert admin.get("/v1/messages", to="+60111111111")["items"] == []
    assert len(admin.get("/v1/messages", to=f"+{FRIEND}", limit=500)["items"]) >= 5


def test_a_request_that_is_not_as_it_must_be_is_refused_with_its_fields(admin: Api) -> None:
    reply = admin.client.post("/v1/messages", json={"device": "shop 1", "to": "+60123456789", "tekst": "x"})
    told = problem_of(reply, 422)
    assert told["code"] == "invalid_request"
    assert {each["field"] for each in told["errors"]} == {"body.device", "body.tekst"}
    assert problem_of(admin.client.post("/v1/messages", content=b"{"), 422)["code"] == "invalid_request"
    assert problem_of(admin.client.get("/v1/nothing"), 404)["code"] == "not_found"
    assert problem_of(admin.client.put("/v1/messages"), 405)["code"] == "method_not_allowed"
    assert admin.problem("POST", "/v1/messages", 422, TEXT | {"to": "12"}) == "bad_number"
    huge = admin.client.post("/v1/messages", content=b"[" + b" " * 9_000_000)
    assert problem_of(huge, 413)["code"] == "body_too_large"
    chunked = admin.client.post("/v1/messages", content=(b" " * 1_000_000 for _ in range(9)))
    assert problem_of(chunked, 413)["code"] == "body_too_large"


def test_a_browser_that_was_led_here_under_a_foreign_name_is_turned_away(fleet: Daemon) -> None:
    url = url_of(fleet)
    reply = httpx.get(f"{url}/", headers={"Host": "rebound.example:80"}, trust_env=False)
    assert problem_of(reply, 421)["code"] == "host_unknown"


# --- uploads -----------------------------------------------------------------------------------------------


def test_an_uploaded_file_arrives_as_it_was(fleet: Daemon, admin: Api) -> None:
    picture, paper = b"\x89PNG\r\n" + bytes(range(256)) * 1000, b"%PDF-1.7 " + b"x" * 300_000
    raw = admin.client.post("/v1/uploads", params={"name": "shop.png"}, content=picture)
    form = admin.client.post("/v1/uploads", files={"file": ("menu.pdf", paper, "application/pdf")})
    assert (raw.status_code, form.status_code) == (201, 201), raw.text + form.text
    for reply, name, content, kind in ((raw, "shop.png", picture, "image"), (form, "menu.pdf", paper, "document")):
        upload = reply.json()
        digest = hashlib.sha256(content).hexdigest()
        assert (upload["name"], upload["size"], upload["sha256"]) == (name, len(content), digest)
        assert admin.get(f"/v1/uploads/{upload['id']}") == upload
        kept = fleet.home.uploads / upload["id"]
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        sent = admin.ask("POST", "/v1/messages", 202, TEXT | {"text": name, "media": {"upload": upload["id"]}})
        await_state(admin, sent["id"], "delivered", "read")
        arrived = next(each for each in fleet.simulator.inbox(FRIEND) if each.get("caption") == name)
        assert (arrived["kind"], arrived["media_sha256"]) == (kind, digest)


def test_an_upload_that_cannot_be_used_is_refused_and_leaves_nothing_behind(fleet: Daemon, admin: Api) -> None:
    kept = set(fleet.home.uploads.iterdir())
    largest = 1024 * 1024
    assert problem_of(admin.client.post("/v1/uploads", content=b"x" * (largest + 1)), 413)["code"] == "too_large"
    form = admin.client.post("/v1/uploads", files={"file": ("big.bin", b"x" * (largest + 1))})
    assert problem_of(form, 413)["code"] == "too_large"
    assert problem_of(admin.client.post("/v1/uploads", content=b""), 422)["code"] == "bad_upload"
    no_file = admin.client.post("/v1/uploads", files={"word": (None, "just a word")})
    assert problem_of(no_file, 422)["code"] == "bad_upload"
    assert set(fleet.home.uploads.iterdir()) == kept
    missing = TEXT | {"media": {"upload": "0" * 32}}
    assert admin.problem("POST", "/v1/messages", 422, missing) == "unknown_upload"
    upload = admin.client.post("/v1/uploads", params={"name": "a.png"}, content=b"x").json()
    by_platform = TEXT | {"device": "desk-1", "media": {"upload": upload["id"]}}
    assert admin.problem("POST", "/v1/messages", 422, by_platform) == "upload_not_carried"


# --- recipients --------------------------------------------------------------------------------------------


def test_whatsapp_is_asked_about_a_number(admin: Api) -> None:
    known = admin.ask("POST", f"/v1/recipients/+{FRIEND}/check", 200, {"device": "shop-1", "fresh": True})
    assert (known["number"], known["on_whatsapp"], known["opted_out"]) == (FRIEND, True, False)
    stranger = admin.ask("POST", "/v1/recipients/+60199951000/check", 200, {"device": "shop-1"})
    assert stranger["on_whatsapp"] is False
    assert admin.get("/v1/recipients/60199951000") == stranger
    check = {"device": "desk-1", "fresh": True}
    assert admin.problem("POST", f"/v1/recipients/{FRIEND}/check", 409, check) == "platform_device"


def test_who_opted_out_is_not_written_to(admin: Api) -> None:
    number = "+60144444444"
    waiting = admin.ask("POST", "/v1/messages", 202, TEXT | {"to": number, "not_before": "2099-01-01T00:00:00Z"})
    changed = admin.ask("POST", "/v1/opt-outs", 200, {"numbers": [number]})
    assert changed == {"added": 1, "cancelled": 1}
    assert admin.get(f"/v1/messages/{waiting['id']}")["state"] == "cancelled"
    assert "60144444444" in [each["number"] for each in admin.get("/v1/opt-outs")["items"]]
    assert admin.problem("POST", "/v1/messages", 422, TEXT | {"to": number}) == "opted_out"
    admin.ask("DELETE", "/v1/opt-outs/60144444444", 204)
    assert admin.problem("DELETE", "/v1/opt-outs/60144444444", 404) == "not_opted_out"


# --- devices -----------------------------------------------------------------------------------------------


def test_a_phone_is_linked_over_the_api(fleet: Daemon, admin: Api) -> None:
    added = admin.ask("POST", "/v1/devices", 201, {"name": "shop-2"})
    assert (added["state"], added["platform"]) == ("needs_pairing", "whatsapp")
    assert admin.problem("POST", "/v1/devices", 409, {"name": "shop-2"}) == "name_taken"
    fleet.simulator.add_phone("60120000002")
    admin.ask("POST", "/v1/devices/shop-2/pairing", 202)
    scanned = ""
    headers = {"Accept": "text/event-stream"}
    with admin.client.stream("GET", "/v1/devices/shop-2/pairing", headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for event in server_sent_events(stream.iter_lines()):
            pairing = data_of(event) if "data" in event else {}
            if pairing.get("qr") and not scanned:
                drawn = admin.client.get("/v1/devices/shop-2/pairing.svg")
                assert (drawn.headers["content-type"], drawn.content[:4]) == ("image/svg+xml", b"<svg")
                scanned = fleet.simulator.scan("60120000002", pairing["qr"])
    assert (pairing["state"], pairing["jid"]) == ("online", scanned)
    shown = admin.get("/v1/devices/shop-2")
    assert [each["kind"] for each in shown["timeline"]][::-1] == ["pairing", "online"]
    assert admin.problem("POST", "/v1/devices/shop-2/pairing", 409) == "already_linked"
    assert admin.problem("GET", "/v1/devices/shop-2/pairing.svg", 404) == "no_qr"


def test_a_device_is_refreshed_paused_limited_and_removed(admin: Api) -> None:
    request = admin.ask("POST", "/v1/devices/shop-2/refresh", 202)["request"]

    def refreshed() -> bool:
        return [each["outcome"] for each in admin.get("/v1/restarts", request=request)["items"]] == ["ok"]

    eventually(refreshed, 30, "the refresh to be told")
    admin.ask("POST", "/v1/devices/shop-2/pause", 202)
    eventually(lambda: admin.get("/v1/devices/shop-2")["state"] == "paused", 20, "shop-2 to be paused")
    assert admin.problem("POST", "/v1/devices/shop-2/refresh", 409) == "paused"
    admin.ask("POST", "/v1/devices/shop-2/resume", 202)
    admin.ask("PUT", "/v1/devices/shop-2/limits", 200, {"per_day": 200})
    admin.ask("PUT", "/v1/devices/shop-2/fallbacks", 200, {"devices": ["desk-1"]})
    shown = admin.get("/v1/devices/shop-2")
    assert (shown["limits"]["per_day"], shown["fallbacks"]) == (200, ["desk-1"])
    assert [each["name"] for each in admin.get("/v1/devices", platform="wablas")["items"]] == ["desk-1"]
    assert [each["name"] for each in admin.get("/v1/devices", name="OP-2")["items"]] == ["shop-2"]
    admin.ask("DELETE", "/v1/devices/shop-2", 204)
    assert admin.problem("GET", "/v1/devices/shop-2", 404) == "unknown_device"


def test_credentials_are_taken_and_never_told(fleet: Daemon, admin: Api) -> None:
    secret = "invented-token-0123456789"
    body = {
        "name": "desk-2",
        "platform": "wablas",
        "base_url": fleet.simulator.info()["platforms"]["wablas"],
        "credentials": {"token": secret},
    }
    told = admin.client.post("/v1/devices", json=body)
    assert told.status_code == 201, told.text
    assert admin.problem("POST", "/v1/devices", 422, body | {"name": "desk-3", "base_url": "nonsense"})
    shown = admin.client.get("/v1/devices/desk-2")
    for text in (told.text, shown.text, fleet.home.log_file.read_text(encoding="utf-8")):
        assert secret not in text
    platform = admin.get("/v1/platforms/wablas")
    assert [each["name"] for each in platform["credentials"]] == ["token", "secret_key"]
    assert platform in admin.get("/v1/platforms")["items"]
    assert admin.problem("GET", "/v1/platforms/nothing", 404) == "unknown_platform"


# --- events ------------------------------------------------------------------------------------------------


def test_a_stream_of_events_is_resumed_without_loss(fleet: Daemon, admin: Api) -> None:
    headers = {"Accept": "text/event-stream"}
    wanted = {"kind": "message", "device": "shop-1"}
    with admin.client.stream("GET", "/v1/events", params=wanted, headers=headers) as stream:
        events = (event for event in server_sent_events(stream.iter_lines()) if "id" in event)
        place = next(events)["id"]  # where it begins, before anything was said
        fleet.simulator.say(FRIEND, PHONE, "first")
        heard = next(event for event in events if "data" in event)
    assert (heard["event"], data_of(heard)["body"]["text"]) == ("message", "first")
    fleet.simulator.say(FRIEND, PHONE, "second")
    fleet.simulator.say(FRIEND, PHONE, "third")
    for last, expected in ((heard["id"], ["second", "third"]), (place, ["first", "second", "third"])):
        with admin.client.stream(
            "GET", "/v1/events", params=wanted, headers={**headers, "Last-Event-ID": last}
        ) as stream:
            told = (data_of(event) for event in server_sent_events(stream.iter_lines()) if "data" in event)
            assert [next(told)["body"]["text"] for _ in expected] == expected
    page = admin.get("/v1/events", after=place, limit=2, **wanted)
    assert [each["body"]["text"] for each in page["items"]] == ["first", "second"]
    rest = admin.get("/v1/events", after=page["next"], **wanted)
    assert [each["body"]["text"] for each in rest["items"]] == ["third"]
    assert admin.get("/v1/events", after=rest["next"], **wanted) == {"items": [], "next": rest["next"]}


# --- traces ------------------------------------------------------------------------------------------------


def test_without_a_collector_nothing_is_traced(fleet: Daemon, admin: Api) -> None:
    headers = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    accepted = admin.ask("POST", "/v1/messages", 202, TEXT, headers=headers)
    await_state(admin, accepted["id"], "delivered", "read")
    assert fleet.rows(WAITING) == []
    assert fleet.rows("select owner from trace_cursor") == []
