"""How the router is asked, whoever asks: again under the same id until it answers, and what its refusals mean."""

from __future__ import annotations

import dataclasses
import secrets
import time
from typing import Any

from actors.messages import BatchAnswer, MessageRejected, RequestRefused, SendMessage
from config.errors import NoAnswer, Refused, SalamanderError, StorageUnavailable

#: How long one question waits for its answer before it is asked again, in seconds.
ASK_SECONDS = 5.0
#: The pause before asking again while the router or PostgreSQL is away, in seconds.
PAUSE_SECONDS = 0.25
#: Refusals that mean "not now": nothing was changed and asking again is right.
_TRANSIENT = frozenset({"storage_unavailable"})


def keyed(message: SendMessage) -> SendMessage:
    """Return a message that may be asked for twice: one without an idempotency key gets one of its own."""
    if message.idempotency_key is not None:
        return message
    return dataclasses.replace(message, idempotency_key=new_key())


def new_key() -> str:
    """Return an idempotency key for a message that came without one.

    It begins with the time, so that keys of one time lie together in the index: random ones would have PostgreSQL
    write a page of it for each message.
    """
    return f"auto-{time.time_ns():016x}-{secrets.token_hex(10)}"


def is_transient(answer: Any) -> bool:
    """Return whether an answer means "not now"."""
    if isinstance(answer, BatchAnswer):
        return any(is_transient(each) for each in answer.answers)
    return isinstance(answer, MessageRejected | RequestRefused) and answer.code in _TRANSIENT


def refusal_of(answer: Any) -> SalamanderError:
    """Return the error that an answer other than the hoped-for one means."""
    if isinstance(answer, MessageRejected | RequestRefused):
        kind = StorageUnavailable if answer.code in _TRANSIENT else Refused
        return kind(answer.reason, answer.next_step, code=answer.code)
    return NoAnswer(f"The router answered something unexpected ({type(answer).__name__}).", "See run.py logs.")


def no_answer(seconds: float) -> NoAnswer:
    """Return the error of a router that did not answer within ``seconds``."""
    return NoAnswer(f"The router did not answer within {seconds:g} seconds.", "See run.py status and run.py logs.")
