"""Every platform through every fault, over real sockets: the right outcome, one record at most, no secret told."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from actors.platforms import contract_of, contracts
from actors.platforms.contract import PlatformContract, Request
from actors.platforms.limits import KINDS, TEMPLATE
from actors.platforms.outcomes import Accepted, AccountState, Outcome, Rejected, Retryable, Scope, Unknown
from actors.platforms.transport import PlatformTransport
from actors.platforms.webhooks import DeliveryReport, Stage
from simulator.platforms.faults import FAULTS
from simulator.platforms.records import Records
from simulator.platforms.registry import stand_ins
from simulator.platforms.server import DEFAULT_ACCOUNTS
from tests.support.platforms import TEXT, Listener, Running, a_message_of, send, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from simulator.platforms.stand_in import StandIn

#: What each fault must come to: the outcome, and how many sends the stand-in recorded.
EXPECTED: dict[str, tuple[type[Outcome], int]] = {
    "failure-body": (Rejected, 0),
    "bad-credential": (Rejected, 0),
    "disconnected": (Retryable, 0),
    "throttle": (Retryable, 0),
    "slow-after-recording": (Unknown, 1),
    "reset-before-recording": (Unknown, 0),
    "reset-after-recording": (Unknown, 1),
    "garbage-200": (Unknown, 1),
    "empty-200": (Unknown, 1),
    "html-502": (Unknown, 1),
    "drip": (Unknown, 1),
    "duplicate-callbacks": (Accepted, 1),
    "unordered-callbacks": (Accepted, 1),
    "clear": (Accepted, 1),
}
EVERY_PLATFORM = pytest.mark.parametrize("name", list(DEFAULT_ACCOUNTS))


def platforms_with(method: str) -> list[str]:
    """Return the platforms whose contract has a ``method`` of its own."""
    base = getattr(PlatformContract, method)
    return [name for name in DEFAULT_ACCOUNTS if getattr(type(contract_of(name)), method) is not base]


_SCOPES = {"bad-credential": Scope.CREDENTIAL, "failure-body": Scope.MESSAGE, "disconnected": Scope.DEVICE}


@pytest.fixture(scope="module")
def every_stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("platforms"))
    yield running
    running.stop()


@pytest.fixture
def running(every_stand_in: Running) -> Iterator[Running]:
    """The stand-ins, free of faults before and after."""
    yield every_stand_in
    for name in DEFAULT_ACCOUNTS:
        every_stand_in.stand_ins.set_fault(name, "clear")
        every_stand_in.stand_ins.set_callback(name, "")


@pytest.fixture
def transport() -> Iterator[PlatformTransport]:
    transport = PlatformTransport()
    yield transport
    transport.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def secrets_of(name: str) -> list[str]:
    fields = contract_of(name).credential_fields
    known = DEFAULT_ACCOUNTS[name]
    return [known[field.name] for field in fields if field.secret and not field.is_file and field.name in known]


def expected(name: str, fault: str, tmp_path: Path) -> tuple[type[Outcome], int]:
    """Return what a fault comes to; a platform without the reply that the fault asks for takes the message."""
    with contextlib.closing(Records(tmp_path)) as records:
        stand_in: StandIn = next(each for each in stand_ins() if each.name == name)(records)
        if fault == "disconnected" and stand_in.refusal(fault) is None:
            return Accepted, 1
    return EXPECTED[fault]


def test_every_platform_has_a_stand_in_and_every_fault_an_expectation() -> None:
    there = {each.name for each in stand_ins()}
    assert there == set(contracts()), "a new platform's test is its stand-in, a file in simulator/platforms/"
    assert set(FAULTS) == set(EXPECTED)
    assert all(line and "\n" not in line for line in FAULTS.values())


@pytest.mark.parametrize("fault", EXPECTED)
@EVERY_PLATFORM
def test_each_fault_comes_to_its_outcome_with_at_most_one_record(
    running: Running,
    transport: PlatformTransport,
    name: str,
    fault: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    kind, recorded = expected(name, fault, tmp_path)
    contract, reference = contract_of(name), f"m-{fault}"
    before = len(running.stand_ins.log(name))
    running.stand_ins.set_fault(name, fault)
    outcome = send(running, transport, name, replace(TEXT, reference=reference), seconds=0.7)
    assert type(outcome) is kind
    assert len(running.stand_ins.log(name)) == before + recorded
    if isinstance(outcome, Rejected | Retryable) and fault in _SCOPES:
        assert outcome.scope is _SCOPES[fault]
    if isinstance(outcome, Retryable) and fault == "throttle":
        assert outcome.scope is Scope.ACCOUNT
        assert 1 <= outcome.after_seconds <= 60
    if isinstance(outcome, Unknown):
        can_be_asked = contract.build_lookup(reference, running.account(name)) is not None
        assert outcome.lookup == (reference if can_be_asked else None)
    running.stand_ins.set_fault(name, "clear")
    assert isinstance(send(running, transport, name, replace(TEXT, reference=f"{reference}-2")), Accepted)
    assert len(running.stand_ins.log(name)) == before + recorded + 1
    told = [repr(outcome), repr(running.account(name)), caplog.text, *capfd.readouterr()]
    told += [repr(record.__dict__) for record in caplog.records]
    assert not [text for text in told for secret in secrets_of(name) if secret in text]


@EVERY_PLATFORM
def test_messages_of_every_kind_arrive_as_they_were_sent(
    running: Running, transport: PlatformTransport, name: str
) -> None:
    contract = contract_of(name)
    kinds = [kind for kind in (*KINDS, TEMPLATE) if kind in contract.limits.kinds]
    messages = [a_message_of(kind, contract, f"m-{kind}") for kind in kinds]
    before = len(running.stand_ins.log(name))
    outcomes = [send(running, transport, name, message) for message in messages]
    assert [type(outcome) for outcome in outcomes] == [Accepted] * len(messages)
    log = running.stand_ins.log(name)[before:]
    sent = [(each.to, each.body if each.kind != TEMPLATE else "HXinvented", each.media_url) for each in messages]
    assert [(each["to"], each["text"], each["media_url"]) for each in log] == sent
    ids = [outcome.provider_id for outcome in outcomes if isinstance(outcome, Accepted)]
    assert ids == [each["id"] for each in log] or not any(ids)
    assert not [secret for secret in secrets_of(name) if secret in repr(log)]


def _with_an_unknown_field(request: Request) -> Request:
    body = request.body or b""
    longer = body[:-1] + b',"unknown":1}' if body.startswith(b"{") else body + b"&unknown=1"
    # A list of messages has its fields one level down.
    return replace(request, body=longer.replace(b'}],"unknown":1}', b',"unknown":1}]}'))


def _with_a_broken_body(request: Request) -> Request:
    body = request.body or b""
    return replace(request, body=body[:-1] if body.startswith(b"{") else body + b"&x=%zz")


def _of_another_type(request: Request) -> Request:
    return replace(request, headers={**request.headers, "Content-Type": "text/plain"})


def _by_get(request: Request) -> Request:
    return replace(request, method="GET")


def _to_a_local_number(request: Request) -> Request:
    return replace(request, body=(request.body or b"").replace(b"6281234567890", b"081234567890x"))


@pytest.mark.parametrize(
    "change", [_with_an_unknown_field, _with_a_broken_body, _of_another_type, _by_get, _to_a_local_number]
)
@EVERY_PLATFORM
def test_a_stand_in_takes_the_documented_encoding_and_nothing_else(
    running: Running, transport: PlatformTransport, name: str, change: Callable[[Request], Request]
) -> None:
    contract = contract_of(name)
    request = contract.build_request(TEXT, running.account(name))
    before = len(running.stand_ins.log(name))
    assert not isinstance(transport.send(change(request), contract, 5), Accepted)
    assert len(running.stand_ins.log(name)) == before
    assert isinstance(transport.send(request, contract, 5), Accepted)


@EVERY_PLATFORM
def test_a_wrong_credential_is_refused_as_one(running: Running, transport: PlatformTransport, name: str) -> None:
    known = dict(DEFAULT_ACCOUNTS[name])
    secret = next(field.name for field in contract_of(name).credential_fields if field.secret and not field.is_file)
    account = running.account(name, **{**known, secret: "another-invented-value"})
    before = len(running.stand_ins.log(name))
    outcome = send(running, transport, name, TEXT, account=account)
    assert isinstance(outcome, Rejected)
    assert outcome.scope is Scope.CREDENTIAL
    assert len(running.stand_ins.log(name)) == before


@EVERY_PLATFORM
def test_the_check_tells_how_the_account_is_and_sends_nothing(
    running: Running, transport: PlatformTransport, name: str
) -> None:
    contract = contract_of(name)
    request = contract.build_check(running.account(name))
    assert request is not None
    before = len(running.stand_ins.log(name))
    assert transport.check(request, contract, 5).state is AccountState.CONNECTED
    known = dict(DEFAULT_ACCOUNTS[name])
    secret = next(field.name for field in contract.credential_fields if field.secret and not field.is_file)
    wrong = contract.build_check(running.account(name, **{**known, secret: "another-invented-value"}))
    assert wrong is not None
    # Whacenter has one sentence for an unknown and for an unlinked device.
    refused = AccountState.DISCONNECTED if name == "whacenter" else AccountState.REFUSED
    assert transport.check(wrong, contract, 5).state is refused
    assert len(running.stand_ins.log(name)) == before


@pytest.mark.parametrize("fault", [fault for fault, (kind, _) in EXPECTED.items() if kind is Unknown])
@pytest.mark.parametrize("name", platforms_with("build_lookup"))
def test_a_doubt_is_settled_by_its_reference_where_the_provider_can_be_asked(
    running: Running, transport: PlatformTransport, name: str, fault: str
) -> None:
    contract, reference = contract_of(name), f"doubt-{fault}"
    lookup = contract.build_lookup(reference, running.account(name))
    assert lookup is not None
    running.stand_ins.set_fault(name, fault)
    send(running, transport, name, replace(TEXT, reference=f"other-{fault}"), seconds=0.4)
    assert isinstance(send(running, transport, name, replace(TEXT, reference=reference), seconds=0.4), Unknown)
    running.stand_ins.set_fault(name, "clear")
    found = transport.look_up(lookup, contract, reference, 5)
    recorded = [each["id"] for each in running.stand_ins.log(name) if each["reference"] == reference]
    assert (found.provider_id if isinstance(found, Accepted) else found) == (recorded[0] if recorded else None)


@pytest.mark.parametrize("name", platforms_with("build_status"))
def test_an_accepted_message_is_asked_about_by_its_id_where_the_provider_can_be_asked(
    running: Running, transport: PlatformTransport, name: str
) -> None:
    contract = contract_of(name)
    outcome = send(running, transport, name, TEXT)
    provider_id = outcome.provider_id if isinstance(outcome, Accepted) else None
    request = contract.build_status(provider_id or "x", TEXT.to, running.account(name))
    assert request is not None
    report = transport.ask_status(request, contract, provider_id or "", 5)
    assert report is not None
    assert report.provider_id == provider_id
    assert report.stage in {Stage.SENT, Stage.DELIVERED}


@pytest.mark.parametrize("fault", ["clear", "duplicate-callbacks", "unordered-callbacks", "reset-after-recording"])
@pytest.mark.parametrize("name", platforms_with("parse_webhook"))
def test_reports_are_verified_and_understood_in_any_order_and_number(
    running: Running, transport: PlatformTransport, listener: Listener, name: str, fault: str
) -> None:
    contract, account = contract_of(name), running.account(name)
    running.stand_ins.set_callback(name, listener.url)
    running.stand_ins.set_fault(name, fault)
    send(running, transport, name, replace(TEXT, reference="m-hook"), seconds=2)
    recorded = running.stand_ins.log(name)[-1]["id"]
    count = 6 if fault == "duplicate-callbacks" else 3
    wait_until(lambda: len(listener.received) == count)
    reports: list[DeliveryReport] = []
    for headers, body in listener.received:
        assert contract.verify_webhook(headers, body, listener.url, account)
        if contract.webhook_signature:
            assert not contract.verify_webhook(headers, body + b" ", listener.url, account)
            assert not contract.verify_webhook({}, body, listener.url, account)
        reports += contract.parse_webhook(headers, body, account)
    assert {report.stage for report in reports} == {Stage.SENT, Stage.DELIVERED, Stage.READ}
    aliases = {report.alias for report in reports if report.provider_id == recorded}
    assert all(report.provider_id == recorded or report.alias in aliases for report in reports)
    if contract.reports_reference:
        assert {report.reference for report in reports} == {"m-hook"}
    assert not [secret for secret in secrets_of(name) if secret in repr(reports)]


def test_twilio_reports_to_the_address_that_came_with_the_message(
    running: Running, transport: PlatformTransport, listener: Listener
) -> None:
    account = replace(running.account("twilio"), callback_url=listener.url)
    assert isinstance(send(running, transport, "twilio", TEXT, account=account), Accepted)
    wait_until(lambda: len(listener.received) == 3)
    headers, body = listener.received[0]
    assert contract_of("twilio").verify_webhook(headers, body, account.callback_url_for(TEXT.reference), account)
    assert not contract_of("twilio").verify_webhook(headers, body, account.callback_url_for("another"), account)
