"""Thousands of linked companions at once: what as many pairings would have left behind, with fresh keys.

Both halves of each link are made here: the companion's row in whatsmeow's tables (private keys), its phone and what
the server knows of it in the simulator's store (public keys), all signatures valid, and a row in the device table.
Everything is written with COPY while nothing runs. Left out is only the Signal session with the own phone: the first
send builds it, as it builds those with all others.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyaileys.proto import WAProto_pb2 as schema

from actors.whatsapp.session import migrate_store
from config.home import Home
from simulator.platforms.server import DEFAULT_ACCOUNTS
from simulator.whatsapp import adv
from simulator.whatsapp.authority import prepare_authority
from simulator.whatsapp.curve import KEY_TYPE, KeyPair
from simulator.whatsapp.records import Companion, Phone
from simulator.whatsapp.store import Store
from storage.credentials import CredentialSeal
from storage.database import SALAMANDER_DATABASE, WHATSMEOW_DATABASE, Connection, connect
from storage.embedded import EmbeddedPostgres
from storage.migrate import migrate

#: One-time keys of a companion that are on the server after a pairing with the simulator (the client makes 50).
PRE_KEYS = 50
#: Every seeded companion is the first that its phone linked.
_DEVICE = 1
#: What a companion's signature of its identity begins with (source: whatsmeow, ``pair.go``).
_DEVICE_SIGNATURE = b"\x06\x01"
#: The numbers of seeded phones begin here.
_FIRST_NUMBER = 60_120_000_001


@dataclass(frozen=True)
class Link:
    """One phone and the companion linked to it, with all private keys."""

    name: str
    phone: Phone
    companion: Companion
    noise: KeyPair
    identity: KeyPair
    signed_pre_key: KeyPair
    pre_keys: tuple[KeyPair, ...]
    adv_secret: bytes

    @property
    def jid(self) -> str:
        """The companion's JID, as whatsmeow and the device table write it."""
        return str(self.companion.jid)

    @property
    def lid(self) -> str:
        """The companion's LID."""
        return str(self.companion.lid)


def make_link(name: str, number: str, pre_keys: int = PRE_KEYS) -> Link:
    """Return a companion linked to the phone ``number``, every key fresh and every signature made.

    One without ``pre_keys`` has never logged in: it uploads its one-time keys when it first does.
    """
    account, phone_pre_key = KeyPair(), KeyPair()
    phone = Phone(
        number=number,
        identity=account,
        signed_pre_key=phone_pre_key,
        signature=account.sign(KEY_TYPE + phone_pre_key.public),
        registration=secrets.randbelow(16380) + 1,
    )
    noise, identity, signed_pre_key = KeyPair(), KeyPair(), KeyPair()
    companion = Companion(
        number=number,
        device=_DEVICE,
        noise=noise.public,
        identity=identity.public,
        registration=secrets.randbits(31),
        signed_pre_key_id=1,
        signed_pre_key=signed_pre_key.public,
        signature=identity.sign(KEY_TYPE + signed_pre_key.public),
        device_identity=_device_identity(account, identity),
        has_history=True,
        has_uploaded=pre_keys > 0,
    )
    return Link(
        name=name,
        phone=phone,
        companion=companion,
        noise=noise,
        identity=identity,
        signed_pre_key=signed_pre_key,
        pre_keys=tuple(KeyPair() for _ in range(pre_keys)),
        adv_secret=secrets.token_bytes(32),
    )


def make_links(prefix: str, count: int, first: int = 0, pre_keys: int = PRE_KEYS) -> Iterator[Link]:
    """Yield ``count`` links named ``prefix-1`` and so on, on phones number ``first`` and the following ones."""
    for position in range(count):
        yield make_link(f"{prefix}-{position + 1}", str(_FIRST_NUMBER + 10 * (first + position)), pre_keys)


def _device_identity(account: KeyPair, identity: KeyPair) -> bytes:
    """Return the identity that the phone signed for the companion and the companion signed in turn."""
    signed = schema.ADVSignedDeviceIdentity.FromString(adv.sign_for_companion(account, identity.public, _DEVICE))
    signed.deviceSignature = identity.sign(_DEVICE_SIGNATURE + signed.details + identity.public + account.public)
    complete: bytes = signed.SerializeToString()
    return complete


# --- a whole installation -------------------------------------------------------------------------------------


def seed_home(home: Home, links: Sequence[Link], extra: Sequence[Link] = (), platform_devices: int = 0) -> None:
    """Fill a fresh home, on which nothing runs, with linked devices on the embedded server and the simulator.

    Args:
        links: become devices of the fleet.
        extra: are linked too, but no devices: sessions for whatever the fleet is compared with.
        platform_devices: how many platform accounts are added besides, in turn for each platform.

    Call it from a process's main thread, or the server ends with the thread.
    """
    home.create()
    prepare_authority(home.simulator)
    _fill_simulator(home, [*links, *extra])
    server = EmbeddedPostgres(home.postgres)
    server.start()
    try:
        for name in (SALAMANDER_DATABASE, WHATSMEOW_DATABASE):
            server.ensure_database(name)
        migrate(server.url(SALAMANDER_DATABASE))
        migrate_store(server.url(WHATSMEOW_DATABASE))
        with connect(server.url(WHATSMEOW_DATABASE)) as connection:
            fill_whatsmeow(connection, [*links, *extra])
        with connect(server.url(SALAMANDER_DATABASE)) as connection:
            fill_devices(connection, links)
            fill_platform_devices(connection, platform_devices, CredentialSeal(home.credentials_key))
    finally:
        server.stop()


def _fill_simulator(home: Home, links: Iterable[Link]) -> None:
    store = Store(home.simulator / "whatsapp.db")
    try:
        with store.transaction():
            for link in links:
                store.accounts.add_phone(link.phone)
                store.accounts.save_companion(link.companion)
                store.accounts.add_companion_pre_keys(
                    *link.companion.key, ((number, key.public) for number, key in enumerate(link.pre_keys, start=1))
                )
    finally:
        store.close()


def fill_whatsmeow(connection: Connection, links: Sequence[Link]) -> None:
    """Write the companions into whatsmeow's tables (schema version 15), as its pairing and first login leave them."""
    _copy(
        connection,
        "whatsmeow_device (jid, lid, registration_id, noise_key, identity_key, signed_pre_key, signed_pre_key_id,"
        " signed_pre_key_sig, adv_key, adv_details, adv_account_sig, adv_account_sig_key, adv_device_sig, platform)",
        map(_device_row, links),
    )
    _copy(
        connection,
        "whatsmeow_pre_keys (jid, key_id, key, uploaded)",
        ((link.jid, number, key.private, True) for link in links for number, key in enumerate(link.pre_keys, start=1)),
    )
    _copy(
        connection,
        "whatsmeow_contacts (our_jid, their_jid, push_name)",
        ((link.jid, str(own), link.phone.number) for link in links for own in (link.phone.jid, link.phone.lid)),
    )
    _copy(connection, "whatsmeow_lid_map (lid, pn)", ((link.phone.lid.user, link.phone.number) for link in links))
    connection.execute("analyze")


def _device_row(link: Link) -> tuple[Any, ...]:
    identity = schema.ADVSignedDeviceIdentity.FromString(link.companion.device_identity)
    return (
        link.jid,
        link.lid,
        link.companion.registration,
        link.noise.private,
        link.identity.private,
        link.signed_pre_key.private,
        link.companion.signed_pre_key_id,
        link.companion.signature,
        link.adv_secret,
        identity.details,
        identity.accountSignature,
        identity.accountSignatureKey,
        identity.deviceSignature,
        "android",
    )


def fill_devices(connection: Connection, links: Sequence[Link]) -> None:
    """Write the devices as a fleet that was stopped leaves them."""
    linked = datetime.now(UTC)
    _copy(
        connection,
        "device (name, jid, lid, linked_at, state, reason_code, reason)",
        ((link.name, link.jid, link.lid, linked, "online", "connected", "Connected.") for link in links),
    )
    connection.execute("analyze")


def fill_platform_devices(connection: Connection, count: int, seal: CredentialSeal) -> None:
    """Write platform accounts; their base URLs are set by :func:`point_platform_devices`, once the ports are known."""
    platforms = sorted(DEFAULT_ACCOUNTS)
    sealed = {platform: seal.seal(DEFAULT_ACCOUNTS[platform]) for platform in platforms}
    chosen = [platforms[number % len(platforms)] for number in range(count)]
    _copy(
        connection,
        "device (name, platform, base_url, credentials, state, reason_code, reason)",
        (
            (f"{platform}-{number}", platform, "", sealed[platform], "ready", "ready", "It sends through the platform.")
            for number, platform in enumerate(chosen, start=1)
        ),
    )


def point_platform_devices(connection: Connection, urls: dict[str, str]) -> None:
    """Point the seeded platform accounts at the stand-ins of a running simulator."""
    for platform, url in urls.items():
        connection.execute("update device set base_url = %s where platform = %s", [url, platform])


def _copy(connection: Connection, target: str, rows: Iterable[Sequence[Any]]) -> None:
    # The targets are the literals above.
    statement = f"copy {target} from stdin".encode()
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
