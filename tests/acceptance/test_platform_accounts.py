"""An account at every platform in one daemon: checked, faulted, settled by look-ups, and nowhere a credential."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest

from actors.platforms import contract_of
from config.errors import Refused
from simulator.platforms.server import DEFAULT_ACCOUNTS
from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    from pathlib import Path

#: A poll of a second is often enough for everything but a test.
SETTINGS = {"poll_seconds": 0.2}
EVERY_PLATFORM = sorted(DEFAULT_ACCOUNTS)
ASKED_BY_REFERENCE = ["ultramsg", "wablas", "wablas_v2"]
#: Two accounts of a platform, so that what opens the breaker of the one leaves the other alone.
ACCOUNTS = {platform: (f"first-{platform}", f"second-{platform}") for platform in EVERY_PLATFORM}


@pytest.fixture(scope="module", autouse=True)
def accounts(daemon: Daemon) -> None:
    for platform, names in ACCOUNTS.items():
        for name in names:
            daemon.add_platform(name, platform)


@pytest.mark.parametrize("platform", EVERY_PLATFORM)
def test_every_account_passes_its_providers_own_check(daemon: Daemon, platform: str) -> None:
    assert daemon.json("device", "test", ACCOUNTS[platform][0])["state"] == "connected"
    assert daemon.simulator.platform_log(platform) == []


@pytest.mark.parametrize("platform", EVERY_PLATFORM)
def test_a_lost_reply_is_one_message_at_the_provider_and_in_doubt_until_it_is_settled(
    daemon: Daemon, platform: str
) -> None:
    daemon.simulator.platform_fault(platform, "reset-after-recording")
    with daemon.fleet() as fleet:
        lost = fleet.send(ACCOUNTS[platform][0], "+6281234567890", "its reply is lost")
        found = "sent" if platform in ASKED_BY_REFERENCE else "in_doubt"
        daemon.await_message(fleet, lost, found, 60)
        daemon.simulator.platform_fault(platform, "clear")
        daemon.await_message(fleet, fleet.send(ACCOUNTS[platform][1], "+6281234567890", "in order"), "sent", 60)
        story = [(each["state"], each["reason_code"]) for each in (fleet.message(lost) or {})["story"]]
    recorded = [each["text"] for each in daemon.simulator.platform_log(platform)]
    assert recorded == ["its reply is lost", "in order"]
    assert [state for state, _ in story[:3]] == ["queued", "sending", "in_doubt"]
    assert story[3:] == ([("sent", "settled")] if platform in ASKED_BY_REFERENCE else [])


@pytest.mark.parametrize("platform", EVERY_PLATFORM)
def test_a_refused_credential_costs_one_message_and_opens_the_breaker_of_its_account(
    daemon: Daemon, platform: str
) -> None:
    name, other = ACCOUNTS[platform]
    daemon.simulator.platform_fault(platform, "bad-credential")
    with daemon.fleet() as fleet:
        first, second = (fleet.send(name, "+6281234567890", text) for text in ("refused", "waits"))
        daemon.await_message(fleet, first, "failed")
        # Looked at as soon as the refusal is recorded: both are written together.
        shown = [each for each in fleet.breakers() if each["platform"] == platform]
        assert [(each["account"], each["state"]) for each in shown] == [(name, "open")]
        daemon.simulator.platform_fault(platform, "clear")
        daemon.await_message(fleet, fleet.send(other, "+6281234567890", "nobody else's waits"), "sent")
        assert (fleet.message(second) or {})["state"] == "queued"
    assert daemon.log_lines(f"account {name} is open")


def test_a_name_that_another_device_was_given_means_that_device(daemon: Daemon) -> None:
    daemon.add_platform("shop", "wablas")
    with daemon.fleet() as fleet:
        former = fleet.device("shop").id
        daemon.await_message(fleet, fleet.send("shop", "+6281234567890", "to the first"), "sent")
        daemon.ok("device", "remove", "shop")
        with pytest.raises(Refused) as refused:
            fleet.send("shop", "+6281234567890", "to nobody")
        assert refused.value.code == "unknown_device"
        daemon.add_platform("shop", "whacenter")
        message = fleet.send("shop", "+6281234567890", "to the second")
        daemon.await_message(fleet, message, "sent")
        assert fleet.device("shop").id != former
        assert (fleet.message(message) or {})["platform"] == "whacenter"


def test_no_credential_stands_anywhere_in_the_home(daemon: Daemon) -> None:
    daemon.kill("platform-wablas")  # a death in the middle of it writes no more than a life
    daemon.process("platform-wablas")
    values = {
        spelling: f"{platform}'s {field.name}"
        for platform in EVERY_PLATFORM
        for field in contract_of(platform).credential_fields
        if field.secret and not field.is_file and (value := DEFAULT_ACCOUNTS[platform].get(field.name))
        for spelling in {value, quote(value, safe=""), quote_plus(value), base64.b64encode(value.encode()).decode()}
    }
    twilio = DEFAULT_ACCOUNTS["twilio"]
    values[base64.b64encode(f"{twilio['account_sid']}:{twilio['auth_token']}".encode()).decode()] = "twilio's header"
    told = eventually(lambda: everything_in(daemon.home.path, but=daemon.home.simulator), 10, "the home to be read")
    assert len(told) > 20
    found = {
        f"{whose} in {path.name}"
        for path, content in told.items()
        for spelling, whose in values.items()
        if spelling.encode() in content
    }
    assert not found
    assert any(b"its reply is lost" in content for content in told.values()), "the messages' texts do stand there"
    shown = daemon.ok("device", "show", "first-twilio", "--json") + daemon.ok("device", "list", "--json")
    shown += daemon.ok("status", "--json") + daemon.ok("messages", "--json")
    assert not [whose for spelling, whose in values.items() if spelling in shown]


def everything_in(directory: Path, but: Path) -> dict[Path, bytes]:
    """Return every file's content, PostgreSQL's included; the stand-ins know their accounts by nature."""
    found = {}
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_relative_to(but):
            try:
                found[path] = path.read_bytes()
            except FileNotFoundError:
                continue  # PostgreSQL removed it meanwhile
    return found
