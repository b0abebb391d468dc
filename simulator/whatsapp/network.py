"""The server: who is connected, what each stanza leads to, and in which order it is recorded and answered."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from config.errors import NotFound, Refused
from config.logging import logger
from simulator.whatsapp import binary_xml, queries, routing, stanzas
from simulator.whatsapp.authority import Authority
from simulator.whatsapp.connection import Connection
from simulator.whatsapp.curve import verify_pre_key
from simulator.whatsapp.faults import FAULTS, FaultBoard, Stage, Target, kinds_at
from simulator.whatsapp.media import MediaStore
from simulator.whatsapp.nodes import SERVER, Attribute, Jid, MalformedStanza, Node
from simulator.whatsapp.pairing import Pairing
from simulator.whatsapp.phones import Phones
from simulator.whatsapp.records import Companion, number_of
from simulator.whatsapp.statistics import Statistics
from simulator.whatsapp.store import Store

#: Failures after which the companion's session is over for good.
_FINAL_FAILURES = (401, 403, 406)
#: What a temporary ban says: the reason (too many unknown recipients) and how long it lasts, in seconds.
_BAN: dict[str, Attribute | int | None] = {"code": 101, "expire": 3600}


class Network:
    """One loopback WhatsApp. Everything runs on one event loop; every stanza is one transaction."""

    def __init__(self, authority: Authority) -> None:
        directory = authority.directory
        self.authority = authority
        self.store = Store(directory / "whatsapp.db")
        self.media = MediaStore(directory / "media")
        # Clients keep the token for an hour; a restarted simulator is the same server to them.
        self.media_token = hashlib.sha256(b"media" + authority.noise_static.private).hexdigest()
        self.statistics = Statistics(self.store.counters())
        self.faults = FaultBoard()
        self.phones = Phones(self.store, self.media, self.statistics, self.deliver)
        self.pairing = Pairing(self)
        self._online: dict[tuple[str, int], Connection] = {}
        self._all: set[Connection] = set()
        self._unsent: list[tuple[Connection, Node]] | None = None

    def close(self) -> None:
        """Record what is left to record and close the database."""
        with self.recording():
            pass
        self.store.close()

    # Recording before answering

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Make what happens inside one transaction; stanzas to clients leave when it is committed."""
        if self._unsent is not None:
            yield
            return
        self._unsent = []
        self.statistics.begin()
        try:
            with self.store.transaction():
                yield
                self.store.save_counters(self.statistics.take_changed())
            unsent = self._unsent
        except BaseException:
            self.statistics.undo()
            raise
        finally:
            self._unsent = None
        for connection, stanzas_for_it in _by_connection(unsent).items():
            connection.send(*stanzas_for_it)

    def send(self, connection: Connection, stanza: Node) -> None:
        """Send a stanza, after the commit when one is under way."""
        if self._unsent is None:
            connection.send(stanza)
        else:
            self._unsent.append((connection, stanza))

    def deliver(self, companion: Companion, stanza: Node) -> None:
        """Queue a stanza for a companion until it acknowledges it; send it now if it is online."""
        kind = "" if stanza.tag == "message" else stanza.text("type")
        key = routing.queue_key(stanza.tag, stanza.text("id"), kind, stanza.jid("from"))
        self.store.messages.enqueue(companion.key, key, binary_xml.encode(stanza))
        connection = self._online.get(companion.key)
        if connection is not None:
            self.send(connection, stanza)

    # Connections

    def opened(self, connection: Connection) -> None:
        """Count a connection in, before it is known who it is."""
        self._all.add(connection)

    def closed(self, connection: Connection) -> None:
        """Count a connection out; safe to call more than once."""
        self._all.discard(connection)
        self.pairing.close(connection)
        companion = connection.companion
        if companion is not None and connection.live:
            connection.live = False
            self.statistics.live(str(companion.jid), -1)
            if self._online.get(companion.key) is connection:
                del self._online[companion.key]

    def admit(self, connection: Connection, noise: bytes, payload: Any) -> None:
        """Let a client in that has shown its Noise key: to be linked, or to log in."""
        with self.recording():
            if payload.HasField("devicePairingData"):
                try:
                    self.pairing.open(connection, noise, payload.devicePairingData)
                except MalformedStanza as error:
                    self._refuse(connection, 400, str(error))
            else:
                self._log_in(connection, noise, str(payload.username), payload.device)

    def _log_in(self, connection: Connection, noise: bytes, number: str, device: int) -> None:
        key = (number, device)
        companion = self.store.accounts.companion(number, device)
        fault = self.faults.first_active(kinds_at(Stage.LOGIN), key)
        if fault is not None:
            code = int(fault.removeprefix("failure-"))
            if companion is not None and code in _FINAL_FAILURES:
                self.store.accounts.forget_companion(companion)
            self._refuse(connection, code, fault)
            return
        if companion is None or companion.noise != noise:
            removed = self.store.accounts.was_removed(noise)
            self.statistics.count("logged_out_attempts" if removed else "unknown_logins")
            self._refuse(connection, 401, "not linked")
            return
        earlier = self._online.get(key)
        if earlier is not None and earlier.hung_up:
            self.closed(earlier)
        elif earlier is not None:
            self.statistics.count("conflicts")
            self.send(earlier, stanzas.stream_error(conflict="replaced"))
            earlier.finish()
        connection.companion, connection.live = companion, True
        self._online[key] = connection
        self.statistics.count("logins")
        self.statistics.live(str(companion.jid), 1)
        queued = [binary_xml.decode(stanza) for stanza in self.store.messages.queued(key)]
        counts = {tag: sum(stanza.tag == tag for stanza in queued) for tag in ("message", "receipt")}
        preview = Node("offline_preview", {"count": len(queued), **counts})
        self.send(connection, stanzas.success(companion))
        self.send(connection, Node("ib", {"from": SERVER}, [preview]))
        for stanza in queued:
            stanza.attributes["offline"] = "0"
            self.send(connection, stanza)
            self.statistics.count("redelivered")
        self.send(connection, Node("ib", {"from": SERVER}, [Node("offline", {"count": len(queued)})]))
        for kind in kinds_at(Stage.MOMENT):
            if self.faults.active(kind, key):
                self._strike(kind, connection)

    def _refuse(self, connection: Connection, code: int, reason: str) -> None:
        self.statistics.count(f"failures_{code}")
        logger().info("login refused", code=code, reason=reason)
        self.send(connection, stanzas.failure(code, _BAN if code == 402 else None))
        connection.finish()

    # Stanzas

    def handle(self, connection: Connection, stanza: Node) -> None:
        """Take one stanza of a client; record what it leads to, then answer.

        Raises:
            MalformedStanza: the client broke the protocol; nothing of the stanza was recorded.
        """
        with self.recording():
            companion = connection.companion
            if companion is None:
                answers = self.pairing.handle(connection, stanza)
            else:
                current = self.store.accounts.companion(*companion.key)
                if current is None:
                    return  # unlinked a moment ago; the stream is about to end
                answers = self._answers(connection, current, stanza)
            # The answer goes before what the stanza made others say, as it does when those are far away.
            self._unsent = [(connection, answer) for answer in answers] + (self._unsent or [])

    def _answers(self, connection: Connection, companion: Companion, stanza: Node) -> list[Node]:
        match stanza.tag:
            case "iq":
                return self._query(connection, companion, stanza)
            case "message":
                return routing.message(self, companion, stanza)
            case "receipt":
                return routing.receipt(self, companion, stanza)
            case "ack":
                return routing.acknowledgement(self, companion, stanza)
            case "presence":
                if stanza.text("type") in ("available", "unavailable") and not stanza.text("name"):
                    self.statistics.count("refused_presences")
                    return [Node("ack", {"class": "presence", "from": SERVER, "error": 400})]
                return []
            case "chatstate" | "ib" | "notification":
                return []
        raise MalformedStanza(f"clients do not send <{stanza.tag}>")

    def _query(self, connection: Connection, companion: Companion, stanza: Node) -> list[Node]:
        if stanza.text("type") in ("result", "error"):
            return []
        if self.faults.active("iq-error", companion.key):
            return [stanzas.error(stanza, 500, "internal-server-error")]
        answer = queries.answer(self, companion, stanza)
        if self.store.accounts.companion(*companion.key) is None:
            connection.finish()
        elif (
            stanza.text("xmlns") == "passive"  # by now the client's keys are here, so its phone can write to it
            and not companion.has_history
            and self.phones.share_history(companion)
        ):
            self.store.accounts.save_companion(replace(companion, has_history=True))
        return [answer]

    # Faults

    def set_fault(self, kind: str, target: Target | None = None, seconds: float | None = None) -> int:
        """Set a fault, or let it strike; return how many devices it struck at once.

        Raises:
            Refused: there is no such fault, or not for one device.
        """
        self.faults.set(kind, target, seconds)
        with self.recording():
            struck = self._strike_now(kind, target) if FAULTS[kind].stage is Stage.MOMENT else 0
        if kind == "half-open":
            dead = [one for one in self._all if target is None or (one.companion and _hits(target, one.companion))]
            for connection in dead:
                connection.half_open = True
            struck = len(dead)
        self._resume()
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds + 0.01, self._resume)
        return struck

    def _strike_now(self, kind: str, target: Target | None) -> int:
        """Let a fault of the moment strike; return how many it struck."""
        if kind == "device-removed" and target is not None:
            # A phone unlinks a device whether or not it is online.
            removed = [one for one in self.store.accounts.companions(target[0]) if _hits(target, one)]
            for companion in removed:
                self.unlink(companion)
            return len(removed)
        struck = [one for one in self._online.values() if one.companion and _hits(target, one.companion)]
        for connection in struck:
            self._strike(kind, connection)
        return len(struck)

    def _strike(self, kind: str, connection: Connection) -> None:
        self.statistics.count(f"struck {kind}")
        companion = connection.companion
        if kind == "reset" or companion is None:
            connection.reset()
        elif kind == "stream-503":
            self.send(connection, stanzas.stream_error(503))
            connection.finish()
        elif kind == "replaced":
            self.send(connection, stanzas.stream_error(conflict="replaced"))
            connection.finish()
        elif kind == "device-removed":
            self.unlink(companion)

    def unlink(self, companion: Companion) -> None:
        """Remove a companion, as its phone's list of devices does."""
        self.store.accounts.forget_companion(companion)
        self.statistics.count("unlinked")
        connection = self._online.get(companion.key)
        if connection is not None:
            self.send(connection, stanzas.stream_error(401, conflict="device_removed"))
            connection.finish()

    def _resume(self) -> None:
        for connection in list(self._all):
            connection.resume()

    # For the control socket

    def companions_at(self, address: str) -> list[Companion]:
        """Return the companions that a number or a JID stands for.

        Raises:
            NotFound: there is none.
        """
        jid = Jid.parse(address.lstrip("+"))
        number = jid.server if not jid.user else number_of(jid)
        found = [
            companion
            for companion in (self.store.accounts.companions(number) if number else [])
            if not jid.device or companion.device == jid.device
        ]
        if not found:
            raise NotFound(f"No device is linked at {address}.", "Pair one first, or check the number.")
        return found

    def seed(self, companions: list[dict[str, Any]]) -> int:
        """Link companions whose keys were made elsewhere, for benchmarks; return how many.

        Each has ``number``, ``device``, ``registration``, ``signed_pre_key_id`` and, in hexadecimal, the public
        keys ``noise``, ``identity``, ``signed_pre_key`` and its ``signature``; ``pre_keys`` ([id, key] pairs)
        and ``device_identity`` are optional.

        Raises:
            Refused: one is incomplete or its signature is wrong.
        """
        with self.recording():
            for given in companions:
                try:
                    companion = _seeded(given)
                    pre_keys = [(int(key[0]), bytes.fromhex(key[1])) for key in given.get("pre_keys", [])]
                except (KeyError, ValueError, TypeError) as error:
                    raise Refused(f"A companion to seed is not usable: {error!r}.") from None
                if not verify_pre_key(companion.identity, companion.signed_pre_key, companion.signature):
                    raise Refused(f"The signed pre-key of {companion.jid} is not signed by its identity.")
                self.phones.add(companion.number)
                self.store.accounts.save_companion(companion)
                self.store.accounts.add_companion_pre_keys(*companion.key, pre_keys)
        return len(companions)


def _by_connection(unsent: list[tuple[Connection, Node]]) -> dict[Connection, list[Node]]:
    """Gather what each connection is sent: one write for all of it costs a third of one write each."""
    gathered: dict[Connection, list[Node]] = {}
    for connection, stanza in unsent:
        gathered.setdefault(connection, []).append(stanza)
    return gathered


def _seeded(given: dict[str, Any]) -> Companion:
    return Companion(
        number=str(given["number"]),
        device=int(given["device"]),
        noise=bytes.fromhex(given["noise"]),
        identity=bytes.fromhex(given["identity"]),
        registration=int(given["registration"]),
        signed_pre_key_id=int(given.get("signed_pre_key_id", 1)),
        signed_pre_key=bytes.fromhex(given["signed_pre_key"]),
        signature=bytes.fromhex(given["signature"]),
        device_identity=bytes.fromhex(given.get("device_identity", "")),
        has_history=True,
    )


def _hits(target: Target | None, companion: Companion) -> bool:
    return target is None or target in (companion.key, (companion.number, 0))
