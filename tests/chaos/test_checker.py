"""The judge of the fault runs must itself be right: each kind of wrong is found, and only it."""

from __future__ import annotations

from benchmarks.support.checker import Arrival, Asked, Step, Verdict, judge, percentiles
from benchmarks.support.plan import WEIGHTS, plan

QUEUED, SENDING = Step("queued", "accepted"), Step("sending", "attempt")
SENT = (QUEUED, SENDING, Step("sent", "sent"), Step("delivered", "receipt"))


def asked(message_id: int | None, device: str = "d", recipient: str = "r", priority: int = 0) -> Asked:
    return Asked(device, recipient, f"text {message_id} {device} {recipient}", message_id, priority)


def arrived(*messages: Asked) -> list[Arrival]:
    return [Arrival(each.device, each.recipient, each.text) for each in messages]


def story(*steps: Step) -> tuple[Step, ...]:
    return (QUEUED, SENDING, *steps)


def test_what_was_sent_and_arrived_once_is_good() -> None:
    first, second = asked(1), asked(2)
    verdict = judge([first, second], {1: SENT, 2: SENT}, arrived(first, second))
    assert verdict == Verdict(accepted=2, delivered=2)
    assert verdict.good


def test_a_message_said_to_be_sent_that_did_not_arrive_is_lost() -> None:
    verdict = judge([asked(1)], {1: SENT}, [])
    assert verdict.lost == [1]
    assert not verdict.good


def test_a_message_without_an_outcome_is_stuck_whether_it_arrived_or_not() -> None:
    first, second = asked(1), asked(2)
    verdict = judge([first, second], {1: story(), 2: (QUEUED,)}, arrived(first))
    assert verdict.stuck == [1, 2]
    assert not verdict.lost
    assert not verdict.good


def test_an_acknowledged_message_that_nobody_knows_is_wrong() -> None:
    assert judge([asked(1)], {}, []).unknown_ids == [1]


def test_a_second_copy_is_a_duplicate_unless_the_operator_asked_for_it() -> None:
    first, second = asked(1), asked(2)
    resent = story(Step("in_doubt", "no_answer"), Step("queued", "resolved"), SENDING, Step("sent", "sent"))
    verdict = judge([first, second], {1: SENT, 2: resent}, arrived(first, first, second, second))
    assert verdict.duplicated == [1]
    assert verdict.delivered == 2


def test_what_nobody_asked_for_or_another_got_is_unexpected() -> None:
    first = asked(1)
    stray, misled = Arrival("d", "r", "who says so?"), Arrival("d", "s", first.text)
    verdict = judge([first], {1: SENT}, [*arrived(first), stray, misled])
    assert verdict.unexpected == [stray, misled]
    assert not verdict.duplicated


def test_a_message_never_acknowledged_is_recovered_when_it_is_there_and_nothing_when_not() -> None:
    there, gone = asked(None, "d", "there"), asked(None, "d", "gone")
    verdict = judge([there, gone], {}, arrived(there))
    assert (verdict.recovered, verdict.accepted) == (1, 0)
    assert verdict.good


def test_a_message_in_doubt_is_neither_lost_nor_wrong_when_it_arrived() -> None:
    first, second = asked(1), asked(2)
    doubt = story(Step("in_doubt", "no_answer"))
    verdict = judge([first, second], {1: doubt, 2: doubt}, arrived(first))
    assert (verdict.in_doubt, verdict.in_doubt_delivered) == ([1, 2], 1)
    assert verdict.good


def test_a_message_given_up_must_not_have_arrived() -> None:
    first, second = asked(1), asked(2)
    failed = story(Step("failed", "refused"))
    verdict = judge([first, second], {1: failed, 2: failed}, arrived(first))
    assert verdict.given_up == [1, 2]
    assert verdict.given_up_delivered == [1]
    assert not verdict.good


def test_evidence_is_counted_by_attempt() -> None:
    first, second, third = asked(1), asked(2), asked(3)
    doubt = Step("in_doubt", "process_ended")
    stories = {
        1: story(Step("queued", "never_left"), SENDING, Step("queued", "never_left"), SENDING, Step("sent", "sent")),
        2: story(doubt, Step("delivered", "receipt", "Settled by a receipt.")),
        3: story(doubt),
    }
    verdict = judge([first, second, third], stories, arrived(first, second, third))
    assert (verdict.unanswered, verdict.settled_never_left, verdict.settled_sent) == (4, 2, 1)
    assert verdict.settled_by_evidence == 3
    assert verdict.recognised == 0.5


def test_where_nobody_can_be_asked_no_evidence_is_expected() -> None:
    first, second = asked(1, "silent"), asked(2)
    doubt = story(Step("in_doubt", "no_answer"))
    verdict = judge([first, second], {1: doubt, 2: doubt}, arrived(first), {"silent"})
    assert (verdict.in_doubt, verdict.in_doubt_unaskable, verdict.recognised) == ([1, 2], 1, 1.0)


def test_an_operators_word_is_no_evidence() -> None:
    settled = story(Step("in_doubt", "no_answer"), Step("sent", "resolved"))
    verdict = judge([asked(1)], {1: settled}, arrived(asked(1)))
    assert (verdict.unanswered, verdict.settled_by_evidence) == (1, 0)


def test_order_is_promised_on_one_device_to_one_recipient_at_one_priority() -> None:
    first, second, third = asked(1), asked(2), asked(3)
    stories = dict.fromkeys(range(1, 10), SENT)
    assert judge([first, second, third], stories, arrived(first, third, second)).out_of_order == [2]
    elsewhere = asked(4, "e"), asked(5, "d", "s"), asked(6, "d", "r", 5)
    mixed = [elsewhere[2], elsewhere[1], elsewhere[0], first]
    assert not judge(mixed, stories, arrived(*mixed)).out_of_order


def test_a_message_that_was_in_doubt_has_no_promised_place() -> None:
    first, second = asked(1), asked(2)
    stories = {1: story(Step("in_doubt", "no_answer"), Step("delivered", "receipt")), 2: SENT}
    assert not judge([first, second], stories, arrived(second, first)).out_of_order


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}
    assert percentiles([float(each) for each in range(1, 101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_a_plan_is_its_seeds_alone_and_a_long_one_has_every_kind() -> None:
    assert plan(7, 100) == plan(7, 100)
    assert plan(7, 100) != plan(8, 100)
    assert {each.kind for each in plan(1, len(WEIGHTS))} == set(WEIGHTS)
    assert len(plan(1, 12)) == 12
