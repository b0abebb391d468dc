"""The dashboard over real HTTP and PostgreSQL: who gets in, who may change what, and what pages never show."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import requests
from fastapi.routing import APIRoute

from config.home import Home
from config.settings import load_settings
from gateway import dashboard
from gateway.app import create_app
from gateway.bridge import RouterBridge
from gateway.context import CONNECTIONS, Context
from gateway.dashboard import lockout
from gateway.router_client import RouterClient
from gateway.server import Server, bind
from storage import devices, endpoint_deliveries, endpoints, restarts, users
from storage.credentials import CredentialSeal
from storage.database import Connection, PooledConnections
from storage.endpoint_deliveries import Delivery, Tried
from storage.outbox import Outbox
from storage.passwords import code_hash, hash_password, new_code
from storage.restarts import Restart
from tests.support.dashboard import PASSWORD, Browser, inline_code, words
from tests.support.outbox import accept_texts, claim_next, new_device

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"quoted\" 'and' {{ 7 * 7 }}"


@dataclass
class Site:
    """A gateway that serves, without a router behind it."""

    pages: list[APIRoute]
    url: str
    home: Home

    def browser(self) -> Browser:
        return Browser(self.url)


@pytest.fixture(scope="module")
def site(storage_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = Home(tmp_path_factory.mktemp("dashboard") / "home")
    home.create()
    database = PooledConnections(storage_url, CONNECTIONS)
    context = Context(
        home=home,
        settings=load_settings(home),
        database=database,
        router=RouterClient(RouterBridge(), seconds=0.3),
        seal=CredentialSeal(home.credentials_key),
        loopback=True,
    )
    listening = bind("127.0.0.1", 0)
    server = Server(create_app(context), listening)
    server.start()
    pages = [route for route in dashboard.router(context).routes if isinstance(route, APIRoute)]
    yield Site(pages, f"http://127.0.0.1:{server.port}", home)
    server.leave()
    database.close()


@pytest.fixture(scope="module")
def hashed() -> str:
    """The hash of the tests' password, made once: it is slow on purpose."""
    return hash_password(PASSWORD)


@pytest.fixture
def nobody(connection: Connection) -> None:
    """No user, no code, no failures."""
    connection.execute("delete from dashboard_user")
    connection.execute("delete from first_sign_in")
    connection.execute("delete from sign_in_failure")


@pytest.fixture
def people(nobody: None, connection: Connection, hashed: str) -> None:
    """An operator and a viewer."""
    users.add(connection, "ada", "operator", hashed)
    users.add(connection, "vic", "viewer", hashed)


@pytest.fixture
def stranger(site: Site) -> Iterator[Browser]:
    with closing(site.browser()) as browser:
        yield browser


@pytest.fixture
def operator(site: Site, people: None) -> Iterator[Browser]:
    with closing(site.browser()) as browser:
        yield browser.signed_in("ada")


@pytest.fixture
def viewer(site: Site, people: None) -> Iterator[Browser]:
    with closing(site.browser()) as browser:
        yield browser.signed_in("vic")


# --- the first sign-in -----------------------------------------------------------------------------------


def first(browser: Browser, code: str, **more: str) -> requests.Response:
    fields = {"code": code, "name": "Ada", "password": PASSWORD, "again": PASSWORD, **more}
    return browser.post("/first-sign-in", "/sign-in", **fields)


def test_the_code_from_the_terminal_lets_in_one_operator_once(
    nobody: None, connection: Connection, stranger: Browser, site: Site
) -> None:
    code = new_code()
    users.set_first_code(connection, code_hash(code), 600, 5)
    assert "run.py dashboard" in words(stranger.get("/sign-in"))
    assert first(stranger, "AAAA-BBBB-CCCC").status_code == 401
    assert first(stranger, code, again="something else entirely").status_code == 422
    assert not users.exist(connection)

    # However it is typed.
    answer = first(stranger, code.lower().replace("-", " "))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert words(stranger.get("/")).startswith("Fleet")
    assert [(row["name"], row["role"]) for row in users.all_users(connection)] == [("ada", "operator")]
    with closing(site.browser()) as other:
        assert "Forgotten?" in words(other.get("/sign-in"))
        fields = {"code": code, "name": "eve", "password": PASSWORD, "again": PASSWORD}
        assert other.post("/first-sign-in", "/sign-in", **fields).status_code == 401
    assert len(users.all_users(connection)) == 1


def test_a_code_dies_of_old_age_and_of_wrong_guesses(nobody: None, connection: Connection, stranger: Browser) -> None:
    code = new_code()
    users.set_first_code(connection, code_hash(code), 600, 1)
    assert first(stranger, new_code()).status_code == 401
    assert first(stranger, code).status_code == 401
    users.set_first_code(connection, code_hash(code), 0, 5)
    assert first(stranger, code).status_code == 401
    assert not users.exist(connection)


def test_a_code_is_of_no_use_once_there_is_a_user(people: None, connection: Connection, stranger: Browser) -> None:
    code = new_code()
    users.set_first_code(connection, code_hash(code), 600, 5)
    assert first(stranger, code, name="eve").status_code == 401


# --- signing in and out ----------------------------------------------------------------------------------


def test_the_session_is_a_cookie_that_neither_scripts_nor_other_sites_get(people: None, stranger: Browser) -> None:
    answer = stranger.sign_in("ADA")
    cookie = next(line for line in answer.headers["set-cookie"].split(", salamander") if "session" in line)
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert "secure" not in cookie.lower()
    proof = re.search(r'form_proof" value="(\w+)"', stranger.get("/sign-in").text)
    assert proof is not None
    behind_tls = stranger.session.post(
        stranger.url + "/sign-in",
        data={"name": "ada", "password": PASSWORD, "form_proof": proof[1]},
        headers={"X-Forwarded-Proto": "https"},
        allow_redirects=False,
        timeout=20,
    )
    assert "; secure" in behind_tls.headers["set-cookie"].lower()


def test_only_the_hash_of_a_session_is_stored(operator: Browser, connection: Connection) -> None:
    token = next(cookie.value for cookie in operator.session.cookies if "session" in cookie.name)
    assert token is not None
    rows = connection.execute("select * from dashboard_session").fetchall()
    assert token not in str(rows)
    assert token not in operator.get("/").text


def test_without_a_session_every_page_leads_to_the_sign_in(people: None, site: Site, stranger: Browser) -> None:
    for path in sorted(pages_of(site)):
        answer = stranger.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/sign-in"), path
    assert stranger.get("/messages?state=failed").headers["location"] == "/sign-in?next=/messages%3Fstate%3Dfailed"
    fragment = stranger.get("/fleet/overview", **{"HX-Request": "true"})
    assert (fragment.status_code, fragment.headers["HX-Redirect"]) == (401, "/sign-in")


def test_after_the_sign_in_the_way_leads_on_but_never_to_another_site(people: None, stranger: Browser) -> None:
    assert stranger.sign_in("ada", target="/messages?state=failed").headers["location"] == "/messages?state=failed"
    for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
        assert stranger.sign_in("ada", target=elsewhere).headers["location"] == "/"


def test_a_session_ends_with_the_sign_out_the_password_and_the_user(
    people: None, connection: Connection, site: Site, hashed: str
) -> None:
    def is_in(browser: Browser) -> bool:
        return browser.get("/").status_code == 200

    with closing(site.browser()) as one, closing(site.browser()) as two, closing(site.browser()) as three:
        for browser in (one, two):
            browser.signed_in("ada")
        three.signed_in("vic")
        kept = dict(one.session.cookies.items())
        assert one.post("/sign-out", "/").status_code == 303
        one.session.cookies.update(kept)  # the cookie alone is worth nothing any more
        assert not is_in(one)
        assert is_in(two)
        users.set_password(connection, "ada", hashed)
        assert not is_in(two)
        users.remove(connection, "vic")
        assert not is_in(three)


def test_a_session_that_nobody_uses_ends(operator: Browser, connection: Connection) -> None:
    connection.execute("update dashboard_session set seen_at = now() - interval '13 hours'")
    assert operator.get("/").status_code == 303


def test_a_name_is_locked_after_failures_whether_it_exists_or_not(
    people: None, site: Site, connection: Connection
) -> None:
    for name in ("ada", "nobody-of-that-name"):
        with closing(site.browser()) as browser:
            answers = [browser.sign_in(name, "a wrong password") for _ in range(lockout.NAME_LIMIT + 1)]
            statuses = [answer.status_code for answer in answers]
            assert statuses == [401] * lockout.NAME_LIMIT + [429]
            told = words(answers[0]).replace(name, "NAME")
            assert "Name and password do not belong together." in told
            assert browser.sign_in(name).status_code == 429, "the right password must not help"
    with closing(site.browser()) as browser:
        assert browser.sign_in("vic").status_code == 303, "others are not locked out"
    stored = str(connection.execute("select * from sign_in_failure").fetchall())
    assert "nobody-of-that-name" not in stored
    connection.execute("update sign_in_failure set at = at - interval '16 minutes'")
    with closing(site.browser()) as browser:
        assert browser.sign_in("ada").status_code == 303, "the lock expires"


def test_an_address_that_tries_many_names_is_locked(people: None, stranger: Browser, connection: Connection) -> None:
    address = lockout.address_subject("127.0.0.1")
    for _ in range(lockout.ADDRESS_LIMIT):
        users.note_failures(connection, [address], lockout.WINDOW_SECONDS)
    assert stranger.sign_in("ada").status_code == 429


# --- what every answer carries ---------------------------------------------------------------------------


def pages_of(site: Site) -> set[str]:
    """Return every page of the dashboard that is asked for by GET and needs a session."""
    known = {"name": "nobody", "message_id": "1", "command": "refresh", "endpoint_id": "1"}
    return {
        path.format(**known) for path in dashboard_paths(site, "GET") if not path.startswith(("/sign-in", "/static"))
    }


def dashboard_paths(site: Site, method: str) -> set[str]:
    found = {route.path for route in site.pages if method in (route.methods or ())}
    assert found
    return found


def test_every_page_has_a_strict_policy_and_nothing_inline(
    site: Site, operator: Browser, sample: dict[str, int]
) -> None:
    paths = {*pages_of(site) - {"/fleet/stream", "/log/stream"}, "/sign-in", f"/messages/{sample['sent']}"}
    paths |= {f"/messages/{sample['in_doubt']}", "/devices/sample", "/add-device?platform=wablas", "/nothing/here"[:1]}
    for path in sorted(paths):
        answer = operator.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store", path
        assert inline_code(answer.text) == [], path


def test_static_files_are_kept_and_nothing_else_is_served(stranger: Browser) -> None:
    page = stranger.get("/sign-in").text
    for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        answer = stranger.get(path)
        assert answer.status_code == 200, path
        assert "immutable" in answer.headers["cache-control"]
    for path in ("/static/nothing.css", "/static/../desk.py", "/static/%2e%2e/desk.py", "/static/vendor/"):
        assert stranger.session.get(stranger.url + path, timeout=20).status_code in {404, 303}


# --- who may change what ---------------------------------------------------------------------------------


def test_a_viewer_sees_no_controls_and_every_change_is_refused(
    site: Site, viewer: Browser, sample: dict[str, int]
) -> None:
    known = {"name": "sample", "message_id": str(sample["in_doubt"]), "command": "pause"}
    known["endpoint_id"] = str(sample["endpoint"])
    changes = dashboard_paths(site, "POST") - {"/sign-in", "/first-sign-in", "/sign-out"}
    assert len(changes) >= 5
    for path in changes:
        answer = viewer.post(path.format(**known), "/")
        assert answer.status_code == 403, path
        assert "Viewers look" in words(answer)
    for path in ("/", "/devices/sample", f"/messages/{sample['in_doubt']}", "/messages/in-doubt", "/messages/new"):
        forms = re.findall(r'method="post" action="([^"]+)"', viewer.get(path).text)
        assert forms == ["/sign-out"], path


def test_a_form_without_its_proof_or_from_another_site_is_refused(
    site: Site, operator: Browser, sample: dict[str, int]
) -> None:
    known = {"name": "sample", "message_id": str(sample["in_doubt"]), "command": "pause"}
    known["endpoint_id"] = str(sample["endpoint"])
    for path in dashboard_paths(site, "POST"):
        assert operator.post(path.format(**known)).status_code == 403, path
        assert operator.post(path.format(**known), form_proof="0" * 64).status_code == 403, path
    proof = re.search(r'form_proof" value="(\w+)"', operator.get("/messages/new").text)
    assert proof is not None
    elsewhere = operator.session.post(
        operator.url + "/devices/sample/pause",
        data={"form_proof": proof[1]},
        headers={"Sec-Fetch-Site": "cross-site"},
        timeout=20,
    )
    assert elsewhere.status_code == 403


def test_a_message_is_sent_again_only_by_one_who_says_that_it_did_not_arrive(
    operator: Browser, sample: dict[str, int]
) -> None:
    path = f"/messages/{sample['in_doubt']}/resolve"
    assert operator.post(path, "/messages/new", answer="resend").status_code == 422
    assert operator.post(path, "/messages/new", answer="both").status_code == 422


def test_what_nobody_can_tell_is_asked_again_under_the_same_key(operator: Browser, sample: dict[str, int]) -> None:
    key = "browser-" + secrets.token_hex(16)
    fields = {"device": "sample", "to": "+60123456789", "text": "a\r\nb", "key": key}
    answer = operator.post("/messages/new", "/messages/new", **fields)  # there is no router here
    assert answer.status_code == 504
    assert key in answer.text
    assert "did not answer" in words(answer)


# --- what pages show, and never show ---------------------------------------------------------------------


@pytest.fixture
def sample(connection: Connection, storage_url: str) -> Iterator[dict[str, int]]:
    """A device named sample whose every text is hostile, with a sent message and one in doubt."""
    connection.execute("update device set removed_at = now(), name = name || id where name = 'sample'")
    device_id = devices.add(connection, name="sample", platform=None)
    devices.set_state(connection, device_id, "logged_out", "logged_out", HOSTILE)
    connection.execute(
        "update device set held_until = now() + interval '1 hour', held_reason = %s where id = %s", [HOSTILE, device_id]
    )
    restarts.record(connection, Restart("device", "sample", "x", HOSTILE, HOSTILE, HOSTILE, 0.1, device_id=device_id))
    connection.execute(
        "insert into breaker (platform, account, state, reason, failures) values ('wablas', %s, 'open', %s, 3)"
        " on conflict do nothing",
        [HOSTILE, HOSTILE],
    )
    connection.execute("update device set held_until = null where id = %s", [device_id])
    database = PooledConnections(storage_url, 1)
    sender = Outbox(database, "test")
    sent, in_doubt = accept_texts(connection, device_id, HOSTILE, HOSTILE + "\nsecond line")
    sender.sent(claim_next(sender, device_id), "3EB0", HOSTILE)
    sender.in_doubt(claim_next(sender, device_id), "no_answer", HOSTILE, None)
    database.close()
    endpoint_id = endpoints.add(
        connection,
        url="https://example.com/hook?token=hidden-away",
        description=HOSTILE,
        events=["*"],
        device_id=None,
        secret=b"sealed",
    )
    delivery_id = endpoint_deliveries.test(connection, endpoint_id)
    delivery = Delivery(delivery_id, endpoint_id, 0, UUID(int=1), "webhook.test", {}, 0)
    endpoint_deliveries.record(connection, [Tried(delivery, "dead", 500, HOSTILE, "It answered 500.")])
    yield {"device": device_id, "sent": sent, "in_doubt": in_doubt, "endpoint": endpoint_id}
    connection.execute("delete from breaker")
    endpoints.remove(connection, endpoint_id)


def test_texts_of_strangers_are_shown_as_text(operator: Browser, sample: dict[str, int]) -> None:
    pages = (
        "/",
        "/devices/sample",
        "/devices?q=sample",
        "/messages",
        "/messages/in-doubt",
        f"/messages/{sample['sent']}",
        f"/messages/{sample['in_doubt']}",
        "/platforms",
        "/webhooks",
        f"/webhooks/{sample['endpoint']}?dead=1",
        "/log",
    )
    for path in pages:
        page = operator.get(path).text
        assert "&lt;script&gt;alert(1)" in page, path
        assert "<script>alert(1)" not in page, path
        assert "<img" not in page, path
        assert "{{ 7 * 7 }}" in page, path
    shown = operator.get("/messages?device=%3Cscript%3Ealert(1)%3C/script%3E").text
    assert "<script>alert(1)" not in shown


def test_no_page_shows_a_credential_or_proxy(operator: Browser, connection: Connection, site: Site) -> None:
    seal = CredentialSeal(site.home.credentials_key)
    secret = "invented-" + secrets.token_hex(8)
    devices.add(
        connection,
        name="desk-secret",
        platform="wablas",
        base_url="https://bdg.wablas.com",
        credentials=seal.seal({"token": secret}),
        proxy=seal.seal({"proxy": f"http://user:{secret}@proxy.example:1"}),
    )
    typed = {
        "name": "another",
        "platform": "wablas",
        "base_url": "https://bdg.wablas.com",
        "credential_token": secret,
        "credential_secret_key": secret,
        "proxy": f"ftp://user:{secret}@proxy.example",
    }
    refused = operator.post("/add-device", "/add-device?platform=wablas", **typed)
    assert refused.status_code == 422
    assert 'value="another"' in refused.text
    for page in (refused, operator.get("/devices/desk-secret"), operator.get("/devices/desk-secret/live")):
        assert secret not in page.text
        assert seal.seal({"token": secret}).decode()[:20] not in page.text


def test_a_viewer_is_not_shown_what_would_link_a_phone(
    viewer: Browser, site: Site, connection: Connection, sample: dict[str, int]
) -> None:
    devices.set_state(connection, sample["device"], "pairing", "pairing", "Waiting.")
    devices.set_pairing(connection, sample["device"], qr="2@invented,qr,text", code=None)
    with closing(site.browser()) as browser:
        assert 'id="pairing-qr"' in browser.signed_in("ada").get("/devices/sample").text
    assert 'id="pairing-qr"' not in viewer.get("/devices/sample").text
    devices.set_pairing(connection, sample["device"], qr=None, code="ABCD-EFGH")
    assert "ABCD-EFGH" not in viewer.get("/devices/sample").text


def test_webhooks_are_shown_with_their_answers_and_what_can_be_done(
    operator: Browser, viewer: Browser, sample: dict[str, int]
) -> None:
    path = f"/webhooks/{sample['endpoint']}"
    for browser in (operator, viewer):
        for page in (browser.get("/webhooks"), browser.get(path)):
            assert "hidden-away" not in page.text, "a URL's query may hold a secret"
            assert "https://example.com/hook" in page.text
    page = operator.get(path)
    assert "given up 1 500 It answered 500." in words(page)
    forms = set(re.findall(rf'method="post" action="{path}/([a-z]+)"', page.text))
    assert forms == {"test", "replay", "disable"}
    assert re.findall(rf'action="{path}', viewer.get(path).text) == []
    assert operator.post(f"{path}/replay", path).status_code == 504, "there is no router here"


def test_unknown_things_are_told_as_pages(operator: Browser) -> None:
    messages = ("/messages/999999999", "/messages/abc", "/messages/99999999999999999999")
    for path in ("/devices/nobody", *messages, "/webhooks/999999999", "/webhooks/abc"):
        answer = operator.get(path)
        assert answer.status_code == 404, path
        assert "There is no" in words(answer)


def test_what_no_row_can_hold_is_asked_for_in_vain(operator: Browser, sample: dict[str, int]) -> None:
    for path in (
        "/devices/sample?request=%00",
        "/messages?to=a%00b",
        "/messages?device=%00",
        "/devices?q=%00",
        "/?q=%00",
    ):
        answer = operator.get(path)
        assert answer.status_code == 404, path
        assert "There is no such page." in words(answer)


def test_a_form_that_cannot_be_read_is_told_so(site: Site, people: None, stranger: Browser) -> None:
    unreadable = (
        ("multipart/form-data", b"x"),
        ("application/x-www-form-urlencoded", b"a=1&" * 200),
        ("application/x-www-form-urlencoded", b"a=" + b"1" * 2_000_000),
    )
    for content_type, body in unreadable:
        answer = stranger.session.post(
            f"{stranger.url}/sign-in", data=body, headers={"Content-Type": content_type}, timeout=20
        )
        assert answer.status_code == 422, content_type
        assert "The form cannot be read" in words(answer)


# --- what changes by itself ------------------------------------------------------------------------------


def test_a_part_is_sent_only_when_it_differs(operator: Browser, connection: Connection, sample: dict[str, int]) -> None:
    page = operator.get("/devices/sample").text
    found = re.search(r'hx-get="(/devices/sample/live\?seen=\w+)"', page)
    assert found is not None
    assert operator.get(found[1]).status_code == 204
    devices.set_state(connection, sample["device"], "online", "connected", "Connected.")
    answer = operator.get(found[1])
    assert answer.status_code == 200
    assert "Connected." in answer.text
    again = re.search(r'hx-get="([^"]+)"', answer.text)
    assert again is not None
    assert operator.get(again[1]).status_code == 204


def test_the_map_is_told_everything_once_and_then_what_changed(
    operator: Browser, connection: Connection, sample: dict[str, int]
) -> None:
    with operator.session.get(operator.url + "/fleet/stream", stream=True, timeout=20) as answer:
        events = fleet_events(answer)
        everything = next(events)["all"]
        assert everything[everything.index(sample["device"]) + 1] == "logged_out"
        devices.set_state(connection, sample["device"], "online", "connected", "Connected.")
        assert next(events) == {"changed": [sample["device"], "online"], "others": False}
        new_device(connection)
        assert next(events) == {"changed": [], "others": True}


def fleet_events(answer: requests.Response) -> Iterator[Any]:
    for line in answer.iter_lines():
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


# --- lists -----------------------------------------------------------------------------------------------


def test_messages_are_listed_page_by_page_and_filtered(operator: Browser, connection: Connection) -> None:
    device_id = new_device(connection)
    row = connection.execute("select name from device where id = %s", [device_id]).fetchone()
    assert row is not None
    name = row["name"]
    ids = accept_texts(connection, device_id, *(f"text {number}" for number in range(120)))
    seen: list[int] = []
    path: str | None = f"/messages?device={name}&state=queued"
    while path is not None:
        page = operator.get(path).text
        seen += [int(found) for found in re.findall(r'<td><a href="/messages/(\d+)">', page)]
        older = re.search(r'href="(/messages\?[^"]*before=\d+)"', page)
        path = older[1].replace("&amp;", "&") if older else None
    assert seen == ids[::-1]
    assert "No message is like that." in words(operator.get(f"/messages?device={name}&state=failed"))
    assert "There is no device named" in words(operator.get("/messages?device=nobody"))
    assert "text 119" in operator.get("/messages?to=%2B60123456789").text


def test_devices_are_listed_page_by_page_and_filtered(operator: Browser, connection: Connection) -> None:
    prefix = secrets.token_hex(4)
    for number in range(60):
        devices.add(connection, name=f"{prefix}-{number:02}", platform="wablas" if number % 2 else None)
    first_page = operator.get(f"/devices?q={prefix}", **{"HX-Request": "true"}).text
    second_page = operator.get(f"/devices?q={prefix}&after={prefix}-49", **{"HX-Request": "true"}).text
    named = [re.findall(rf">({prefix}-\d\d)</a>", page) for page in (first_page, second_page)]
    assert named[0] + named[1] == [f"{prefix}-{number:02}" for number in range(60)]
    assert len(named[0]) == 50
    again = re.search(r'hx-get="(/devices\?q=\w+&amp;after=[^"]+)"', second_page)
    assert again is not None
    assert operator.get(again[1].replace("&amp;", "&"), **{"HX-Request": "true"}).status_code == 204
    only = operator.get(f"/devices?q={prefix}&platform=wablas&state=ready").text
    assert len(re.findall(rf">{prefix}-\d\d</a>", only)) == 30
    assert "No device is like that." in words(operator.get(f"/devices?q={prefix}&state=banned"))


# --- charts ----------------------------------------------------------------------------------------------


def test_charts_are_drawn_from_the_counts(operator: Browser, connection: Connection) -> None:
    connection.execute(
        "insert into traffic (minute, sent, delivered, reconnects, delivery)"
        " values (date_trunc('minute', now()) - interval '3 minutes', 7, 5, 2, '{0,5,0,0,0,0,0,0,0}')"
        " on conflict (minute) do update set sent = 7, delivered = 5, reconnects = 2, delivery = excluded.delivery"
    )
    page = operator.get("/charts")
    assert "7 sent" in words(page)
    assert "<title>7 sent, 3 min ago</title>" in page.text
    assert "<circle" in page.text
    assert "Nothing was" not in words(operator.get("/charts?period=day"))
    assert operator.get("/charts?period=century").status_code == 200
