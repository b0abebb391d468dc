"""The dispatcher of a platform on a real server, with real requests: order, workers, paces, holds, outages."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from actors.care import Rules
from actors.platforms.breakers import BreakerState
from actors.platforms.dispatcher import Dispatcher
from config.home import Home
from simulator.platforms.server import DEFAULT_ACCOUNTS
from storage import breakers, care, devices, outbox
from storage.care import Limits
from storage.credentials import CredentialSeal
from storage.database import Connection, PooledConnections
from storage.embedded import EmbeddedPostgres
from storage.outbox import NewMessage, Outbox
from tests.integration.conftest import WaitUntil
from tests.support.outbox import accept, accept_texts, new_device, state_of, story_of
from tests.support.platforms import Running


@dataclass
class Provider:
    """A WAHA that answers every send, and remembers what came when."""

    url: str = ""
    #: Sends in the order they came: the account's key, the text, and how many of the account were under way with it.
    came: list[tuple[str, str, int]] = field(default_factory=list)
    most_at_once: int = 0
    under_way: dict[str, int] = field(default_factory=dict)
    may_answer: threading.Event = field(default_factory=threading.Event)
    status: int = 201
    #: How far each message came when asked about by its id.
    ack: int = 2


@pytest.fixture
def provider() -> Iterator[Provider]:
    told = Provider()
    told.may_answer.set()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # the library's name
            key = self.headers["X-Api-Key"]
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                told.under_way[key] = told.under_way.get(key, 0) + 1
                told.most_at_once = max(told.most_at_once, sum(told.under_way.values()))
                told.came.append((key, body["text"], told.under_way[key]))
                number = len(told.came)
            time.sleep(0.01)
            told.may_answer.wait(20)
            with lock:
                told.under_way[key] -= 1
            answer = json.dumps({"id": f"true_60@c.us_{number}"}).encode()
            self.send_response(told.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:  # the library's name
            """Tell how far a message came, in its recipient's chat."""
            *_, chat, _, identity = self.path.partition("?")[0].split("/")
            answer = json.dumps({"id": unquote(identity), "ack": told.ack, "fromMe": True}).encode()
            self.send_response(200 if unquote(chat) == "60123456789@c.us" else 404)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's name
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield told
    told.may_answer.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Platform:
    """Starts dispatchers, and adds accounts for them."""

    url: str
    seal: CredentialSeal
    connection: Connection
    stack: ExitStack

    def account(self, platform: str, base_url: str, **credentials: str) -> int:
        device_id = new_device(self.connection, platform)
        sealed = self.seal.seal(credentials or DEFAULT_ACCOUNTS[platform])
        self.connection.execute(
            "update device set base_url = %s, credentials = %s where id = %s", [base_url, sealed, device_id]
        )
        return device_id

    def start(
        self,
        platform: str,
        *device_ids: int,
        workers: int = 8,
        in_flight: int = 1,
        rules: Rules | None = None,
        owner: str = "one",
    ) -> Dispatcher:
        """Start a dispatcher that looks at its lanes each 50 ms."""
        database = PooledConnections(self.url, 4)
        self.stack.callback(database.close)
        dispatcher = Dispatcher(
            platform,
            Outbox(database, owner, rules),
            self.seal,
            loopback_allowed=True,
            workers=workers,
            poll_seconds=0.05,
            in_flight=in_flight,
            rules_everywhere=rules is not None and rules.everywhere,
        )
        dispatcher.host(device_ids)
        dispatcher.start()
        self.stack.callback(dispatcher.leave, 20.0)
        return dispatcher


@pytest.fixture
def platform(storage_url: str, connection: Connection, tmp_path: Path) -> Iterator[Platform]:
    home = Home(tmp_path / "home")
    home.create()
    with ExitStack() as stack:
        yield Platform(storage_url, CredentialSeal(home.credentials_key), connection, stack)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("platforms"))
    yield running
    running.stop()


def all_in(connection: Connection, message_ids: list[int], state: str) -> Callable[[], bool]:
    def look() -> bool:
        rows = outbox.states(connection, message_ids)
        return {rows[message_id]["state"] for message_id in message_ids} == {state}

    return look


def test_every_lane_keeps_its_order_with_one_message_under_way(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    lanes = {f"key-{number}": platform.account("waha", provider.url, api_key=f"key-{number}") for number in range(10)}
    texts = [f"message {number}" for number in range(8)]
    ids = [message_id for each in lanes.values() for message_id in accept_texts(connection, each, *texts)]
    platform.start("waha", *lanes.values(), workers=6)
    wait_until(all_in(connection, ids, "sent"), "all to be sent")
    for key in lanes:
        assert [text for whose, text, _ in provider.came if whose == key] == texts
    assert {at_once for _, _, at_once in provider.came} == {1}
    assert 2 <= provider.most_at_once <= 6


def test_a_message_is_not_touched_before_a_worker_is_free(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    lanes = [platform.account("waha", provider.url, api_key=f"key-{number}") for number in range(6)]
    ids = [message_id for each in lanes for message_id in accept_texts(connection, each, "hello")]
    provider.may_answer.clear()
    platform.start("waha", *lanes, workers=2)
    wait_until(lambda: len(provider.came) == 2, "two to be under way")
    states = [row["state"] for row in outbox.states(connection, ids).values()]
    assert sorted(states) == ["queued"] * 4 + ["sending"] * 2
    provider.may_answer.set()
    wait_until(all_in(connection, ids, "sent"), "all to be sent")


def test_a_hint_is_enough_to_send(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    lane = platform.account("waha", provider.url, api_key="key")
    dispatcher = platform.start("waha", lane)
    dispatcher._poll_seconds = 3600.0
    wait_until(lambda: dispatcher._next_poll > time.monotonic() + 60, "the last look")
    ids = accept_texts(connection, lane, "hello")
    dispatcher.wake([lane, 999_999])
    wait_until(all_in(connection, ids, "sent"), "it to be sent")


def test_an_account_that_cannot_be_used_holds_its_lane_and_costs_no_attempt(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    broken = platform.account("waha", "http://example.com", api_key="key")
    good = platform.account("waha", provider.url, api_key="key")
    (waiting,), going = accept_texts(connection, broken, "hello"), accept_texts(connection, good, "hello")
    platform.start("waha", broken, good)
    wait_until(all_in(connection, going, "sent"), "the other account's to be sent")
    device = devices.by_id(connection, broken)
    assert device is not None
    assert device.is_held
    assert "https://" in device.held_reason
    message = outbox.message(connection, waiting)
    assert message is not None
    assert (message["state"], message["attempts"]) == ("queued", 0)


def test_credentials_that_change_are_used_from_the_next_message_on(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    lane = platform.account("waha", provider.url, api_key="old")
    dispatcher = platform.start("waha", lane)
    wait_until(all_in(connection, accept_texts(connection, lane, "one"), "sent"), "the first to be sent")
    connection.execute(
        "update device set credentials = %s where id = %s", [platform.seal.seal({"api_key": "new"}), lane]
    )
    second = accept_texts(connection, lane, "two")
    dispatcher.wake([lane])
    wait_until(all_in(connection, second, "sent"), "the second to be sent")
    assert [key for key, _, _ in provider.came] == ["old", "new"]


def test_an_account_that_breaks_while_it_works_keeps_its_message(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    lane = platform.account("waha", provider.url, api_key="key")
    platform.start("waha", lane)
    wait_until(all_in(connection, accept_texts(connection, lane, "one"), "sent"), "the first to be sent")
    connection.execute("update device set base_url = 'http://example.com' where id = %s", [lane])
    (second,) = accept_texts(connection, lane, "two")
    wait_until(lambda: (devices.by_id(connection, lane) or device_gone()).is_held, "the lane to be held")
    assert state_of(connection, second) == "queued"
    assert len(provider.came) == 1


def breakers_of(connection: Connection, platform: str) -> list[tuple[str, str]]:
    """Return the breakers of a platform that are not closed, and how they are."""
    shown = breakers.all_breakers(connection)
    return [(each["account"], each["state"]) for each in shown if each["platform"] == platform]


def device_gone() -> devices.Device:
    raise AssertionError("the device is gone")


def test_a_removed_device_sends_nothing_more_and_the_others_go_on(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    gone, lane = (platform.account("waha", provider.url, api_key=key) for key in ("gone", "key"))
    dispatcher = platform.start("waha", gone, lane)
    with connection.transaction():  # so that the dispatcher sees the message no sooner than the removal
        (kept,), going = accept_texts(connection, gone, "no"), accept_texts(connection, lane, "yes")
        devices.remove(connection, gone)
    dispatcher.wake([gone, lane])
    wait_until(all_in(connection, going, "sent"), "the other's to be sent")
    assert state_of(connection, kept) == "queued"
    assert [text for _, text, _ in provider.came] == ["yes"]


# --- rules, paces, breakers ------------------------------------------------------------------------------


def test_the_rules_of_the_installation_are_asked_before_each_claim(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    lane = platform.account("waha", provider.url, api_key="key")
    ids = accept_texts(connection, lane, "one", "two", "three")
    platform.start("waha", lane, rules=Rules(per_day=2))
    wait_until(all_in(connection, ids[:2], "sent"), "two to be sent")
    wait_until(lambda: (devices.by_id(connection, lane) or device_gone()).held_code == "daily_cap", "the cap")
    assert state_of(connection, ids[2]) == "queued"


def test_a_lane_with_limits_of_its_own_obeys_them_among_lanes_without(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    limited, free = (platform.account("waha", provider.url, api_key=key) for key in ("limited", "free"))
    care.set_limits(connection, limited, Limits(per_day=1))
    held, going = (accept_texts(connection, each, "one", "two", "three") for each in (limited, free))
    platform.start("waha", limited, free, rules=Rules())
    wait_until(all_in(connection, going, "sent"), "the free lane's to be sent")
    wait_until(all_in(connection, held[:1], "sent"), "the limited lane's first to be sent")
    wait_until(lambda: (devices.by_id(connection, limited) or device_gone()).held_code == "daily_cap", "the cap")
    assert all_in(connection, held[1:], "queued")()


def test_a_documented_rate_spreads_an_accounts_messages_and_leaves_others_alone(
    connection: Connection, platform: Platform, stand_ins: Running, wait_until: WaitUntil
) -> None:
    lanes = [platform.account("twilio", stand_ins.urls["twilio"]) for _ in range(2)]
    ids = [accept_texts(connection, lane, *(f"{lane}: {number}" for number in range(6))) for lane in lanes]
    platform.start("twilio", *lanes)
    wait_until(all_in(connection, ids[0] + ids[1], "sent"), "all to be sent")
    rows = connection.execute(
        "select device_id, started_at from attempt where device_id = any(%s) order by id", [lanes]
    ).fetchall()
    for lane in lanes:
        began = [row["started_at"] for row in rows if row["device_id"] == lane]
        # Ten a second: five gaps of 0.1 s, measured at the claims, which come a moment before the requests.
        assert (began[-1] - began[0]).total_seconds() > 0.4
    spans = [[row["started_at"] for row in rows if row["device_id"] == lane] for lane in lanes]
    assert spans[0][0] < spans[1][-1], "side by side"
    assert spans[1][0] < spans[0][-1], "side by side"


def test_a_recipient_who_got_a_burst_holds_the_lane_and_nobody_elses(
    connection: Connection, platform: Platform, stand_ins: Running, wait_until: WaitUntil
) -> None:
    url = stand_ins.urls["meta_cloud"]
    lane, other = platform.account("meta_cloud", url), platform.account("meta_cloud", url)
    ids = accept_texts(connection, lane, *(f"{number}" for number in range(47)))
    (free,) = accept(connection, NewMessage(other, "60199999999", "text", "hello"))
    platform.start("meta_cloud", lane, other)
    wait_until(all_in(connection, ids[:45], "sent"), "the burst to be sent")
    wait_until(lambda: (devices.by_id(connection, lane) or device_gone()).is_held, "the lane to be held")
    device = devices.by_id(connection, lane)
    assert device is not None
    assert "recipient" in device.held_reason
    assert state_of(connection, ids[46]) == "queued"
    assert state_of(connection, free.id) == "sent"


def test_an_open_breaker_holds_its_lane_shows_itself_and_spares_other_accounts(
    connection: Connection, platform: Platform, stand_ins: Running, wait_until: WaitUntil
) -> None:
    stand_ins.stand_ins.set_fault("wablas", "reset-after-recording")
    lane = platform.account("wablas", stand_ins.urls["wablas"])
    ids = accept_texts(connection, lane, *(f"{number}" for number in range(8)))
    platform.start("wablas", lane)
    url = stand_ins.urls["wablas"]
    wait_until(lambda: breakers_of(connection, "wablas") == [(url, "open")], "the breaker to open")
    wait_until(lambda: (devices.by_id(connection, lane) or device_gone()).is_held, "the lane to be held")
    assert all_in(connection, ids[5:], "queued")()
    stand_ins.stand_ins.set_fault("wablas", "clear")
    wait_until(all_in(connection, ids[:5], "sent"), "the doubts to be settled by the look-up")


def test_a_provider_that_is_away_holds_its_own_accounts_and_none_at_another_address(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nowhere = f"http://127.0.0.1:{port}"
    away = [platform.account("waha", nowhere, api_key=f"away-{number}") for number in range(6)]
    held = [message_id for each in away for message_id in accept_texts(connection, each, "hello")]
    platform.start("waha", *away)
    wait_until(lambda: breakers_of(connection, "waha") == [(nowhere, "open")], "the provider's breaker to open")
    wait_until(all_in(connection, held, "queued"), "all to wait")
    lane = platform.account("waha", provider.url, api_key="key")
    platform.start("waha", lane, owner="two")
    wait_until(all_in(connection, accept_texts(connection, lane, "hello"), "sent"), "the other provider's to be sent")


def test_a_refused_account_costs_one_message_opens_its_breaker_and_spares_the_others(
    connection: Connection, platform: Platform, stand_ins: Running, wait_until: WaitUntil
) -> None:
    url = stand_ins.urls["green_api"]
    refused = platform.account("green_api", url, id_instance="1101000001", api_token="wrong")
    good = platform.account("green_api", url)
    ids, going = (accept_texts(connection, each, "one", "two", "three") for each in (refused, good))
    platform.start("green_api", refused, good)
    wait_until(all_in(connection, going, "sent"), "the other account's to be sent")
    wait_until(all_in(connection, ids[:1], "failed"), "the first to be refused")
    refused_name = (devices.by_id(connection, refused) or device_gone()).name
    assert breakers_of(connection, "green_api") == [(refused_name, "open")]
    assert all_in(connection, ids[1:], "queued")()


def test_trouble_that_the_gateway_was_told_about_opens_the_accounts_breaker(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    lane, other = (platform.account("waha", provider.url, api_key=key) for key in ("lane", "other"))
    device = devices.by_id(connection, lane)
    assert device is not None
    dispatcher = platform.start("waha", lane, other)
    wait_until(all_in(connection, accept_texts(connection, lane, "before"), "sent"), "the first to be sent")
    breakers.report(connection, "waha", device.name, "suspended for spam")
    its_own = dispatcher._breakers._accounts[device.name]
    wait_until(lambda: its_own.state is BreakerState.OPEN, "the breaker to open")
    held, going = accept_texts(connection, lane, "held"), accept_texts(connection, other, "going")
    wait_until(all_in(connection, going, "sent"), "the other account's to be sent")
    wait_until(lambda: (devices.by_id(connection, lane) or device_gone()).is_held, "the lane to be held")
    assert "suspended for spam" in (devices.by_id(connection, lane) or device_gone()).held_reason
    assert state_of(connection, held[0]) == "queued"


def test_an_account_may_have_as_many_messages_under_way_as_the_installation_and_its_platform_allow(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    lane, single = (platform.account("waha", provider.url, api_key=key) for key in ("lane", "single"))
    care.set_limits(connection, single, Limits(per_day=100))
    ids = [message_id for each in (lane, single) for message_id in accept_texts(connection, each, *"abcdefgh")]
    provider.may_answer.clear()
    # WAHA takes four at once at most, and an account with limits of its own sends one after the other.
    platform.start("waha", lane, single, in_flight=64, rules=Rules())
    wait_until(lambda: provider.under_way == {"lane": 4, "single": 1}, "four and one to be under way")
    provider.may_answer.set()
    wait_until(all_in(connection, ids, "sent"), "all to be sent")
    assert sorted(text for whose, text, _ in provider.came if whose == "lane") == list("abcdefgh")
    assert [text for whose, text, _ in provider.came if whose == "single"] == list("abcdefgh")
    assert max(at_once for whose, _, at_once in provider.came if whose == "lane") == 4
    assert max(at_once for whose, _, at_once in provider.came if whose == "single") == 1


def test_a_reply_that_names_an_id_but_no_verdict_is_settled_by_asking_about_the_id(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    provider.status = 500
    lane = platform.account("waha", provider.url, api_key="key")
    ids = accept_texts(connection, lane, "hello")
    platform.start("waha", lane)
    wait_until(all_in(connection, ids, "delivered"), "the doubt to be settled")
    assert story_of(connection, ids[0]) == ["queued", "sending", "in_doubt", "delivered"]
    assert len(provider.came) == 1


def test_doubts_that_nobody_can_settle_keep_none_from_being_asked_about(
    connection: Connection, platform: Platform, stand_ins: Running, wait_until: WaitUntil
) -> None:
    lane = platform.account("ultramsg", stand_ins.urls["ultramsg"])
    unknown = accept_texts(connection, lane, *(f"never arrived {number}" for number in range(250)))
    with ExitStack() as stack:
        database = PooledConnections(platform.url, 1)
        stack.callback(database.close)
        dead = Outbox(database, "dead")
        for message_id in unknown:
            claim = dead.claim(lane, message_id.to_bytes(32, "big"))
            assert claim is not None
            dead.in_doubt(claim, "no_reply", "no reply", None)
    stand_ins.stand_ins.set_fault("ultramsg", "reset-after-recording")
    arrived = accept_texts(connection, lane, "arrived")
    dispatcher = platform.start("ultramsg", lane)
    wait_until(all_in(connection, arrived, "in_doubt"), "its reply to be lost")
    stand_ins.stand_ins.set_fault("ultramsg", "clear")

    def settled() -> bool:
        dispatcher._next_lookup = 0.0  # fifteen seconds later
        return all_in(connection, arrived, "sent")()

    wait_until(settled, "the last to be settled")
    assert all_in(connection, unknown, "in_doubt")()


# --- outages and ends ------------------------------------------------------------------------------------


def test_an_outcome_outlives_an_outage_of_postgresql(
    postgres: EmbeddedPostgres,
    storage_url: str,
    connection: Connection,
    platform: Platform,
    provider: Provider,
    wait_until: WaitUntil,
) -> None:
    lane = platform.account("waha", provider.url, api_key="key")
    ids = accept_texts(connection, lane, "one", "two")
    provider.may_answer.clear()
    platform.start("waha", lane)
    wait_until(lambda: len(provider.came) == 1, "the first to be under way")
    postgres.stop()
    try:
        provider.may_answer.set()
        wait_until(lambda: provider.under_way["key"] == 0, "the answer")
    finally:
        postgres.start()
    database = PooledConnections(storage_url, 1)

    def both_sent() -> bool:
        with database.transaction() as again:
            return all_in(again, ids, "sent")()

    wait_until(both_sent, "both to be sent")
    database.close()
    assert [text for _, text, _ in provider.came] == ["one", "two"]


def test_leaving_lets_the_request_under_way_end_and_starts_nothing(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    lane = platform.account("waha", provider.url, api_key="key")
    ids = accept_texts(connection, lane, "one", "two")
    provider.may_answer.clear()
    dispatcher = platform.start("waha", lane)
    wait_until(lambda: len(provider.came) == 1, "the first to be under way")
    leaving = threading.Thread(target=dispatcher.leave, args=(20.0,))
    leaving.start()
    provider.may_answer.set()
    leaving.join()
    assert not dispatcher.is_alive()
    assert [state_of(connection, message_id) for message_id in ids] == ["sent", "queued"]


def test_what_a_dead_dispatcher_left_under_way_is_in_doubt_and_not_sent_again(
    connection: Connection, platform: Platform, provider: Provider, wait_until: WaitUntil
) -> None:
    lane = platform.account("waha", provider.url, api_key="key")
    left, following = accept_texts(connection, lane, "left", "following")
    dead = PooledConnections(platform.url, 1)
    platform.stack.callback(dead.close)
    claim = Outbox(dead, "dead").claim(lane, b"s" * 32)
    assert claim is not None
    assert claim.message_id == left
    platform.start("waha", lane, owner="alive")
    wait_until(all_in(connection, [following], "sent"), "the next to be sent")
    assert state_of(connection, left) == "in_doubt"
    assert [text for _, text, _ in provider.came] == ["following"]
