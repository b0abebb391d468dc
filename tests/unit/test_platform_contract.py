"""The registry, and what is checked of accounts and messages before anything is stored or sent."""

from __future__ import annotations

import pkgutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import actors.platforms
from actors.platforms import contract_of, contracts
from actors.platforms.checks import AccountNotUsable, MessageNotUsable, check_account, check_message
from actors.platforms.contract import PlatformContract, PlatformMessage, host_is_allowed
from actors.platforms.documentation import page
from actors.platforms.limits import TEMPLATE
from config.errors import NotFound, SalamanderError

WABLAS = contract_of("wablas")
WHACENTER = contract_of("whacenter")
TOKEN = {"token": "invented-token", "secret_key": "invented-secret"}
TEXT = PlatformMessage(reference="m-1", to="6281234567890", kind="text", body="hello")
IMAGE = replace(TEXT, kind="image", body="", media_url="https://example.com/a.jpg")


def test_the_registry_finds_every_contract_by_its_file_name() -> None:
    assert {"wablas", "whacenter"} <= set(contracts())
    for name, contract in contracts().items():
        assert contract.name == name
        assert type(contract).__module__ == f"actors.platforms.{name}"


def test_every_module_is_either_machinery_or_a_contract() -> None:
    found = {module.name for module in pkgutil.iter_modules(actors.platforms.__path__)}
    assert found - actors.platforms._MACHINERY == set(contracts())


_ELEVENTH = """
from actors.platforms.fonnte import Fonnte

class Eleventh(Fonnte):
    name = "eleventh"
    title = "Eleventh"

CONTRACT = Eleventh()
"""


def test_one_file_more_is_one_platform_more_and_nothing_else_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "eleventh.py").write_text(_ELEVENTH, encoding="utf-8")
    monkeypatch.setattr(actors.platforms, "__path__", [*actors.platforms.__path__, str(tmp_path)])
    contracts.cache_clear()
    try:
        assert contract_of("eleventh").title == "Eleventh"
        assert "## Eleventh" in page(contracts())
        account = check_account(contract_of("eleventh"), None, {"token": "invented"}, loopback_allowed=False)
        assert contract_of("eleventh").build_request(TEXT, account).url == "https://api.fonnte.com/send"
    finally:
        contracts.cache_clear()
        sys.modules.pop("actors.platforms.eleventh", None)


def test_an_unknown_platform_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(NotFound) as refused:
        contract_of("carrier-pigeon")
    assert "wablas" in refused.value.next_step


@pytest.mark.parametrize("contract", contracts().values(), ids=lambda each: each.name)
def test_every_contract_describes_itself_completely(contract: PlatformContract) -> None:
    assert contract.title
    assert contract.documentation.startswith("https://")
    assert contract.limits.kinds
    assert any(field.secret and field.required for field in contract.credential_fields)
    assert contract.success.paths
    assert contract.notes
    assert contract.limits.max_in_flight >= 1
    assert contract.limits.retry.longest_seconds > 0
    assert contract.limits.captioned_kinds < contract.limits.kinds
    assert contract.timeouts.total_seconds > contract.timeouts.connect_seconds > 0
    if contract.default_base_url is not None:
        credentials = {field.name: field.example or "x" * 20 for field in contract.credential_fields}
        account = check_account(contract, None, credentials, loopback_allowed=False)
        assert account.base_url == contract.default_base_url


@pytest.mark.parametrize(
    ("given_url", "used"),
    [
        ("https://my.wablas.com", "https://my.wablas.com"),
        ("https://my.wablas.com/", "https://my.wablas.com"),
        (" https://BDG.wablas.com:443 ", "https://bdg.wablas.com"),
    ],
)
def test_a_base_url_is_brought_into_one_form(given_url: str, used: str) -> None:
    assert check_account(WABLAS, given_url, TOKEN, loopback_allowed=False).base_url == used


def test_whacenter_has_a_default_and_its_path_is_added_where_it_is_missing() -> None:
    credentials = {"device_id": "invented"}
    for url in (None, "", "https://api.whacenter.com", "https://api.whacenter.com/api/"):
        account = check_account(WHACENTER, url, credentials, loopback_allowed=False)
        assert account.base_url == "https://api.whacenter.com/api"


@pytest.mark.parametrize(
    "url",
    [
        None,
        "my.wablas.com",
        "http://my.wablas.com",
        "ftp://my.wablas.com",
        "https://wablas.com.evil.example",
        "https://evil.example/my.wablas.com",
        "https://my.wablas.com@evil.example",
        "https://user:pass@my.wablas.com",
        "https://a.b.wablas.com",
        "https://-my.wablas.com",
        "https://my.wablas.com:8443",
        "https://my.wablas.com/api",
        "https://my.wablas.com?token=x",
        "https://my.wablas.com#x",
        "https://my.wablas.com\nevil",
        "https://mÿ.wablas.com",
        "https://my.wablas.com:notaport",
        "https://[::1",
        "https://169.254.169.254",
        "https://10.0.0.1",
        "http://127.0.0.1:8080",
        "https://localhost",
    ],
)
def test_a_base_url_outside_the_allow_list_is_refused(url: str | None) -> None:
    with pytest.raises(AccountNotUsable):
        check_account(WABLAS, url, TOKEN, loopback_allowed=False)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:1", "[::1]:9", "127.9.9.9"])
def test_loopback_is_allowed_only_while_the_simulator_runs(host: str) -> None:
    assert check_account(WABLAS, f"http://{host}", TOKEN, loopback_allowed=True).base_url == f"http://{host}"
    with pytest.raises(AccountNotUsable):
        check_account(WABLAS, f"http://{host}", TOKEN, loopback_allowed=False)


@pytest.mark.parametrize("url", ["http://my.wablas.com", "http://evil.example", "http://127.0.0.1.evil.example"])
def test_the_simulator_allows_no_plain_http_beyond_loopback(url: str) -> None:
    with pytest.raises(AccountNotUsable):
        check_account(WABLAS, url, TOKEN, loopback_allowed=True)


def test_loopback_keeps_a_path_of_its_own_and_gets_the_platforms_where_it_has_none() -> None:
    credentials = {"device_id": "invented"}
    bare = check_account(WHACENTER, "http://127.0.0.1:9", credentials, loopback_allowed=True)
    assert bare.base_url == "http://127.0.0.1:9/api"
    own = check_account(WHACENTER, "http://127.0.0.1:9/elsewhere/", credentials, loopback_allowed=True)
    assert own.base_url == "http://127.0.0.1:9/elsewhere"


@pytest.mark.parametrize(
    "credentials",
    [
        {},
        {"token": ""},
        {"secret_key": "only-the-secret"},
        {"token": "with space"},
        {"token": "with\r\nX-Injected: header"},
        {"token": "tökén"},
        {"token": "t", "secret_key": "a\x00b"},
        {"token": "t", "pässwörd-1234": "x"},
        {"token": "x" * 1001},
    ],
)
def test_credentials_that_cannot_be_used_are_refused_without_being_repeated(
    credentials: dict[str, str],
) -> None:
    with pytest.raises(AccountNotUsable) as refused:
        check_account(WABLAS, "https://my.wablas.com", credentials, loopback_allowed=False)
    told = f"{refused.value.sentence} {refused.value.next_step}"
    assert "pässwörd-1234" not in told
    assert not [value for value in credentials.values() if len(value) > 3 and value in told]


def test_an_old_wablas_device_needs_no_secret_key() -> None:
    account = check_account(WABLAS, "https://my.wablas.com", {"token": "t", "secret_key": ""}, loopback_allowed=False)
    assert account.credentials == {"token": "t"}


def test_neither_an_account_nor_a_request_shows_a_secret() -> None:
    account = check_account(WABLAS, "https://my.wablas.com", TOKEN, loopback_allowed=False)
    request = WABLAS.build_request(TEXT, account)
    check = WABLAS.build_check(account)
    for shown in (repr(account), str(account), repr(request), str(request), repr(check), f"{request}"):
        assert "invented-token" not in shown
        assert "invented-secret" not in shown


@pytest.mark.parametrize("contract", contracts().values(), ids=lambda each: each.name)
def test_a_credential_of_dots_never_becomes_a_way_up_in_a_path(contract: PlatformContract) -> None:
    base_url = contract.default_base_url or f"https://{contract.allowed_hosts[-1].replace('*', 'x')}"
    for field in contract.credential_fields:
        credentials = {each.name: each.example or "invented" for each in contract.credential_fields}
        with pytest.raises(AccountNotUsable):
            check_account(contract, base_url, credentials | {field.name: ".."}, loopback_allowed=False)


@pytest.mark.parametrize("name", ["waha", "evolution", "http"])
def test_software_that_people_run_themselves_may_be_on_this_machine(name: str) -> None:
    contract = contract_of(name)
    credentials = {field.name: field.example or "invented" for field in contract.credential_fields}
    for url in ("http://127.0.0.1:3000", "http://localhost:8080/behind/a/proxy"):
        assert check_account(contract, url, credentials, loopback_allowed=False).base_url == url
    for url in ("http://10.0.0.1:3000", "http://waha.example.com", "", "ftp://127.0.0.1"):
        with pytest.raises(AccountNotUsable):
            check_account(contract, url, credentials, loopback_allowed=False)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "[]",
        '{"name": ""}',
        '{"name": "a b"}',
        '{"name": "a", "language": "english please"}',
        '{"name": "a", "components": {}}',
        '{"name": "a", "variables": {"1": 2}}',
        '{"name": "a", "more": 1}',
    ],
)
def test_what_is_no_template_is_refused(body: str) -> None:
    with pytest.raises(MessageNotUsable) as refused:
        check_message(contract_of("meta_cloud"), replace(TEXT, kind=TEMPLATE, body=body))
    assert refused.value.code == "template_invalid"


def test_the_page_about_platforms_is_up_to_date() -> None:
    written = Path(__file__).parents[2] / "docs" / "platforms.md"
    assert written.read_text(encoding="utf-8") == page(contracts()), "run python -m actors.platforms"


def test_hosts_match_their_pattern_and_nothing_else() -> None:
    assert host_is_allowed("a.example.com", ("*.example.com",))
    assert host_is_allowed("anything.at.all", ("*",))
    for host in ("example.com", ".example.com", "a.b.example.com", "aexample.com", "a.example.comx", ""):
        assert not host_is_allowed(host, ("*.example.com",))


# --- messages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contract", [WABLAS, WHACENTER], ids=["wablas", "whacenter"])
@pytest.mark.parametrize(
    ("message", "code"),
    [
        (replace(TEXT, to="6281,6282"), "recipient_invalid"),
        (replace(TEXT, to="+6281234567890"), "recipient_invalid"),
        (replace(TEXT, to="081234567890"), "recipient_invalid"),
        (replace(TEXT, to="62812345678901234"), "recipient_invalid"),
        (replace(TEXT, to="٦٢٨١٢٣٤٥٦٧"), "recipient_invalid"),
        (replace(TEXT, to="6281234567890\n"), "recipient_invalid"),
        (replace(TEXT, to=""), "recipient_invalid"),
        (replace(TEXT, body="  \n"), "text_empty"),
        (replace(TEXT, body="a\x00b"), "text_invalid"),
        (replace(TEXT, body="a\ud800b"), "text_invalid"),
        (replace(TEXT, media_url="https://example.com/a.jpg"), "media_not_wanted"),
        (replace(TEXT, kind="sticker"), "kind_not_carried"),
        (replace(TEXT, reference="a b"), "reference_invalid"),
        (replace(TEXT, reference=""), "reference_invalid"),
        (replace(IMAGE, media_url=""), "media_url_invalid"),
        (replace(IMAGE, media_url="pictures/a.jpg"), "media_url_invalid"),
        (replace(IMAGE, media_url="file:///etc/passwd"), "media_url_invalid"),
        (replace(IMAGE, media_url="https://exa mple.com/a.jpg"), "media_url_invalid"),
        (replace(IMAGE, media_url="https://[broken/a.jpg"), "media_url_invalid"),
        (replace(IMAGE, media_url="https://example.com/" + "a" * 3000), "media_url_invalid"),
    ],
)
def test_a_message_that_no_platform_can_carry_is_refused(
    contract: PlatformContract, message: PlatformMessage, code: str
) -> None:
    with pytest.raises(MessageNotUsable) as refused:
        check_message(contract, message)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (replace(TEXT, body="x" * 1025), "text_too_long"),
        (replace(IMAGE, body="x" * 1025), "text_too_long"),
        (replace(IMAGE, media_url="https://example.com/a.gif"), "media_type_not_carried"),
        (replace(IMAGE, kind="audio", media_url="https://example.com/a.wav"), "media_type_not_carried"),
        (replace(IMAGE, kind="document", media_url="https://example.com/a.zip"), "media_type_not_carried"),
        (
            replace(IMAGE, kind="audio", media_url="https://example.com/a.mp3", body="hi"),
            "caption_not_carried",
        ),
        (replace(TEXT, to="1,2", to_group=True), "recipient_invalid"),
    ],
)
def test_what_wablas_does_not_take_is_refused(message: PlatformMessage, code: str) -> None:
    with pytest.raises(MessageNotUsable) as refused:
        check_message(WABLAS, message)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "message",
    [
        TEXT,
        replace(TEXT, body="x" * 1024),
        replace(TEXT, body="🦎" * 1024),
        IMAGE,
        replace(IMAGE, body="caption"),
        replace(IMAGE, media_url="https://example.com/photo?id=7"),
        replace(IMAGE, media_url="http://example.com:8080/render.php"),
        replace(IMAGE, kind="document", media_url="https://example.com/A.PDF"),
        replace(IMAGE, kind="audio", media_url="https://example.com/a.ogg"),
        replace(IMAGE, kind="video", media_url="https://example.com/a.mp4"),
        replace(TEXT, to="120363012345678901@g.us", to_group=True),
    ],
)
def test_what_wablas_takes_is_accepted(message: PlatformMessage) -> None:
    check_message(WABLAS, message)


def test_a_group_is_refused_where_its_id_is_no_address() -> None:
    with pytest.raises(MessageNotUsable) as refused:
        check_message(WHACENTER, replace(TEXT, to="120363012345678901@g.us", to_group=True))
    assert refused.value.code == "group_not_carried"


@given(st.builds(PlatformMessage, *[st.text(max_size=40)] * 6, st.booleans()))
def test_any_message_is_either_accepted_or_refused_in_words(message: PlatformMessage) -> None:
    sentences: list[str] = []
    for contract in contracts().values():
        try:
            check_message(contract, message)
        except SalamanderError as refused:
            sentences.append(refused.sentence)
            continue
        credentials = {field.name: field.example or "invented" for field in contract.credential_fields}
        account = check_account(contract, "http://127.0.0.1:1", credentials, loopback_allowed=True)
        assert contract.build_request(message, account).body
    assert all(sentences)


@given(st.text(max_size=60) | st.none(), st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=3))
def test_any_account_is_either_accepted_or_refused_in_words(url: str | None, credentials: dict[str, str]) -> None:
    sentences: list[str] = []
    for contract in contracts().values():
        for loopback_allowed in (False, True):
            try:
                check_account(contract, url, credentials, loopback_allowed=loopback_allowed)
            except SalamanderError as refused:
                sentences.append(refused.sentence)
    assert all(sentences)
