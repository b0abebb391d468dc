"""The dashboard as people use it: in a real browser (headless Chromium), against a daemon and a simulated WhatsApp.

``SCREENSHOTS_DIR`` names a directory for the pictures of the README; without it they go to the test's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.dashboard.devices import qr_svg
from tests.support.daemon import Daemon, eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists() and "CI" not in os.environ:
    pytest.skip(f"there is no {CHROMIUM} (Debian's package chromium)", allow_module_level=True)

from playwright.sync_api import expect, sync_playwright  # noqa: E402 - not needed where the module is skipped

SETTINGS = {"max_shards": 2, "send_seconds": 3, "connect_seconds": 5, "backoff_first_seconds": 0.5}
#: Without these Chromium looks for hosts of its maker; without a sandbox, because root has none.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PASSWORD = "an invented password"
_WAIT = 40_000
DEVICES = ("north", "south", "east", "west")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    """What browsers complained about: scripts that failed, and what the policy forbade."""
    return []


@pytest.fixture(scope="module")
def page(chromium: Browser, daemon: Daemon, complaints: list[str]) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light", locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(_WAIT)
    expect.set_options(timeout=_WAIT)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    yield page
    context.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = os.environ.get("SCREENSHOTS_DIR")
    return Path(chosen) if chosen else tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def url(daemon: Daemon) -> str:
    return str(daemon.json("dashboard")["url"])


@dataclass
class ShownQr:
    """A device's page in a tab of its own, and the QR it showed first."""

    page: Page
    device: str
    first: str = ""

    def show(self) -> None:
        """Press the button, if the pairing has not begun or is over, and keep what is shown then."""
        button = self.page.get_by_role("button", name="Show the QR code")
        if button.count():
            button.click()
            self.first = eventually(self.drawn, 60, "a QR")

    def drawn(self) -> str | None:
        """Return the modules of the QR that the page shows now."""
        paths = self.page.locator("#pairing-qr svg path").evaluate_all("all => all.map(p => p.getAttribute('d'))")
        return paths[-1] if paths else None


@pytest.fixture(scope="module")
def waiting_qr(daemon: Daemon, page: Page, url: str) -> ShownQr:
    """Return a QR that waits while other tests run: its first one is shown for most of a minute."""
    with daemon.fleet() as fleet:
        fleet.add_device("later")
    shown = ShownQr(page.context.new_page(), "later")
    shown.page.goto(f"{url}/devices/later")
    shown.show()
    return shown


def states_on(page: Page) -> list[str]:
    return [title.rsplit(": ", 1)[1] for title in page.locator(".cell").evaluate_all("all => all.map(c => c.title)")]


def test_a_stranger_signs_in_pairs_a_phone_and_sends_a_message(
    daemon: Daemon, page: Page, url: str, pictures: Path
) -> None:
    told = daemon.json("dashboard")
    page.goto(told["url"])
    page.get_by_label("Code from the terminal").fill(told["code"])
    page.get_by_label("Your name").fill("ada")
    page.get_by_label("A password").fill(PASSWORD)
    page.get_by_label("The password again").fill(PASSWORD)
    page.get_by_role("button", name="Begin").click()

    page.get_by_role("link", name="Add the first device").click()
    page.get_by_label("Name").fill("shop-1")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("button", name="Show the QR code").click()
    shown = page.locator("#pairing-qr svg path").last

    with daemon.fleet() as fleet:

        def qr_on_the_page() -> str | None:
            """Return the QR's text once the page draws the very same."""
            text = fleet.device("shop-1").pairing_qr
            drawn = shown.get_attribute("d") if text and shown.count() else None
            return text if text and drawn and drawn in str(qr_svg(text)) else None

        qr = eventually(qr_on_the_page, 60, "the page to show the QR that waits")
    page.screenshot(path=pictures / "pairing.png")
    daemon.simulator.add_phone("60123456789")
    daemon.simulator.scan("60123456789", qr)
    expect(page.locator("h1 .badge")).to_have_text("online")

    page.get_by_label("To").fill("+60 19-888 7777")
    page.get_by_label("Text").fill("Your order is ready.")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator("h1 .badge")).to_have_text(re.compile("delivered|read"))
    assert daemon.texts("60198887777") == ["Your order is ready."]
    expect(page.get_by_text("run.py simulator inbox 60198887777")).to_be_visible()
    assert page.url.startswith(f"{url}/messages/")


def test_the_refresh_button_refreshes_as_the_command_does(daemon: Daemon, page: Page, url: str) -> None:
    page.goto(f"{url}/devices/shop-1")
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_text(re.compile(r"Refreshed in \d+\.\d\d s"))).to_be_visible()
    expect(page.get_by_text("The operator asked for it.").first).to_be_visible()
    assert daemon.json("device", "show", "shop-1")["restarts"][-1]["cause_code"] == "operator"
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("h1 .badge")).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("h1 .badge")).to_have_text("online")


def test_a_killed_shard_is_seen_to_recover_without_reload(daemon: Daemon, page: Page, url: str, pictures: Path) -> None:
    for number, name in enumerate(DEVICES):
        daemon.add_paired(name, f"6012000000{number}")
    daemon.add_platform("desk-1", "wablas")
    page.goto(url)
    expect(page.locator("#summary")).to_have_text("6 devices: 6 can send")
    page.evaluate("window.stillTheSame = true")

    daemon.simulator.fault("refuse")  # so that the recovery can be watched
    try:
        daemon.kill("shard-1")
        expect(page.locator("#summary")).to_contain_text("on their way")
        expect(page.locator("#restarts-live")).to_contain_text("shard-1")
        expect(page.locator("#device-list")).to_contain_text("WhatsApp could not be reached.")
        page.screenshot(path=pictures / "fleet.png", full_page=True)
        assert "online" in states_on(page), "the other shard's devices stay"
    finally:
        daemon.simulator.fault("clear")
    expect(page.locator("#summary")).to_have_text("6 devices: 6 can send", timeout=2 * _WAIT)
    assert set(states_on(page)) == {"online", "ready"}
    assert page.evaluate("window.stillTheSame")


@pytest.mark.usefixtures("waiting_qr")
def test_a_phone_is_paired_by_a_code_that_is_typed_on_it(daemon: Daemon, page: Page, url: str, pictures: Path) -> None:
    daemon.simulator.add_phone("60123450001")
    page.goto(f"{url}/add-device")
    page.get_by_label("Name").fill("coded")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_label("Or type a code").fill("12 nonsense")
    page.get_by_role("button", name="Show a code").click()
    expect(page.get_by_role("alert")).to_contain_text("12 nonsense")
    page.goto(f"{url}/devices/coded")
    page.get_by_label("Or type a code").fill("+60 12-345 0001")
    page.get_by_role("button", name="Show a code").click()
    expect(page.locator("#pairing-code")).to_have_text(re.compile(r"^[0-9A-Z]{4}-[0-9A-Z]{4}$"))
    page.screenshot(path=pictures / "pairing-code.png")
    daemon.simulator.enter_code("60123450001", page.locator("#pairing-code").inner_text())
    expect(page.locator("h1 .badge")).to_have_text("online")
    expect(page.get_by_text("60123450001").first).to_be_visible()
    assert daemon.json("device", "show", "coded")["jid"].startswith("60123450001:")


def test_an_in_doubt_message_is_settled_by_either_answer(daemon: Daemon, page: Page, url: str, pictures: Path) -> None:
    with daemon.fleet() as fleet:
        jid = fleet.device("north").jid
        daemon.simulator.fault("drop-message", jid=jid)
        arrived = fleet.send("north", "60199000031", "Did this one arrive?")
        daemon.await_message(fleet, arrived, "in_doubt")
        lost = fleet.send("north", "60199000032", "<script>document.title = 'taken over'</script> And this one?")
        daemon.await_message(fleet, lost, "in_doubt")
        daemon.simulator.fault("clear", jid=jid)
        fleet.tell_device("north", "refresh")

        page.goto(f"{url}/messages/in-doubt")
        expect(page.locator(".count")).to_have_text("2")
        second = page.locator("section.doubt").filter(has_text="And this one?")
        second.locator("summary").click()
        page.screenshot(path=pictures / "in-doubt.png")
        assert page.title().startswith("In doubt")

        first = page.locator("section.doubt").filter(has_text="Did this one arrive?")
        first.get_by_role("button", name="It was sent").click()
        expect(first).to_have_count(0)
        assert fleet.states([arrived])[arrived]["state"] == "sent"

        second.locator("summary").click()
        second.get_by_role("button", name="Send it again").click()
        assert fleet.states([lost])[lost]["state"] == "in_doubt", "it must be said first that it did not arrive"
        second.get_by_label("I made sure").check()
        second.get_by_role("button", name="Send it again").click()
        expect(page.get_by_text("Nothing is in doubt")).to_be_visible()
        daemon.await_message(fleet, lost, "delivered read", 60)
    assert len(daemon.texts("60199000032")) == 1
    assert daemon.texts("60199000031") == []


def test_the_gateway_may_die_and_the_open_page_goes_on(daemon: Daemon, page: Page, url: str) -> None:
    page.goto(url)
    daemon.kill("gateway")
    expect(page.locator("#away")).to_be_visible()
    expect(page.locator("#away")).to_be_hidden()
    expect(page.locator("#restarts-live")).to_contain_text("gateway")
    page.goto(f"{url}/devices/north")
    expect(page.locator("h1")).to_contain_text("north")


def test_a_qr_renews_itself_on_the_page_and_the_new_one_links(daemon: Daemon, waiting_qr: ShownQr) -> None:
    waiting_qr.show()  # again, should this machine be so busy that the pairing has ended meanwhile
    eventually(lambda: waiting_qr.drawn() not in {None, waiting_qr.first}, 90, "the page to show another QR")
    with daemon.fleet() as fleet:
        text = eventually(lambda: fleet.device("later").pairing_qr, 30, "the QR that waits")
    daemon.simulator.add_phone("60123450002")
    daemon.simulator.scan("60123450002", text)
    expect(waiting_qr.page.locator("h1 .badge")).to_have_text("online")
    expect(waiting_qr.page.locator("#pairing-qr")).to_have_count(0)
    waiting_qr.page.close()


def test_it_works_by_keyboard(page: Page, url: str) -> None:
    page.goto(url)
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    cells = page.locator(".cell")
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    expect(cells.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(cells.last).to_be_focused()
    name = (cells.last.get_attribute("title") or "").split(":")[0]
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/devices/{name}")


def test_the_map_and_the_list_are_searched_and_filtered_as_one_types(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_label("Search").fill("orth")
    expect(page.locator("#device-list tbody tr")).to_have_count(1)
    expect(page.locator(".cell:not(.dim)")).to_have_count(1)
    page.get_by_label("Search").fill("")
    page.get_by_label("ready").check(force=True)
    expect(page.locator("#device-list tbody tr")).to_have_count(1)
    expect(page.locator("#device-list tbody")).to_contain_text("desk-1")


def test_the_log_is_shown_as_it_is_written(daemon: Daemon, page: Page, url: str, pictures: Path) -> None:
    page.goto(f"{url}/log")
    expect(page.locator("#log .line").first).to_be_attached()
    daemon.ok("device", "refresh", "east")
    expect(page.locator("#log")).to_contain_text("Refreshed WhatsApp device east")
    page.locator("#log-level").select_option("error")
    expect(page.locator("#log .line.l-info:visible")).to_have_count(0)


def test_it_fits_a_phone_in_the_dark(
    chromium: Browser, page: Page, url: str, pictures: Path, complaints: list[str]
) -> None:
    context = chromium.new_context(
        viewport={"width": 390, "height": 780},
        color_scheme="dark",
        device_scale_factor=2,
        has_touch=True,
        storage_state=page.context.storage_state(),
    )
    phone = context.new_page()
    phone.on("pageerror", lambda error: complaints.append(str(error)))
    paths = ("/", "/devices/north", "/messages", "/messages/new", "/messages/in-doubt", "/platforms", "/charts", "/log")
    for path in (*paths, "/add-device?platform=wablas"):
        phone.goto(url + path)
        width = phone.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{path} is {width} wide"
    phone.goto(url)
    phone.screenshot(path=pictures / "phone.png")
    context.close()


def test_nothing_secret_was_logged_and_no_script_failed(
    daemon: Daemon, page: Page, complaints: list[str], url: str
) -> None:
    token = next(each["value"] for each in page.context.cookies() if "session" in each["name"])
    logged = "".join(path.read_text(encoding="utf-8", errors="replace") for path in daemon.home.logs.iterdir())
    assert "signed in" in logged
    assert token not in logged
    assert PASSWORD not in logged
    assert complaints == []


def test_users_are_managed_from_the_terminal(daemon: Daemon, page: Page, url: str) -> None:
    given = {"text_in": "another invented password\n"}
    assert daemon.json("user", "add", "vic", **given) == {"name": "vic", "role": "viewer"}
    assert daemon.refused("user", "add", "VIC", **given).code == "name_taken"
    assert daemon.refused("user", "add", "eve", text_in="short\n").code == "bad_password"
    assert daemon.refused("user", "add", "eve", "--role", "king", **given).code == "bad_role"
    assert [(row["name"], row["role"]) for row in daemon.json("user", "list")] == [
        ("ada", "operator"),
        ("vic", "viewer"),
    ]
    assert daemon.json("dashboard")["code"] is None
    daemon.ok("user", "remove", "vic")
    assert daemon.run("user", "remove", "vic").returncode == 5
    page.goto(url)
    daemon.ok("user", "password", "ada", text_in="yet another password\n")
    page.wait_for_url(f"{url}/sign-in")  # by itself: the session has ended
