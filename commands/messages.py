"""messages, message, cancel, resolve: what became of messages, why, and what a person can do about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from actors.fleet import Fleet
from commands.output import AsJson, as_typed, current_home, out, print_json, print_table, reported, shown
from config.durations import ago
from config.errors import NotFound, Refused, UsageWrong
from storage.devices import Device
from storage.outbox import FINAL_STATES
from supervisors.policy import advice_for

MessageId = Annotated[int, typer.Argument(metavar="ID")]

#: States of a device in which it sends.
_SENDS = frozenset({"online", "ready"})


@reported
def messages(
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    state: Annotated[str | None, typer.Option(help="Only this state, such as queued or in_doubt.")] = None,
    key: Annotated[str | None, typer.Option(help="Only the message that was sent with this idempotency key.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List messages, newest first; in-doubt ones oldest first."""
    known = FINAL_STATES | {"queued", "sending", "in_doubt"}
    if state is not None and state not in known:
        raise Refused(f"There is no state {state!r}.", f"Known: {', '.join(sorted(known))}.", code="bad_state")
    with Fleet(current_home().path) as fleet:
        if device is not None:
            fleet.device(device)
        rows = fleet.messages(device=device, state=state, key=key, limit=limit)
    if as_json:
        print_json(rows)
    elif state == "in_doubt":
        _tell_doubts(rows)
    else:
        print_table(
            "Messages",
            ("id", "device", "to", "kind", "state", "tries", "why", "accepted"),
            [
                (
                    row["id"],
                    row["device"],
                    row["recipient"],
                    row["kind"],
                    row["state"],
                    row["attempts"],
                    row["reason"],
                    row["created_at"],
                )
                for row in rows
            ],
            "No such messages.",
        )


def _tell_doubts(rows: list[dict[str, Any]]) -> None:
    print_table(
        "In doubt, oldest first",
        ("id", "device", "to", "since", "tries", "would be known as", "what happened"),
        [
            (
                row["id"],
                row["device"],
                row["recipient"],
                ago(row["updated_at"]),
                row["attempts"],
                row["external_id"],
                row["reason"],
            )
            for row in rows
        ],
        "Nothing is in doubt.",
    )
    if rows:
        out.print(as_typed("What is known of one: run.py message ID. Settle it: run.py resolve ID --sent | --resend."))


@reported
def message(message_id: MessageId, as_json: AsJson = False) -> None:
    """Tell the story of one message."""
    device: Device | None = None
    with Fleet(current_home().path) as fleet:
        row = fleet.message(message_id)
        if row is None:
            raise NotFound(f"There is no message {message_id}.", "See run.py messages.", code="unknown_message")
        if row["removed_at"] is None:
            device = fleet.device(row["device"])
    explained = explanation(row, device, datetime.now(UTC))
    if as_json:
        hidden = {"content_digest", "removed_at"}
        print_json({**{key: value for key, value in row.items() if key not in hidden}, "explanation": explained})
        return
    out.print(f"Message {row['id']}: {row['state']}", style="bold")
    out.print(f"  from {row['device']} to {row['recipient']}, {row['kind']}: {row['body'][:200]}", markup=False)
    if row["external_id"]:
        out.print(f"  known there as {row['external_id']}", markup=False)
    print_table(
        "Its story",
        ("at", "state", "why"),
        [(each["at"], each["state"], _why(each, row["platform"] or "WhatsApp")) for each in row["story"]],
        "",
    )
    if explained:
        out.print(as_typed(explained), markup=False)


def _why(step: dict[str, Any], route: str) -> str:
    """Return why a message came to a state, also where that goes without saying."""
    words = {"sent": f"{route} took it.", "receipt": "A receipt says so."}
    return str(step["reason"] or words.get(step["reason_code"], step["reason_code"]))


def explanation(row: dict[str, Any], device: Device | None, now: datetime) -> str:
    """Return why a message is where it is, what comes next by itself, and what a person can do; "": it has its end.

    Args:
        row: the message.
        device: the device that sends it; None: it was removed.
        now: the present moment.
    """
    match row["state"]:
        case "queued":
            return _why_it_waits(row, device, now)
        case "sending":
            return "It is being sent. Should nobody answer, it is looked up what became of it."
        case "in_doubt":
            return _what_is_known(row, device)
    return ""


def _why_it_waits(row: dict[str, Any], device: Device | None, now: datetime) -> str:
    if device is None:
        return "It waits no longer: its device was removed, so it is being cancelled."
    if row["not_before"] > now:
        return f"It waits for its time: {shown(row['not_before'])}, {ago(row['not_before'])}."
    held_below = device.held_below
    if device.is_held and (held_below is None or row["priority"] < held_below):
        return f"It waits, as all of {device.name} does, until {shown(device.held_until)}: {device.held_reason}"
    if device.state not in _SENDS:
        then = f" Next attempt {ago(device.next_attempt_at)}." if device.next_attempt_at else ""
        advice = advice_for(device)
        can = f" You can: {advice}" if advice else ""
        return f"It waits for {device.name}, which is {device.state}: {device.reason}{then}{can}"
    return f"It waits for its turn: {device.name} sends one message after the other."


def _what_is_known(row: dict[str, Any], device: Device | None) -> str:
    number = row["id"]
    # It may have been in doubt before, and sent again by somebody's word; a receipt for either settles it.
    names = [each["external_id"] for each in row.get("attempts_made", ()) if each["external_id"]]
    if row["platform"] is None and (names or row["external_id"]):
        known = (
            f"It may have arrived: it was to be {' or '.join(names) or row['external_id']} at WhatsApp, and nobody "
            "confirmed it. A receipt for it, which may come at any time, settles it by itself."
        )
    elif row["platform"] is None:
        known = "It may have arrived, and what WhatsApp would call it is not known: no receipt can settle it."
    else:
        known = f"It may have arrived: {row['platform']} did not give a clear answer. A look-up or report may still."
    again = f", or run.py resolve {number} --resend if it did not" if device is not None else ""
    return (
        f"{known}\nAsk {row['recipient']}, or look into the chat: run.py resolve {number} --sent if it is there{again}."
    )


@reported
def cancel(message_id: MessageId, as_json: AsJson = False) -> None:
    """Cancel a message that is still queued."""
    with Fleet(current_home().path) as fleet:
        fleet.cancel(message_id)
    _tell_settled(message_id, "cancelled", f"Cancelled message {message_id}.", as_json=as_json)


@reported
def resolve(
    message_id: MessageId,
    sent: Annotated[bool, typer.Option("--sent", help="It arrived.")] = False,
    resend: Annotated[bool, typer.Option("--resend", help="It did not arrive; send it again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Settle an in-doubt message by your own knowledge."""
    if sent == resend:
        raise UsageWrong("Say either --sent or --resend.", "Ask the recipient whether it arrived.")
    with Fleet(current_home().path) as fleet:
        fleet.resolve(message_id, sent=sent)
    state, words = ("sent", "sent") if sent else ("queued", "queued again")
    _tell_settled(message_id, state, f"Message {message_id} is {words}.", as_json=as_json)


def _tell_settled(message_id: int, state: str, sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": message_id, "state": state})
    else:
        out.print(sentence)
