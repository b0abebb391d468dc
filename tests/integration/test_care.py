"""Care for the numbers on a real PostgreSQL: limits, quiet hours, opt-outs and checks, as a claim meets them."""

from __future__ import annotations

import itertools
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from actors import care_requests
from actors.care import Rules
from actors.messages import OptIn, OptOut, SetLimits
from actors.validation import Problem
from config.errors import NotFound, Refused
from config.quiet_hours import QuietHours
from storage import care, devices, events, outbox
from storage.care import Limits
from storage.database import Connection, Database, PooledConnections
from storage.devices import Device
from storage.outbox import Accepted, Claim, NewMessage, NotAccepted, Outbox
from tests.support.outbox import accept

OFF = Rules()
_names = itertools.count(1)
_numbers = itertools.count(60_190_000_001)


def new_device(connection: Connection, platform: str | None = "wablas") -> Device:
    name = f"care-{next(_names)}"
    devices.add(connection, name=name, platform=platform)
    return devices.by_name(connection, name)


def new_number() -> str:
    return str(next(_numbers))


def queue(connection: Connection, device: Device, *recipients: str, priority: int = 0) -> list[int]:
    messages = [NewMessage(device.id, recipient, "text", "hello", priority=priority) for recipient in recipients]
    return [answer.id for answer in accept(connection, *messages)]


def lane(database: Database, rules: Rules | None) -> Outbox:
    return Outbox(database, "tests", rules)


def claim(sender: Outbox, device: Device) -> Claim | None:
    return sender.claim(device.id, secrets.token_bytes(32))


def send(sender: Outbox, device: Device) -> int | None:
    """Send the head of a lane and return its id, or None when nothing may go."""
    claimed = claim(sender, device)
    if claimed is None:
        return None
    sender.sent(claimed, f"external-{claimed.attempt_id}")
    return claimed.message_id


def row(connection: Connection, device: Device) -> Device:
    return devices.by_name(connection, device.name)


def state(connection: Connection, message_id: int) -> tuple[str, str]:
    found = outbox.states(connection, [message_id])[message_id]
    return found["state"], found["reason_code"]


def age(connection: Connection, device: Device, **span: float) -> None:
    """Let what a device sent have happened longer ago, and end its lane's wait."""
    connection.execute(
        "update attempt set started_at = started_at - %(span)s, ended_at = ended_at - %(span)s"
        " where device_id = %(id)s",
        {"span": timedelta(**span), "id": device.id},
    )
    outbox.release_lane(connection, device.id)


def seconds_until(moment: datetime | None) -> float:
    assert moment is not None
    return (moment - datetime.now(UTC)).total_seconds()


# --- pacing ----------------------------------------------------------------------------------------------


def test_without_limits_a_lane_goes_on_and_a_claim_is_one_statement(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = new_device(connection)
    queue(connection, device, *(new_number() for _ in range(3)))

    def asked(*_: object) -> None:
        raise AssertionError("a lane without limits was asked about them")

    monkeypatch.setattr(care, "lane_with_work", asked)
    monkeypatch.setattr(care, "sends_of", asked)
    sender = lane(database, OFF)
    assert [send(sender, device) is not None for _ in range(4)] == [True, True, True, False]
    assert row(connection, device).held_until is None


def test_a_gap_holds_the_lane_and_its_row_says_why(connection: Connection, database: Database) -> None:
    device = new_device(connection)
    queue(connection, device, new_number(), new_number())
    sender = lane(database, Rules(gap_seconds=60))
    assert send(sender, device) is not None
    assert send(sender, device) is None
    held = row(connection, device)
    assert held.held_code == "gap"
    assert held.held_reason == "A gap of 60.0 s between two sends."
    assert 50 < seconds_until(held.held_until) <= 60
    assert sender.lanes_with_work([device.id]) == []
    age(connection, device, seconds=61)
    assert sender.lanes_with_work([device.id]) == [device.id]
    assert send(sender, device) is not None


def test_a_lane_with_nothing_to_send_is_not_held(connection: Connection, database: Database) -> None:
    device = new_device(connection)
    queue(connection, device, new_number())
    sender = lane(database, Rules(gap_seconds=60))
    assert send(sender, device) is not None
    assert send(sender, device) is None
    assert row(connection, device).held_until is None


def test_caps_survive_a_restart_and_open_when_the_oldest_send_is_past(
    connection: Connection, database: Database
) -> None:
    device = new_device(connection)
    queue(connection, device, *(new_number() for _ in range(9)))
    rules = Rules(per_hour=2, per_day=3)
    assert [send(lane(database, rules), device) is not None for _ in range(3)] == [True, True, False]
    held = row(connection, device)
    assert held.held_code == "hourly_cap"
    assert 3500 < seconds_until(held.held_until) <= 3600
    age(connection, device, minutes=61)
    assert send(lane(database, rules), device) is not None
    assert send(lane(database, rules), device) is None
    held = row(connection, device)
    assert held.held_code == "daily_cap"
    assert 22.8 * 3600 < seconds_until(held.held_until) < 23 * 3600
    age(connection, device, hours=24)
    assert send(lane(database, rules), device) is not None


def test_what_never_left_counts_for_nothing_and_what_was_refused_for_the_gap_alone(
    connection: Connection, database: Database
) -> None:
    device = new_device(connection)
    queue(connection, device, new_number(), new_number(), new_number())
    sender = lane(database, Rules(gap_seconds=60, per_hour=1))
    never_left = claim(sender, device)
    assert never_left is not None
    sender.queued_again(never_left, "not_connected", "It never left.")
    refused = claim(sender, device)
    assert refused is not None
    sender.failed(refused, "refused", "No.")
    assert claim(sender, device) is None
    assert row(connection, device).held_code == "gap"
    age(connection, device, seconds=61)
    doubtful = claim(sender, device)
    assert doubtful is not None
    sender.in_doubt(doubtful, "no_answer", "Nobody knows.", None)
    assert claim(sender, device) is None
    assert row(connection, device).held_code == "hourly_cap"


def test_a_young_device_warms_up_from_the_day_it_was_linked(connection: Connection, database: Database) -> None:
    device = new_device(connection, platform=None)
    connection.execute("update device set created_at = now() - interval '90 days' where id = %s", (device.id,))
    sender = lane(database, Rules(warm_up_days=7, warm_up_messages=1))
    queue(connection, device, *(new_number() for _ in range(4)))
    assert send(sender, device) is not None
    assert send(sender, device) is not None, "it is not young yet: it was added long ago"
    age(connection, device, hours=25)
    devices.bind(connection, device.id, f"{new_number()}:1@s.whatsapp.net", "")
    assert send(sender, device) is not None
    assert send(sender, device) is None
    assert row(connection, device).held_code == "warm_up"
    assert row(connection, device).held_reason.startswith("On day 1 of its 7 days of warm-up it sends 1 messages")


def test_a_devices_own_limits_hold_for_it_alone(connection: Connection, database: Database) -> None:
    limited, free = new_device(connection), new_device(connection)
    care_requests.set_limits(connection, SetLimits(limited.name, Limits(per_hour=1)))
    for device in (limited, free):
        queue(connection, device, new_number(), new_number())
    sender = lane(database, OFF)
    assert [send(sender, limited) is not None for _ in range(2)] == [True, False]
    assert [send(sender, free) is not None for _ in range(2)] == [True, True]
    assert row(connection, limited).held_code == "hourly_cap"


def test_new_limits_end_the_wait_that_the_old_ones_caused_but_no_other(
    connection: Connection, database: Database
) -> None:
    device = new_device(connection)
    queue(connection, device, new_number(), new_number(), new_number())
    sender = lane(database, Rules(per_hour=1))
    assert [send(sender, device) is not None for _ in range(2)] == [True, False]
    care_requests.set_limits(connection, SetLimits(device.name, Limits(per_hour=2)))
    assert row(connection, device).held_until is None
    assert send(sender, device) is not None
    sender.hold_lane(device.id, 600, "The account is disconnected.")
    care_requests.set_limits(connection, SetLimits(device.name, Limits(per_hour=0)))
    assert row(connection, device).held_reason == "The account is disconnected."
    assert send(sender, device) is None
    outbox.release_lane(connection, device.id)
    assert send(sender, device) is not None


def test_limits_are_set_one_by_one_and_reset_together(connection: Connection) -> None:
    device = new_device(connection)
    care_requests.set_limits(connection, SetLimits(device.name, Limits(gap_seconds=2.5, per_day=0)))
    care_requests.set_limits(connection, SetLimits(device.name, Limits(per_hour=9)))
    assert row(connection, device).limits == Limits(gap_seconds=2.5, per_hour=9, per_day=0)
    care_requests.set_limits(connection, SetLimits(device.name, Limits(jitter_seconds=1), reset=True))
    assert row(connection, device).limits == Limits(jitter_seconds=1)


@pytest.mark.parametrize(
    "limits",
    [Limits(gap_seconds=-1), Limits(gap_seconds=float("nan")), Limits(jitter_seconds=1e9), Limits(per_hour=-1)],
)
def test_a_limit_that_cannot_be_is_refused_and_changes_nothing(connection: Connection, limits: Limits) -> None:
    device = new_device(connection)
    with pytest.raises(Refused) as refusal:
        care_requests.set_limits(connection, SetLimits(device.name, limits))
    assert refusal.value.code == "bad_limit"
    assert row(connection, device).limits == Limits()
    with pytest.raises(NotFound):
        care_requests.set_limits(connection, SetLimits("nobody", Limits()))


def test_a_claim_whose_answer_was_lost_is_given_again_whatever_the_pace(
    connection: Connection, database: Database
) -> None:
    device = new_device(connection)
    first, _ = queue(connection, device, new_number(), new_number())
    sender, secret = lane(database, Rules(gap_seconds=60)), secrets.token_bytes(32)
    once, again = sender.claim(device.id, secret), sender.claim(device.id, secret)
    assert once is not None
    assert again is not None
    assert (once.message_id, once.attempt_id) == (again.message_id, again.attempt_id) == (first, once.attempt_id)


# --- quiet hours -----------------------------------------------------------------------------------------


def test_in_quiet_hours_a_one_time_code_goes_and_the_campaign_waits(connection: Connection, database: Database) -> None:
    device = new_device(connection)
    now = datetime.now(UTC)
    begin, end = (now - timedelta(hours=1)).time(), (now + timedelta(hours=1)).time()
    quiet = QuietHours(time(begin.hour, begin.minute), time(end.hour, end.minute), ZoneInfo("UTC"))
    sender = lane(database, Rules(quiet_hours=quiet, urgent_priority=10))
    (campaign,) = queue(connection, device, new_number())
    assert sender.lanes_with_work([device.id]) == [device.id]
    assert send(sender, device) is None
    held = row(connection, device)
    assert held.held_code == "quiet_hours"
    assert seconds_until(held.held_until) <= 3600
    assert sender.lanes_with_work([device.id]) == []
    (urgent,) = queue(connection, device, new_number(), priority=10)
    assert sender.lanes_with_work([device.id]) == [device.id]
    assert send(sender, device) == urgent
    assert send(sender, device) is None
    assert state(connection, campaign) == ("queued", "")
    assert row(connection, device).held_code == "quiet_hours"
    # The daemon is started again with quiet hours off: the old wait must not go on.
    care.release_holds(connection)
    assert send(lane(database, OFF), device) == campaign


# --- opt-out ---------------------------------------------------------------------------------------------


def test_an_opt_out_cancels_what_is_queued_on_every_device(connection: Connection, database: Database) -> None:
    gone, other = new_number(), new_number()
    lanes = [new_device(connection, platform=None), new_device(connection, platform="whacenter")]
    queued = [queue(connection, device, gone, other) for device in lanes]
    changed = json.loads(care_requests.opt_out(connection, OptOut((f"+{gone}", gone)), ""))
    assert changed == {"added": 1, "cancelled": 2}
    for device, (first, second) in zip(lanes, queued, strict=True):
        assert state(connection, first) == ("cancelled", "opted_out")
        assert send(lane(database, OFF), device) == second
        assert send(lane(database, OFF), device) is None
    story = outbox.message(connection, queued[0][0])
    assert story is not None
    assert story["story"][-1]["reason"] == "Its recipient has opted out."
    assert json.loads(care_requests.opt_out(connection, OptOut((gone,)), "")) == {"added": 0, "cancelled": 0}
    assert care_requests.opt_in(connection, OptIn((gone, other)), "") == "1"
    assert care.opted_out(connection, [gone, other]) == frozenset()


def test_a_claim_never_sends_to_a_number_that_opted_out_after_the_message_was_queued_again(
    connection: Connection, database: Database
) -> None:
    device, gone = new_device(connection), new_number()
    stopped, next_one = queue(connection, device, gone, new_number())
    sender = lane(database, OFF)
    claimed = claim(sender, device)
    assert claimed is not None
    assert care.opt_out(connection, [gone], source="operator").cancelled == 0
    sender.queued_again(claimed, "not_connected", "It never left.")
    assert send(sender, device) == next_one
    assert state(connection, stopped) == ("cancelled", "opted_out")
    told = outbox.message(connection, stopped)
    assert told is not None
    assert [each["state"] for each in told["story"]] == ["queued", "sending", "queued", "cancelled"]
    assert len(told["attempts_made"]) == 1


@pytest.mark.parametrize("rules", [OFF, Rules(per_hour=1000)])
def test_a_lane_full_of_opted_out_recipients_is_worked_through(
    connection: Connection, database: Database, rules: Rules
) -> None:
    device = new_device(connection)
    gone = [new_number() for _ in range(5)]
    ids = queue(connection, device, *gone, new_number())
    # As if each was accepted while the opt-out was being committed elsewhere.
    connection.execute("insert into opt_out (number, source) select unnest(%s::text[]), 'operator'", (gone,))
    assert send(lane(database, rules), device) == ids[-1]
    assert [state(connection, message_id) for message_id in ids[:-1]] == [("cancelled", "opted_out")] * 5


def test_opt_outs_while_a_lane_is_sent_leave_nothing_behind(connection: Connection, storage_url: str) -> None:
    device = new_device(connection)
    numbers = [new_number() for _ in range(60)]
    ids = queue(connection, device, *numbers)
    pool = PooledConnections(storage_url, 3)

    def opt_out_from_the_end() -> None:
        for number in reversed(numbers):
            with pool.transaction() as own:
                care.opt_out(own, [number], source="keyword")

    def send_from_the_beginning() -> None:
        while send(lane(pool, OFF), device) is not None:
            pass

    try:
        with ThreadPoolExecutor(2) as threads:
            for ended in [threads.submit(opt_out_from_the_end), threads.submit(send_from_the_beginning)]:
                ended.result()
    finally:
        pool.close()
    states = [state(connection, message_id)[0] for message_id in ids]
    assert set(states) <= {"sent", "cancelled"}
    assert states == sorted(states, reverse=True), "sent from the beginning, cancelled from the end"


def test_numbers_on_the_list_are_written_as_digits_and_a_bad_one_changes_nothing(connection: Connection) -> None:
    good = new_number()
    with pytest.raises(Problem):
        care_requests.opt_out(connection, OptOut((good, "12")), "")
    with pytest.raises(Problem):
        care_requests.opt_out(connection, OptOut((good, "120363012345678901@g.us")), "")
    with pytest.raises(Refused):
        care_requests.opt_out(connection, OptOut((good,) * 501), "")
    assert care.opted_out(connection, [good]) == frozenset()
    care_requests.opt_out(connection, OptOut(("0812-3456-7890",), source="import"), "ID")
    assert care.list_opt_outs(connection, 1)[0]["number"] == "6281234567890"


def test_who_opts_out_under_one_spelling_of_a_number_has_opted_out_under_the_other(connection: Connection) -> None:
    device = new_device(connection)
    asked, written = "5511987650001", "551187650001"
    accepted = accept(connection, NewMessage(device.id, asked, "text", "hello"))
    changed = care.opt_out(connection, [written], source="keyword", device_id=device.id, word="STOP")
    assert (changed.added, changed.cancelled) == (1, 1)
    assert outbox.states(connection, [accepted[0].id])[accepted[0].id]["state"] == "cancelled"
    assert care.opted_out(connection, [asked, written]) == {asked, written}
    assert care.opt_out(connection, [asked], source="operator").added == 0
    assert care.opt_in(connection, [asked]) == 1
    assert care.opted_out(connection, [asked, written]) == frozenset()


def test_a_repeated_key_is_known_after_its_recipient_opted_out(connection: Connection) -> None:
    device, number = new_device(connection), new_number()
    message = replace(NewMessage(device.id, number, "text", "hello"), idempotency_key=f"key-{number}")
    [first] = accept(connection, message)
    care.opt_out(connection, [number], source="operator")
    assert accept(connection, message) == [Accepted(first.id, repeated=True)]


def test_who_opted_out_is_not_written_to_nor_a_device_that_is_gone(connection: Connection) -> None:
    device, removed, gone, other = new_device(connection), new_device(connection), new_number(), new_number()
    care.opt_out(connection, [gone], source="operator")
    devices.remove(connection, removed.id)
    wanted = [
        NewMessage(device.id, gone, "text", "one"),
        NewMessage(device.id, other, "text", "two"),
        NewMessage(device.id, gone, "text", "three", idempotency_key=f"key-{gone}"),
        NewMessage(removed.id, other, "text", "four"),
        NewMessage(device.id, other, "text", "five", idempotency_key=f"key-{other}"),
        NewMessage(device.id, gone, "text", "six", idempotency_key=f"key-{gone}"),
        NewMessage(device.id, other, "text", "seven"),
    ]
    answers = outbox.accept(connection, wanted)
    written = [answer.id for answer in answers if isinstance(answer, Accepted)]
    assert written == sorted(written)
    assert [answer if isinstance(answer, NotAccepted) else "written" for answer in answers] == [
        NotAccepted.OPTED_OUT,
        "written",
        NotAccepted.OPTED_OUT,
        NotAccepted.DEVICE_GONE,
        "written",
        NotAccepted.OPTED_OUT,
        "written",
    ]
    found = [outbox.message(connection, message_id) for message_id in written]
    assert [row and row["body"] for row in found] == ["two", "five", "seven"]


# --- checks of recipients --------------------------------------------------------------------------------


def test_a_claim_knows_what_whatsapp_said_about_its_recipient_while_that_is_fresh(
    connection: Connection, database: Database
) -> None:
    device = new_device(connection, platform=None)
    here, gone, old_here, old_gone, never = (new_number() for _ in range(5))
    for number, there, said in ((here, True, 29), (gone, False, 0.9), (old_here, True, 31), (old_gone, False, 1.1)):
        care.note_check(connection, number, not there)
        care.note_check(connection, number, there)
        connection.execute(
            "update number_check set checked_at = now() - %s where number = %s", (timedelta(days=said), number)
        )
    queue(connection, device, here, gone, old_here, old_gone, never)
    sender, known = lane(database, OFF), []
    while (claimed := claim(sender, device)) is not None:
        known.append(claimed.on_whatsapp)
        sender.sent(claimed, None)
    assert known == [True, False, None, None, None]


# --- doubts and events -----------------------------------------------------------------------------------


def test_a_doubt_that_outlasts_the_patience_is_queued_again_and_says_so(
    connection: Connection, database: Database
) -> None:
    device = new_device(connection)
    old, new = queue(connection, device, new_number(), new_number())
    sender = lane(database, OFF)
    for _ in range(2):
        claimed = claim(sender, device)
        assert claimed is not None
        sender.in_doubt(claimed, "no_answer", "Nobody knows.", None)
    connection.execute("update outbox set updated_at = now() - interval '11 minutes' where id = %s", (old,))
    assert sender.end_patience([device.id], 600) == 1
    assert sender.end_patience([device.id], 600) == 0
    assert state(connection, old) == ("queued", "patience_over")
    assert state(connection, new) == ("in_doubt", "no_answer")
    told = outbox.message(connection, old)
    assert told is not None
    assert "in_doubt_patience_seconds" in told["story"][-1]["reason"]
    assert send(sender, device) == old


def test_recording_an_event_tells_whether_it_is_new(connection: Connection) -> None:
    device = new_device(connection)
    known, fresh = (events.Event("message", name, {"text": name}) for name in ("known", "fresh"))
    assert events.record(connection, device.id, [known]) == ["known"]
    assert events.record(connection, device.id, [known, fresh]) == ["fresh"]
    assert events.record(connection, device.id, [known, fresh]) == []
