"""What the loopback WhatsApp refuses: lies that the real client never tells."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyaileys.proto import WAProto_pb2 as schema

from simulator.client import SimulatorClient, SimulatorNotRunning, SimulatorRefused
from simulator.whatsapp.content import pad, text_message
from simulator.whatsapp.curve import KEY_TYPE, KeyPair
from simulator.whatsapp.nodes import SERVER, Jid, Node
from simulator.whatsapp.ratchet import Bundle, begin_session, encrypt
from tests.integration.raw_whatsapp_client import HungUp, RawClient, RawKeys

_ROOT = Path(__file__).parents[2]
_NUMBER, _OTHER = "60120000001", "60120000002"


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[SimulatorClient]:
    directory = tmp_path / "simulator"
    process = subprocess.Popen([sys.executable, "-m", "simulator", str(directory)], cwd=_ROOT)
    client = SimulatorClient(directory)
    deadline = time.monotonic() + 20
    while True:
        try:
            client.info()
            break
        except SimulatorNotRunning:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield client
    process.terminate()
    assert process.wait(10) == 0


Connect = Callable[..., RawClient]


@pytest.fixture
def connect(sim: SimulatorClient) -> Iterator[Connect]:
    opened: list[RawClient] = []

    def begin(keys: RawKeys, payload: bytes | None = None, **lies: Any) -> RawClient:
        opened.append(RawClient(sim.info(), keys, payload or keys.payload(), **lies))
        return opened[-1]

    yield begin
    for client in opened:
        client.close()


def login_payload(jid: str) -> bytes:
    address = Jid.parse(jid)
    payload: bytes = schema.ClientPayload(
        username=int(address.user), device=address.device, passive=True
    ).SerializeToString()
    return payload


def pair(sim: SimulatorClient, client: RawClient, keys: RawKeys, signer: KeyPair | None = None) -> tuple[str, bytes]:
    """Let a phone scan the client's QR code; return the JID and the complete device identity."""
    ref = client.receive("iq").need("pair-device", "ref").data().decode()
    with ThreadPoolExecutor(1) as pool:
        scanned = pool.submit(sim.scan, _NUMBER, keys.qr(ref))
        offer = client.receive("iq")
        identity = keys.device_identity(offer.need("pair-success", "device-identity").data(), signer=signer)
        complete: bytes = identity.SerializeToString()
        identity.ClearField("accountSignatureKey")
        index = schema.ADVDeviceIdentity.FromString(identity.details).keyIndex
        content = Node("device-identity", {"key-index": index}, identity.SerializeToString())
        identifier = offer.text("id")
        client.send(
            Node("iq", {"to": SERVER, "type": "result", "id": identifier}, [Node("pair-device-sign", {}, [content])])
        )
        return scanned.result(), complete


def upload(keys: RawKeys, signature: bytes) -> list[Node]:
    signed = [
        Node("id", {}, b"\0\0\1"),
        Node("value", {}, keys.signed_pre_key.public),
        Node("signature", {}, signature),
    ]
    one_time = Node("key", {}, [Node("id", {}, b"\0\0\7"), Node("value", {}, KeyPair().public)])
    return [
        Node("registration", {}, keys.registration.to_bytes(4, "big")),
        Node("type", {}, KEY_TYPE),
        Node("identity", {}, keys.identity.public),
        Node("list", {}, [one_time]),
        Node("skey", {}, signed),
    ]


def test_a_handshake_that_does_not_verify_is_cut_off(sim: SimulatorClient, connect: Connect) -> None:
    client = connect(RawKeys(), break_handshake=True)
    with pytest.raises(HungUp):
        client.receive("iq")
    with pytest.raises(HungUp):
        connect(RawKeys(), header=b"WA\x06\x02")
    assert sim.stats()["protocol_errors"] == 2


def test_a_registration_whose_keys_do_not_verify_is_refused(sim: SimulatorClient, connect: Connect) -> None:
    keys = RawKeys()
    client = connect(keys, keys.payload(eSkeySig=KeyPair().sign(KEY_TYPE + keys.signed_pre_key.public)))
    assert client.receive("failure").text("reason") == "400"
    assert sim.waiting() == []


def test_a_companion_that_does_not_sign_with_its_own_identity_is_not_linked(
    sim: SimulatorClient, connect: Connect
) -> None:
    keys = RawKeys()
    client = connect(keys)
    with pytest.raises(SimulatorRefused, match="did not sign its identity"):
        pair(sim, client, keys, signer=KeyPair())
    assert client.receive("stream:error").text("code") == "400"
    assert sim.phones() == [{"number": _NUMBER, "on": True, "companions": []}]


def test_a_login_needs_the_noise_key_of_its_companion(sim: SimulatorClient, connect: Connect) -> None:
    keys = RawKeys()
    client = connect(keys)
    jid, _ = pair(sim, client, keys)
    assert client.receive("stream:error").text("code") == "515"
    assert connect(RawKeys(), login_payload(jid)).receive("failure").text("reason") == "401"
    assert sim.stats()["unknown_logins"] == 1
    linked = connect(keys, login_payload(jid))
    assert linked.receive("success").jid("lid").device == 1
    assert sim.unlink(jid) == 1
    ended = linked.receive("stream:error")
    assert (ended.text("code"), ended.need("conflict").text("type")) == ("401", "device_removed")
    assert connect(keys, login_payload(jid)).receive("failure").text("reason") == "401"
    assert sim.stats()["logged_out_attempts"] == 1


def test_queries_are_answered_in_the_right_shape(sim: SimulatorClient, connect: Connect) -> None:
    keys = RawKeys()
    client = connect(keys)
    jid, _ = pair(sim, client, keys)
    client = connect(keys, login_payload(jid))
    client.receive("success")
    assert client.query("encrypt", [Node("count")]).need("count").text("value") == "50"
    assert client.query("encrypt", upload(keys, keys.signature), "set").text("type") == "result"
    assert client.query("encrypt", [Node("count")]).need("count").text("value") == "1"
    digest = client.query("encrypt", [Node("digest")]).need("digest")
    assert digest.need("identity").data() == keys.identity.public
    assert [node.data() for node in digest.need("list").children] == [b"\0\0\7"]
    assert len(digest.need("hash").data()) == 20
    assert client.query("abt", [Node("props", {"protocol": 1})]).need("props").text("hash")
    assert client.query("blocklist", []).need("list").text("dhash")
    assert len(client.query("privacy", [Node("privacy")]).need("privacy").children) == 7
    token = Node("token", {"jid": Jid("1", "lid"), "t": 1, "type": "trusted_contact"})
    assert client.query("privacy", [Node("tokens", {}, [token])], "set").child("tokens") is not None
    assert client.query("w:p", []).text("type") == "result"
    assert client.query("something:new", []).text("type") == "result"
    assert sim.stats()["unknown_query something:new "] == 1
    client.send(Node("presence", {"type": "available"}))
    refused = client.receive("ack")
    assert (refused.text("class"), refused.text("error")) == ("presence", "400")


def test_keys_of_another_identity_end_the_stream(sim: SimulatorClient, connect: Connect) -> None:
    keys = RawKeys()
    jid, _ = pair(sim, connect(keys), keys)
    wrong = [upload(keys, KeyPair().sign(KEY_TYPE + keys.signed_pre_key.public)), upload(RawKeys(), keys.signature)]
    for content in wrong:
        client = connect(keys, login_payload(jid))
        client.receive("success")
        client.send(Node("iq", {"id": "1", "xmlns": "encrypt", "type": "set", "to": SERVER}, content))
        assert client.receive("stream:error").text("code") == "400"
    assert sim.stats().get("pre_key_uploads", 0) == 0


def test_messages_that_do_not_authenticate_are_not_shown(sim: SimulatorClient, connect: Connect) -> None:
    keys = RawKeys()
    jid, identity = pair(sim, connect(keys), keys)
    sim.add_phone(_OTHER)
    client = connect(keys, login_payload(jid))
    client.receive("success")
    peer = Jid.parse(sim.add_phone(_OTHER)["lid"])

    def bundle() -> Bundle:
        asked = Node("key", {}, [Node("user", {"jid": peer})])
        user = client.query("encrypt", [asked]).need("list", "user")
        signed, one_time = user.need("skey"), user.need("key")
        return Bundle(
            registration=int.from_bytes(user.need("registration").data(4), "big"),
            identity=user.need("identity").data(32),
            signed_pre_key_id=int.from_bytes(signed.need("id").data(), "big"),
            signed_pre_key=signed.need("value").data(32),
            signature=signed.need("signature").data(64),
            pre_key_id=int.from_bytes(one_time.need("id").data(), "big"),
            pre_key=one_time.need("value").data(32),
        )

    def send(ciphertext: bytes, device_identity: bytes, kind: str = "pkmsg") -> str:
        identifier = os.urandom(8).hex().upper()
        part = Node("to", {"jid": peer}, [Node("enc", {"v": 2, "type": kind}, ciphertext)])
        content = [Node("participants", {}, [part]), Node("device-identity", {}, device_identity)]
        client.send(Node("message", {"id": identifier, "to": peer, "type": "text"}, content))
        assert client.receive("ack").text("id") == identifier
        return identifier

    message = pad(text_message("hello"))
    session = begin_session(keys.identity, keys.registration, bundle())
    _, good = encrypt(session, message)
    forged = schema.ADVSignedDeviceIdentity.FromString(identity)
    forged.deviceSignature = KeyPair().sign(b"anything")
    stranger = begin_session(KeyPair(), keys.registration, bundle())
    _, by_stranger = encrypt(stranger, message)
    _, unpadded = encrypt(begin_session(keys.identity, keys.registration, bundle()), text_message("no padding\x00"))
    for ciphertext, device_identity in (
        (good[:20] + bytes([good[20] ^ 1]) + good[21:], identity),
        (good[:-20] + bytes([good[-20] ^ 1]) + good[-19:], identity),
        (good, forged.SerializeToString()),
        (good, b""),
        (by_stranger, identity),
        (unpadded, identity),
    ):
        send(ciphertext, device_identity)
        retry = client.receive("receipt")
        assert retry.text("type") == "retry"
        assert len(retry.need("keys", "identity").data()) == 32
    assert sim.inbox(_OTHER) == []
    assert sim.stats()["undecryptable"] == 6
    identifier = send(good, identity)
    assert [(entry["id"], entry["text"]) for entry in sim.inbox(_OTHER)] == [(identifier, "hello")]
    assert client.receive("receipt").text("type") == ""
    send(good, identity)
    assert client.receive("receipt").text("type") == "retry"  # a replay under another id
    assert len(sim.inbox(_OTHER)) == 1


def test_stanzas_that_break_the_protocol_end_the_stream(sim: SimulatorClient, connect: Connect) -> None:
    keys = RawKeys()
    jid, _ = pair(sim, connect(keys), keys)
    elsewhere = Node("to", {"jid": Jid("100060129999999", "lid")}, [Node("enc", {"type": "msg"}, b"x")])
    for stanza in (
        Node("dance", {}),
        Node("iq", {"id": "1", "xmlns": "w:p"}),
        Node("message", {"id": "1", "type": "text"}),
        Node(
            "message",
            {"id": "1", "to": Jid("100060120000002", "lid")},
            [Node("participants", {}, [elsewhere])],
        ),
    ):
        client = connect(keys, login_payload(jid))
        client.receive("success")
        client.send(stanza)
        assert client.receive("stream:error").text("code") == "400"
    assert sim.stats()["messages"] == 0


def test_seeded_companions_log_in_and_forged_ones_are_refused(sim: SimulatorClient, connect: Connect) -> None:
    keys = RawKeys()
    seed = {
        "number": _NUMBER,
        "device": 3,
        "noise": keys.noise.public.hex(),
        "identity": keys.identity.public.hex(),
        "registration": keys.registration,
        "signed_pre_key": keys.signed_pre_key.public.hex(),
        "signature": keys.signature.hex(),
    }
    with pytest.raises(SimulatorRefused, match="not signed"):
        sim.seed([{**seed, "signature": bytes(64).hex()}])
    with pytest.raises(SimulatorRefused, match="not usable"):
        sim.seed([{"number": _NUMBER}])
    assert sim.seed([seed]) == 1
    client = connect(keys, login_payload(f"{_NUMBER}:3@s.whatsapp.net"))
    assert str(client.receive("success").jid("lid")) == "100060120000001:3@lid"
