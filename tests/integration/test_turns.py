"""The turns of a shard's lanes on a real server: together they do what the outbox does for each alone."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from actors.whatsapp.group_commit import GroupCommit
from config.errors import StorageUnavailable
from storage import care, dispatch, events, outbox, turns
from storage.care import Limits
from storage.database import Connection, Database, connect
from storage.dispatch import Head
from storage.events import Event
from storage.outbox import Claim, Outbox
from storage.turns import Receipt, Turn
from tests.support.daemon import eventually
from tests.support.outbox import accept_texts, claim_next, new_device, state_of, story_of

OWNER = "shard-1/one"


@pytest.fixture
def lane(connection: Connection) -> int:
    return new_device(connection)


def take(database: Database, *wanted: Turn, again: bool = False) -> list[Head | None]:
    with database.transaction() as connection:
        return turns.take(connection, OWNER, wanted, again=again)


def claiming(device_id: int) -> Turn:
    return Turn(device_id, secret=secrets.token_bytes(32))


def claim_of(head: Head | None) -> Claim:
    assert head is not None
    assert head.claim is not None
    return head.claim


def receipt(external_id: str, stage: str) -> Receipt:
    return Receipt(
        Event("receipt", f"{external_id}:{stage}", {"message_id": external_id, "stage": stage}), external_id, stage
    )


def test_many_lanes_record_and_claim_in_one_transaction(connection: Connection, database: Database) -> None:
    lanes = [new_device(connection) for _ in range(10)]
    ids = {device_id: accept_texts(connection, device_id, "one", "two") for device_id in lanes}
    firsts = [claim_of(head) for head in take(database, *map(claiming, lanes))]
    assert [claim.message_id for claim in firsts] == [ids[device_id][0] for device_id in lanes]
    wanted = [
        Turn(claim.device_id, sent=turns.sent(claim, f"3EB0{claim.message_id}"), secret=secrets.token_bytes(32))
        for claim in firsts
    ]
    seconds = [claim_of(head) for head in take(database, *wanted)]
    assert [claim.body for claim in seconds] == ["two"] * 10
    for claim in firsts:
        assert state_of(connection, claim.message_id) == "sent"
        assert story_of(connection, claim.message_id) == ["queued", "sending", "sent"]
        found = outbox.message(connection, claim.message_id)
        assert found is not None
        assert found["external_id"] == f"3EB0{claim.message_id}"
        rows = connection.execute("select outcome from attempt where message_id = %s", [claim.message_id])
        assert [row["outcome"] for row in rows] == ["sent"]


def test_turns_whose_answer_was_lost_give_the_same_and_count_once(
    connection: Connection, database: Database, lane: int
) -> None:
    accept_texts(connection, lane, "one", "two", "three")
    first = claim_of(take(database, claiming(lane))[0])
    wanted = Turn(
        lane,
        sent=turns.sent(first, "3EB0AA"),
        receipts=(receipt("3EB0AA", "delivered"),),
        secret=secrets.token_bytes(32),
    )
    second = claim_of(take(database, wanted)[0])
    assert claim_of(take(database, wanted, again=True)[0]) == second
    assert story_of(connection, first.message_id) == ["queued", "sending", "sent", "delivered"]
    assert story_of(connection, second.message_id) == ["queued", "sending"]
    # When that attempt has ended meanwhile, its secret has served.
    Outbox(database, OWNER).in_doubt(second, "abandoned", "Nobody was at it.", None)
    (head,) = take(database, wanted, again=True)
    assert head is not None
    assert head.claim is None


def test_a_receipt_counts_whether_it_comes_before_the_answer_or_after(
    connection: Connection, database: Database
) -> None:
    early, late = new_device(connection), new_device(connection)
    for device_id in (early, late):
        accept_texts(connection, device_id, "hello")
    claims = [claim_of(head) for head in take(database, claiming(early), claiming(late))]
    take(database, Turn(early, receipts=(receipt("3EB0E1", "delivered"), receipt("3EB0E1", "read"))))
    take(
        database,
        *(
            Turn(claim.device_id, sent=turns.sent(claim, each))
            for claim, each in zip(claims, ("3EB0E1", "3EB0L1"), strict=True)
        ),
    )
    assert state_of(connection, claims[0].message_id) == "read"
    assert state_of(connection, claims[1].message_id) == "sent"
    # The same id at another device is another message.
    take(
        database,
        Turn(early, receipts=(receipt("3EB0L1", "read"),)),
        Turn(late, receipts=(receipt("3EB0L1", "delivered"),)),
    )
    assert state_of(connection, claims[1].message_id) == "delivered"
    assert len([each for each in events.after(connection, 0, limit=100) if each["kind"] == "receipt"]) >= 4


def test_an_answer_that_comes_after_its_message_went_on_counts_as_a_receipt(
    connection: Connection, database: Database, lane: int
) -> None:
    (message_id,) = accept_texts(connection, lane, "hello")
    claim = claim_of(take(database, claiming(lane))[0])
    sender = Outbox(database, OWNER)
    sender.in_doubt(claim, "no_answer", "WhatsApp did not answer in time.", None)
    with database.transaction() as own:
        outbox.resolve(own, message_id, sent=False)
    assert state_of(connection, message_id) == "queued"
    take(database, Turn(lane, sent=turns.sent(claim, "3EB0D1")))
    assert state_of(connection, message_id) == "sent"


def test_a_lane_that_must_be_asked_by_its_rules_says_so_and_an_opted_out_head_is_passed(
    connection: Connection, database: Database
) -> None:
    limited, stopped, empty = (new_device(connection) for _ in range(3))
    care.set_limits(connection, limited, Limits(per_day=5))
    accept_texts(connection, limited, "hello")
    message_ids = accept_texts(connection, stopped, "hello", "again")
    number = "60123456789"
    connection.execute("insert into opt_out (number, source) values (%s, 'operator')", [number])
    try:
        heads = take(database, claiming(limited), claiming(stopped), claiming(empty), Turn(empty))
    finally:
        connection.execute("delete from opt_out where number = %s", [number])
    first, second, third, fourth = heads
    assert first is not None
    assert (first.limited, first.claim) == (True, None)
    assert second is not None
    assert (second.again, second.claim) == (True, None)
    assert state_of(connection, message_ids[0]) == "cancelled"
    assert third is not None
    assert (third.again, third.claim) == (False, None)
    assert fourth is None


def test_a_turn_is_taken_with_other_work_and_each_has_its_own_outcome(
    connection: Connection, database: Database, lane: int
) -> None:
    (message_id,) = accept_texts(connection, lane, "hello")

    def fails(_: Connection) -> None:
        raise LookupError("not this one")

    async def run() -> Any:
        group = GroupCommit(database, OWNER, asyncio.to_thread)
        return await asyncio.gather(
            group.store(lambda own: outbox.states(own, [message_id])[message_id]["state"]),
            group.turn(claiming(lane)),
            group.store(fails),
            return_exceptions=True,
        )

    seen, head, error = asyncio.run(run())
    assert isinstance(head, dispatch.Head)
    assert claim_of(head).message_id == message_id
    assert seen in {"queued", "sending"}
    assert isinstance(error, LookupError)
    assert state_of(connection, message_id) == "sending"
    assert Outbox(database, "somebody-else").orphans([lane])[0].attempt_id == claim_of(head).attempt_id


def test_nothing_is_claimed_for_one_who_has_stopped_waiting(
    connection: Connection, database: Database, lane: int
) -> None:
    first, second = accept_texts(connection, lane, "one", "two")
    claim = claim_of(take(database, claiming(lane))[0])

    async def main() -> None:
        under_way, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(work: Any) -> Any:
            under_way.set()
            await go_on.wait()
            return await asyncio.to_thread(work)

        group = GroupCommit(database, OWNER, slowly)
        others = asyncio.ensure_future(group.store(lambda _: None))
        await under_way.wait()
        cut_off = Turn(lane, sent=turns.sent(claim, "3EB0CC"), secret=secrets.token_bytes(32))
        impatient = asyncio.ensure_future(group.turn(cut_off))
        await asyncio.sleep(0)
        impatient.cancel()
        go_on.set()
        await others
        await group.store(lambda _: None)

    asyncio.run(main())
    assert state_of(connection, first) == "sent"
    assert state_of(connection, second) == "queued"


@pytest.mark.parametrize("waiting", [1, 2])
def test_a_claim_that_is_committed_only_while_it_is_repeated_is_given_again(
    connection: Connection, database: Database, storage_url: str, lane: int, waiting: int
) -> None:
    accept_texts(connection, lane, *(f"text {number}" for number in range(waiting)))
    wanted = claiming(lane)

    def repeat() -> Head | None:
        with contextlib.suppress(StorageUnavailable):
            return take(database, wanted, again=True)[0]
        return None

    with ThreadPoolExecutor(1) as thread, connect(storage_url) as slow:
        with slow.transaction():
            first = claim_of(turns.take(slow, OWNER, [wanted])[0])
            repeated = thread.submit(eventually, repeat, 30, "what was claimed")
            eventually(lambda: locks_waited_for(connection), 30, "the second one to wait for the first")
        assert claim_of(repeated.result(30)) == first


def locks_waited_for(connection: Connection) -> int:
    return connection.execute("select 1 from pg_locks where not granted").rowcount


def test_turns_and_the_outbox_claim_in_one_order(connection: Connection, database: Database, lane: int) -> None:
    ids = accept_texts(connection, lane, "one", "two", "three")
    first = claim_next(Outbox(database, OWNER), lane)
    second = claim_of(take(database, claiming(lane))[0])
    third = claim_next(Outbox(database, OWNER), lane)
    assert [first.message_id, second.message_id, third.message_id] == ids
