"""The gateway that an account describes: what a description may say, and what is made of it."""

from __future__ import annotations

import inspect
import json
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.platforms import gateway_description
from actors.platforms.checks import AccountNotUsable, check_account, check_message
from actors.platforms.contract import Account, PlatformMessage, Request
from actors.platforms.gateway_description import DescriptionInvalid, description_of
from actors.platforms.http import CONTRACT, EXAMPLE
from actors.platforms.outcomes import Accepted, Outcome, Rejected, Retryable, Scope, Unknown
from tests.support.requests import form_of, json_of

TEXT = PlatformMessage(reference="m-1", to="6281234567890", kind="text", body='a "quoted" {token} text')
SMALL = """
hosts = ["gateway.example.com"]
[send]
path = "/{sender}/send"
form = { key = "{token}", number = "{to}", text = "{text}" }
[reply]
accepted = { path = "id" }
id = "id"
reason = "msg"
"""


def account(description: str = EXAMPLE, **more: str) -> Account:
    credentials = {"description": description, "token": "invented-token", **more}
    return check_account(CONTRACT, "https://gateway.example.com", credentials, loopback_allowed=False)


def reply(request: Request, status: int, value: object) -> Outcome:
    assert request.read_by is not None
    return request.read_by.parse_reply(status, {}, json.dumps(value).encode())


def test_the_example_in_the_documentation_is_a_description() -> None:
    _, _, example = inspect.cleandoc(gateway_description.__doc__ or "").partition("same as JSON):\n\n")
    documented, _, _ = example.partition("\n\nPlaceholders")
    assert description_of(inspect.cleandoc(documented)).media is not None


def test_values_take_the_place_of_placeholders_and_are_never_read_as_any() -> None:
    request = CONTRACT.build_request(TEXT, account())
    assert request.url == "https://gateway.example.com/v1/send"
    assert request.headers["Authorization"] == "Bearer invented-token"
    assert json_of(request) == {"to": TEXT.to, "text": TEXT.body, "ref": "m-1"}
    media = replace(TEXT, kind="image", media_url="https://example.com/a.jpg")
    assert json_of(CONTRACT.build_request(media, account()))["url"] == media.media_url


def test_a_form_a_path_with_a_value_and_no_media_section() -> None:
    known = account(SMALL, sender="../up?x")
    request = CONTRACT.build_request(replace(TEXT, kind="image", media_url="https://example.com/a.jpg"), known)
    assert request.url == "https://gateway.example.com/..%2Fup%3Fx/send"
    assert form_of(request) == {
        "key": "invented-token",
        "number": TEXT.to,
        "text": f"{TEXT.body}\nhttps://example.com/a.jpg",
    }
    assert reply(request, 200, {"id": 7, "msg": "queued"}) == Accepted("7", "queued")
    assert isinstance(reply(request, 200, {"ok": True}), Unknown)


def test_each_account_s_replies_are_read_by_its_own_description() -> None:
    other = EXAMPLE.replace('path = "ok", equals = true', 'path = "result", equals = "queued"')
    request = CONTRACT.build_request(TEXT, account(other))
    assert isinstance(reply(request, 200, {"result": "queued"}), Accepted)
    assert isinstance(reply(request, 200, {"ok": True}), Unknown)


@pytest.mark.parametrize(
    ("status", "body", "kind", "scope"),
    [
        (200, {"ok": False, "error": "phone is offline"}, Retryable, Scope.DEVICE),
        (500, {"ok": False, "error": "token unknown"}, Rejected, Scope.CREDENTIAL),
        (400, {"error": "token unknown"}, Rejected, Scope.CREDENTIAL),
        (200, {"ok": False, "error": "?"}, Rejected, Scope.MESSAGE),
        (429, {}, Retryable, Scope.ACCOUNT),
    ],
)
def test_failures_are_what_the_description_says(status: int, body: object, kind: type, scope: Scope) -> None:
    outcome = reply(CONTRACT.build_request(TEXT, account()), status, body)
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Rejected | Retryable)
    assert outcome.scope is scope


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, {"error": "offline"}), (500, {"error": "offline"}), (502, {"ok": False}), (200, {"ok": 1})],
)
def test_words_without_a_verdict_prove_nothing(status: int, body: object) -> None:
    assert isinstance(reply(CONTRACT.build_request(TEXT, account()), status, body), Unknown)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[send]", "[sent]"),
        ('hosts = ["gateway.example.com"]', 'hosts = ["*"]'),
        ('hosts = ["gateway.example.com"]', "hosts = []"),
        ('hosts = ["gateway.example.com"]', ""),
        ('path = "/v1/send"', 'path = "https://evil.example/send"'),
        ('path = "/v1/send"', 'path = "//evil.example/send"'),
        ('path = "/v1/send"', 'path = "/v1/../send"'),
        ('path = "/v1/send"', 'path = "/v1/send?token={token}"'),
        ('path = "/v1/send"', 'path = "@evil.example/"'),
        ('to = "{to}", text', 'to = "{number}", text'),
        ('to = "{to}", text = "{text}"', 'text = "{text}"'),
        ('headers = { Authorization = "Bearer {token}" }', 'headers = { Authorization = "Bearer {text}" }'),
        ('headers = { Authorization = "Bearer {token}" }', 'headers = { Host = "evil.example" }'),
        ('headers = { Authorization = "Bearer {token}" }', 'headers = { X = "a\\r\\nb" }'),
        ('accepted = { path = "ok", equals = true }', ""),
        ('accepted = { path = "ok", equals = true }', "accepted = {}"),
        ('refused = { path = "ok", equals = false }', 'refused = { path = "ok" }'),
        ('outcome = "retry"', 'outcome = "accepted"'),
        ('scope = "device"', 'scope = "universe"'),
        ("seconds = 300", "seconds = -1"),
        ('read = "read"', 'read = "eaten"'),
        ("[send]", "not toml"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused_when_the_device_is_added(old: str, new: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(DescriptionInvalid):
        description_of(EXAMPLE.replace(old, new))
    with pytest.raises(AccountNotUsable) as refused:
        account(EXAMPLE.replace(old, new))
    assert "evil" not in refused.value.sentence


@pytest.mark.parametrize(
    "url", ["https://evil.example", "https://gateway.example.com.evil.example", "https://10.0.0.1"]
)
def test_requests_go_to_the_hosts_of_the_description_alone(url: str) -> None:
    with pytest.raises(AccountNotUsable):
        check_account(CONTRACT, url, {"description": EXAMPLE, "token": "t"}, loopback_allowed=True)


_NAMES = [
    "hosts",
    "send",
    "reply",
    "media",
    "check",
    "webhook",
    "path",
    "headers",
    "form",
    "json",
    "accepted",
    "id",
    "reason",
    "refused",
    "failures",
    "contains",
    "outcome",
    "scope",
    "seconds",
    "equals",
    "stages",
    "status",
    "connected",
    "disconnected",
]
_TABLES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["/x", "{to}", "{text}", "retry", "device", "{", "a.b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(st.sampled_from(["send", "reply", "media", "check", "webhook", "hosts"]), _TABLES))
def test_any_description_is_either_taken_or_refused_in_words(described: dict[str, object]) -> None:
    sentences = ["-"]
    for text in (json.dumps(described), json.dumps(tomllib.loads(EXAMPLE) | described)):
        try:
            description_of(text)
        except DescriptionInvalid as refused:
            sentences.append(str(refused))
    assert all(sentences)


@pytest.mark.parametrize(
    "text", ["[" * 9_000, '{"a":' * 600 + "1" + "}" * 600, "a = " + "[" * 400 + "]" * 400, "\x00"], ids=range(4)
)
def test_a_hostile_description_is_refused(text: str) -> None:
    with pytest.raises(DescriptionInvalid):
        description_of(text)


def test_the_same_may_be_written_as_json() -> None:
    assert description_of(json.dumps(tomllib.loads(EXAMPLE))) == description_of(EXAMPLE)


def test_a_long_text_is_no_matter_of_the_description() -> None:
    check_message(CONTRACT, replace(TEXT, body="x" * 60_000))
