"""What single operations of the product cost on the database as it stands, one caller, nothing else running."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable
from typing import Any

from benchmarks.support.bench import percentile
from storage import care, devices, outbox
from storage.database import Connection, SingleConnection
from storage.outbox import NewMessage, Outbox

#: Devices of one shard in a full fleet.
_SHARD = 94
_BATCH = 500
#: The receipts that one event of the library brings.
_RECEIPTS = 20
_LEAST_CALLS, _MOST_CALLS = 3, 400


def measure_costs(url: str, connection: Connection, seconds: float) -> dict[str, Any]:
    """Return milliseconds a call of each operation (p50, p99), and the sizes of the tables.

    Args:
        url: the database; the operations use a connection of their own, as a process of the product does.
        seconds: how long each operation is called again and again.
    """
    database = SingleConnection(url)
    try:
        # What the operation before left to write would be counted in the middle of this one.
        costs = {}
        for name, call in _operations(database, connection).items():
            connection.execute("checkpoint")
            costs[name] = _time(call, seconds)
        return {
            "p50_ms": {name: round(percentile(taken, 0.5), 4) for name, taken in costs.items()},
            "p99_ms": {name: round(percentile(taken, 0.99), 4) for name, taken in costs.items()},
            "megabytes": _sizes(connection),
        }
    finally:
        database.close()


def _operations(database: SingleConnection, connection: Connection) -> dict[str, Callable[[], object]]:
    lanes = [row["id"] for row in connection.execute("select id from device order by id")]
    shard = lanes[:_SHARD]
    names = [f"lane-{number}" for number in range(1, len(shard) + 1)]
    ids = [row["id"] for row in connection.execute("select id from outbox order by random() limit 2000")]
    sent = connection.execute("select device_id, external_id from outbox where state = 'sent' limit 8000").fetchall()
    receipts: dict[int, list[str]] = {}
    for row in sent:
        receipts.setdefault(row["device_id"], []).append(row["external_id"])
    turns, messages = itertools.cycle(shard), itertools.cycle(ids)
    reported = itertools.cycle(list(receipts.items()))
    sender = Outbox(database, "growth")

    def message() -> NewMessage:
        key = f"growth-{secrets.token_hex(8)}"
        return NewMessage(next(turns), "60198887777", "text", "Your order is ready.", idempotency_key=key)

    def accept(count: int) -> object:
        with database.transaction() as own:
            return outbox.accept(own, [message() for _ in range(count)])

    def claim_and_settle() -> object:
        claim = sender.claim(next(turns), secrets.token_bytes(32))
        if claim is None:
            accept(_BATCH)
            return claim_and_settle()
        sender.sent(claim, f"WA-{secrets.token_hex(8)}")
        return claim

    def claim_nothing() -> object:
        return sender.claim(lanes[-1], secrets.token_bytes(32))

    def receive() -> object:
        device_id, external_ids = next(reported)
        return sender.apply_receipts(device_id, [(each, "delivered") for each in external_ids[:_RECEIPTS]])

    def read(question: Callable[[Connection], object]) -> Callable[[], object]:
        def ask() -> object:
            with database.transaction() as own:
                return question(own)

        return ask

    def listed(device: str | None, state: str | None) -> Callable[[], object]:
        return read(lambda own: outbox.list_messages(own, device=device, state=state, limit=50))

    return {
        "accept one": lambda: accept(1),
        f"accept a batch of {_BATCH}": lambda: accept(_BATCH),
        "claim and settle": claim_and_settle,
        "claim from an empty lane": claim_nothing,
        "look for work in a shard's lanes": lambda: sender.lanes_with_work(shard),
        "receipts of a device": receive,
        "expire, whole fleet": read(outbox.expire_everywhere),
        "sends of a device in 24 h": read(lambda own: care.sends_of(own, next(turns), 86_400.0)),
        "one message's story": read(lambda own: outbox.message(own, next(messages))),
        "list the newest": listed(None, None),
        "list a device's": listed(names[0], None),
        "list failed": listed(None, "failed"),
        "list in doubt": listed(None, "in_doubt"),
        "messages by state": read(outbox.counts),
        "backlog by device": read(devices.backlog),
        "devices by name (batch)": read(lambda own: devices.lanes_by_name(own, names)),
        "all devices": read(devices.all_devices),
    }


def _time(call: Callable[[], object], seconds: float) -> list[float]:
    """Return the milliseconds of each call; the first ones, which prepare the statements, are left out."""
    for _ in range(_LEAST_CALLS * 2):
        began = time.perf_counter()
        call()
        if time.perf_counter() - began > seconds:
            break
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < _LEAST_CALLS or (time.perf_counter() < end and len(taken) < _MOST_CALLS):
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return taken


def _sizes(connection: Connection) -> dict[str, float]:
    rows = connection.execute(
        "select relname as name, pg_total_relation_size(oid) / 1048576.0 as megabytes from pg_class"
        " where relkind = 'r' and relname = any(array['outbox', 'attempt', 'transition', 'event'])"
    )
    return {row["name"]: round(float(row["megabytes"]), 1) for row in rows}
