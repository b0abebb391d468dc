"""The loopback WhatsApp's protocol, without a client: stanzas, sessions, identities, codes, faults, figures."""

from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import Refused
from simulator.whatsapp import adv, binary_xml, link_code
from simulator.whatsapp.authority import prepare_authority
from simulator.whatsapp.content import pad, read_message, text_message, unpad
from simulator.whatsapp.curve import KEY_TYPE, KeyPair, verify, verify_pre_key
from simulator.whatsapp.faults import FaultBoard
from simulator.whatsapp.nodes import LID_SERVER, PHONE_SERVER, Jid, MalformedStanza, Node
from simulator.whatsapp.ratchet import (
    Bundle,
    Session,
    UndecryptableMessage,
    begin_session,
    encrypt,
    read_pre_key_message,
)
from simulator.whatsapp.records import lid_of, number_of
from simulator.whatsapp.sessions import SessionRecord
from simulator.whatsapp.statistics import Statistics
from simulator.whatsapp.store import Store
from simulator.whatsapp.waiting import read_qr

_WORDS = st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text)
_JIDS = st.builds(
    Jid,
    st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True),
    st.sampled_from([PHONE_SERVER, LID_SERVER]),
    st.integers(0, 99),
)
_NODES = st.recursive(
    st.builds(Node, _WORDS, st.dictionaries(_WORDS, _WORDS | _JIDS, max_size=3), st.none() | st.binary(max_size=300)),
    lambda inner: st.builds(Node, _WORDS, st.just({}), st.lists(inner, min_size=1, max_size=4)),
    max_leaves=12,
)


@given(_NODES)
@settings(max_examples=60, deadline=None)
def test_a_stanza_survives_its_binary_form(node: Node) -> None:
    decoded = binary_xml.decode(binary_xml.encode(node))
    assert repr(decoded) == repr(node)


@pytest.mark.parametrize("data", [b"\0", b"\0\xf8\x02", b"\0\xf8\x01\xec", b"\x02abc", b"\0\xf8\x01\x05\x05", b"\0\0"])
def test_a_broken_stanza_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedStanza):
        binary_xml.decode(data)


def test_packed_words_are_read() -> None:
    assert binary_xml.decode(b"\0\xf8\x03\x05\x05\xff\x82\x12\x3f").text("type") in ("", "123")
    assert binary_xml.decode(b"\0\xf8\x02\x05\xfb\x02\xab\xcd").content == "ABCD"


def _begin() -> tuple[Session, SessionRecord, KeyPair, KeyPair, KeyPair]:
    ours, theirs, signed, one_time = KeyPair(), KeyPair(), KeyPair(), KeyPair()
    signature = theirs.sign(KEY_TYPE + signed.public)
    bundle = Bundle(7, theirs.public, 1, signed.public, signature, 5, one_time.public)
    return begin_session(ours, 7, bundle), SessionRecord(), theirs, signed, one_time


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers())
@settings(max_examples=25, deadline=None)
def test_a_session_survives_any_order_of_messages(directions: list[bool], seed: int) -> None:
    alice, bob, identity, signed, one_time = _begin()
    _, first = encrypt(alice, b"hello")
    begun = read_pre_key_message(first)
    assert bob.answer(identity, signed, one_time, begun) == b"hello"
    assert bob.knows(begun)
    waiting: list[tuple[bool, bytes, bytes]] = []
    order = random.Random(seed)  # noqa: S311  (an order of messages is no secret)
    record = SessionRecord([alice])
    for number, to_bob in enumerate(directions):
        text = f"message {number}".encode()
        sender = record if to_bob else bob
        kind, ciphertext = encrypt(sender.sessions[0], text)
        if kind == "pkmsg":
            ciphertext = read_pre_key_message(ciphertext).message
        waiting.append((to_bob, ciphertext, text))
        if order.random() < 0.5:
            for_bob, arrived, said = waiting.pop(order.randrange(len(waiting)))
            assert (bob if for_bob else record).decrypt(arrived) == said
        bob, record = SessionRecord.load(bob.dump()), SessionRecord.load(record.dump())
    for to_bob, ciphertext, text in waiting:
        assert (bob if to_bob else record).decrypt(ciphertext) == text


def test_a_message_is_decrypted_once_and_a_changed_one_never() -> None:
    alice, bob, identity, signed, one_time = _begin()
    first = read_pre_key_message(encrypt(alice, b"one")[1])
    bob.answer(identity, signed, one_time, first)
    with pytest.raises(UndecryptableMessage, match="before"):
        bob.decrypt(first.message)
    second = read_pre_key_message(encrypt(alice, b"two")[1]).message
    kept = bob.dump()
    for position in range(len(second)):
        changed = second[:position] + bytes([second[position] ^ 4]) + second[position + 1 :]
        with pytest.raises(UndecryptableMessage):
            bob.decrypt(changed)
    assert bob.dump() == kept
    assert bob.decrypt(second) == b"two"


def test_a_session_needs_a_signed_bundle_and_the_right_keys() -> None:
    alice, bob, identity, signed, one_time = _begin()
    first = read_pre_key_message(encrypt(alice, b"one")[1])
    for identity_used, signed_used, one_time_used in (
        (KeyPair(), signed, one_time),
        (identity, KeyPair(), one_time),
        (identity, signed, None),
    ):
        with pytest.raises(UndecryptableMessage):
            bob.answer(identity_used, signed_used, one_time_used, first)
    with pytest.raises(UndecryptableMessage, match="not signed"):
        begin_session(KeyPair(), 7, Bundle(7, KeyPair().public, 1, KeyPair().public, bytes(64)))


def test_signatures_verify_only_as_they_were_made() -> None:
    for _ in range(8):  # half of all keys have a negative Edwards point
        pair = KeyPair()
        signature = pair.sign(b"words")
        assert verify(pair.public, b"words", signature)
        assert not verify(pair.public, b"other words", signature)
        assert not verify(KeyPair().public, b"words", signature)
    assert not verify_pre_key(bytes(32), bytes(32), bytes(64))


def test_a_device_identity_needs_both_signatures() -> None:
    account, companion = KeyPair(), KeyPair()
    issued = adv.sign_for_companion(account, companion.public, 3)
    assert adv.key_index_of(issued) == 3
    with pytest.raises(adv.WrongDeviceIdentity, match="device did not sign"):
        adv.verify_device_identity(issued, account.public, companion.public)
    with pytest.raises(adv.WrongDeviceIdentity, match="account did not sign"):
        adv.verify_device_identity(issued, account.public, KeyPair().public)
    with pytest.raises(adv.WrongDeviceIdentity, match="another account"):
        adv.verify_device_identity(issued, KeyPair().public, companion.public)
    with pytest.raises(adv.WrongDeviceIdentity, match="another identity"):
        adv.verify_answer(issued, adv.sign_for_companion(account, companion.public, 3), companion.public)


def test_a_typed_code_is_read_as_people_write_it() -> None:
    with pytest.raises(link_code.WrongCode):
        link_code.normalize_code("0000-0000")
    assert link_code.normalize_code("abcd 123-4") == "ABCD1234"


def test_padding_is_one_to_fifteen_bytes_that_say_how_many() -> None:
    for _ in range(40):
        assert unpad(pad(b"text")) == b"text"
    for wrong in (b"", b"\0", b"ab\2", b"a" + b"\x10" * 16):
        with pytest.raises(UndecryptableMessage):
            unpad(wrong)
    assert read_message(pad(text_message("hello"))).text == "hello"


def test_numbers_and_lids_belong_together() -> None:
    assert number_of(Jid(lid_of("60123456789"), LID_SERVER, 2)) == "60123456789"
    assert number_of(Jid("60123456789", PHONE_SERVER)) == "60123456789"
    assert number_of(Jid("1203630", "g.us")) is None
    assert number_of(Jid("7", LID_SERVER)) is None


def test_a_qr_text_is_read_with_and_without_its_address() -> None:
    keys = [base64.b64encode(bytes([number]) * 32).decode() for number in range(3)]
    raw = ",".join(["2@ref", *keys, "1"])
    for text in (raw, f"https://wa.me/settings/linked_devices#{raw}", f" {raw}\n"):
        assert read_qr(text).secret == bytes([2]) * 32
    with pytest.raises(Refused):
        read_qr("2@ref,AAAA")


def test_faults_have_targets_and_end() -> None:
    clock = [0.0]
    board = FaultBoard(lambda: clock[0])
    one, other = ("60120000001", 1), ("60120000002", 1)
    board.set("slow", one, 5)
    board.set("lost-ack", ("60120000002", 0))
    board.set("reset", one)
    assert board.active("slow", one)
    assert not board.active("slow", other)
    assert not board.active("slow")
    assert board.active("lost-ack", other)
    assert not board.active("reset", one)
    clock[0] = 5.0
    assert not board.active("slow", one)
    board.set("half-open")
    assert board.active("half-open", one)
    assert board.active("half-open")
    board.set("clear", ("60120000002", 0))
    assert not board.active("lost-ack", other)
    assert [kind for kind, _, _ in board.current()] == ["half-open"]
    board.set("clear")
    assert board.current() == []


def test_figures_survive_and_are_taken_back_with_their_transaction() -> None:
    figures = Statistics({"messages": 3, "most_live a": 2})
    figures.begin()
    figures.count("messages")
    figures.undo()
    figures.live("a", 1)
    figures.live("b", 1)
    figures.live("b", -1)
    report = figures.report()
    assert (report["messages"], report["most_live"]) == (3, {"a": 2, "b": 1})
    assert report["live"] == {"a": 1}
    assert figures.take_changed() == {"messages": 3, "most_live b": 1}
    assert figures.take_changed() == {}


def test_an_authority_is_made_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("authority")
    first, second = prepare_authority(directory), prepare_authority(directory)
    assert (first.noise_root, first.noise_chain) == (second.noise_root, second.noise_chain)
    assert first.ca_file.read_bytes() == second.ca_file.read_bytes()
    assert (directory / "noise.json").stat().st_mode & 0o777 == 0o600


def test_a_transaction_that_fails_leaves_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(tmp_path_factory.mktemp("store") / "whatsapp.db")

    def fail() -> None:
        with store.transaction():
            assert store.messages.accept(("60120000001", 1), "A")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with store.transaction():
        assert store.messages.accept(("60120000001", 1), "A")
        assert not store.messages.accept(("60120000001", 1), "A")
    store.close()
