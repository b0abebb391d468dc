"""The router actor: accepts every message, commits it to the outbox, and dispatches it by its device's platform.

Nothing is accepted before it is committed. The dispatch is a hint to the actor that sends for the device: a WhatsApp
shard when the device has no platform, that platform's actor otherwise. Losing a hint costs a second, never a message.

It has no thread and waits for nothing but PostgreSQL, and for that only briefly.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from actors import uploads
from actors.child import SupervisedChild
from actors.directory import Directory
from actors.endpoint_requests import endpoint_networks
from actors.messages import (
    BatchAnswer,
    Done,
    Media,
    MessageAccepted,
    MessageRejected,
    RequestRefused,
    Routes,
    SendBatch,
    SendMessage,
    StopChild,
    WorkNoted,
    WorkWaiting,
)
from actors.requests import HANDLERS, Office, Request
from actors.routes import check_route
from actors.tracing import Tracing
from actors.validation import Problem, check_message
from config.daemon import loopback_endpoint
from config.errors import Refused, SalamanderError, StorageUnavailable
from config.logging import logger
from storage import care, handled, outbox
from storage.credentials import CredentialSeal
from storage.database import SUPERVISOR_PATIENCE, Connection, SingleConnection, direct_url
from storage.devices import DeviceLane
from storage.outbox import Accepted, KeyConflict, NewMessage, NotAccepted

#: Messages in one batch, at most: larger ones would hold up everybody else.
BATCH_LIMIT = 500
#: An actor that has not noted a hint for this long gets the next one all the same, in seconds.
_HINT_PATIENCE_SECONDS = 5.0


_OPTED_OUT = Problem(
    "opted_out",
    "The recipient has opted out.",
    "Nothing is sent to it. Should it have asked for messages again: run.py opt-out remove NUMBER.",
)


class Router(SupervisedChild):
    """Accepts, commits, dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self._database = SingleConnection(direct_url(self.home, self.settings), patience=SUPERVISOR_PATIENCE)
        self._seal = CredentialSeal(self.home.credentials_key)
        self._loopback = loopback_endpoint(self.home) is not None
        self._directory = Directory()
        self._routes = Routes({}, {})
        self._hints = Hints()
        self._tracing = Tracing.of(self.home, self.settings)
        self._has_begun = False

    # --- life --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Let lanes that a rule holds ask the rules again (the settings may have changed), and tidy up."""
        # Started while PostgreSQL is away, it does so when that is back.
        with contextlib.suppress(StorageUnavailable):
            with self._database.transaction() as connection:
                care.release_holds(connection)
                handled.forget(connection)
                if self._tracing is not None:
                    self._tracing.begin(connection)
            self._has_begun = True

    def on_wakeup(self, payload: Any) -> None:
        """Report life, and look whether a hint went unnoted."""
        super().on_wakeup(payload)
        if not self._has_begun:
            self.begin()
        self._send_hints()

    def on_stop_child(self, _message: StopChild, _sender: Any) -> None:
        """End; what was accepted is committed already."""
        self._database.close()
        os._exit(0)

    # --- messages ----------------------------------------------------------------------------------------

    def on_send_message(self, message: SendMessage, sender: Any) -> None:
        """Accept or reject one message."""
        self.send(sender, self._accept([message])[0])
        self._send_hints()

    def on_send_batch(self, batch: SendBatch, sender: Any) -> None:
        """Accept or reject each message of a batch; what is accepted is committed together."""
        if len(batch.messages) > BATCH_LIMIT:
            reason = f"A batch holds at most {BATCH_LIMIT} messages."
            self.send(sender, RequestRefused("batch_too_large", reason, batch.request, "Send smaller batches."))
            return
        self.send(sender, BatchAnswer(tuple(self._accept(batch.messages)), batch.request))
        self._send_hints()  # after the answer: somebody waits for that

    def _accept(self, messages: Sequence[SendMessage]) -> list[MessageAccepted | MessageRejected]:
        """Validate, commit, note whom to tell; one answer for each message."""
        tracing, taken_at = self._tracing, datetime.now(UTC)
        try:
            # All are accepted by one statement; a transaction around it would only cost time, unless there is another.
            with self._database.statements() if tracing is None else self._database.transaction() as connection:
                answers = self._accepted(connection, messages, range(len(messages)))
                if tracing is not None:
                    tracing.note(connection, [(messages[place], told) for place, told in answers.items()], taken_at)
        except Exception as error:  # noqa: BLE001 - whoever asks must be answered, whatever happened
            told = _told(error)
            return [MessageRejected(told.code, told.sentence, message.request, told.next_step) for message in messages]
        return [answers[position] for position in range(len(messages))]

    def _accepted(
        self, connection: Connection, messages: Sequence[SendMessage], positions: Iterable[int]
    ) -> dict[int, MessageAccepted | MessageRejected]:
        """Return the answers to the messages at these positions."""
        answers: dict[int, MessageAccepted | MessageRejected] = {}
        lanes = self._directory.find(connection, (messages[position].device for position in positions))
        fresh: list[tuple[SendMessage, int, NewMessage]] = []
        for position in positions:
            message = messages[position]
            try:
                fresh.append((message, position, self._checked(message, lanes.get(message.device))))
            except Problem as found:
                answers[position] = _rejected(message, found)
        accepted = outbox.accept(connection, [new for _, _, new in fresh]) if fresh else []
        gone: list[int] = []
        for (message, position, _), answer in zip(fresh, accepted, strict=True):
            if answer is NotAccepted.DEVICE_GONE:
                self._directory.forget(message.device)
                gone.append(position)
            else:
                answers[position] = _answer(message, answer)
        self._note_work({lanes[message.device] for message, position, _ in fresh if position in answers})
        if gone:  # there may be another of that name by now
            answers |= self._accepted(connection, messages, gone)
        return answers

    def _checked(self, message: SendMessage, lane: DeviceLane | None) -> NewMessage:
        """Return the message in its final form, or raise :class:`Problem`."""
        if lane is None:
            raise Problem("unknown_device", f"There is no device named {message.device!r}.", "See run.py device list.")
        if message.media is not None:
            message = replace(message, media=self._media_of(message.media))
        checked = check_message(
            message, region=self.settings.default_region, loopback_media=self._loopback, now=datetime.now(UTC)
        )
        check_route(lane.platform, checked)
        return NewMessage(
            device_id=lane.device_id,
            recipient=checked.recipient,
            kind=checked.kind,
            body=checked.body,
            media_url=checked.media_url,
            media_name=checked.media_name,
            idempotency_key=message.idempotency_key,
            priority=message.priority,
            not_before=message.not_before,
            expires_at=message.expires_at,
        )

    def _media_of(self, media: Media) -> Media:
        """Return media with what is known of an uploaded file, which is kept from now on."""
        upload_id = uploads.id_in(media.url)
        if upload_id is None:
            return media
        upload = uploads.find(self.home, upload_id)
        if upload is None:
            raise Problem("unknown_upload", f"There is no uploaded file {upload_id}.", "Upload it again.")
        uploads.named_now(self.home, upload_id)
        return Media(media.url, media.kind, media.name or upload.name)

    def _note_work(self, concerned: Iterable[DeviceLane]) -> None:
        """Note that the actor that sends for each lane has work."""
        for lane in concerned:
            if lane.platform is None:
                target = self._routes.shards.get(lane.device_id)
            else:
                target = self._routes.platforms.get(lane.platform)
            if target is not None:
                self._hints.add(target, lane.device_id)

    def _send_hints(self) -> None:
        for target, device_ids in self._hints.due():
            self.send(target, WorkWaiting(device_ids))

    def on_work_noted(self, _message: WorkNoted, sender: Any) -> None:
        """Send the hints that gathered while the last one was on its way."""
        self._hints.noted(sender)
        self._send_hints()

    def on_routes(self, routes: Routes, _sender: Any) -> None:
        """Learn where messages go."""
        self._routes = routes
        self._hints = Hints()

    # --- other requests ----------------------------------------------------------------------------------

    def on_request(self, message: Request, sender: Any) -> None:
        """Do what was asked, once, and answer with what came of it, whatever that is."""
        networks = endpoint_networks(self.settings, loopback=self._loopback)
        office = Office(self.settings.default_region, self._seal, loopback=self._loopback, networks=networks)
        try:
            with self._database.transaction() as connection:
                answer = handled.find(connection, message.request)
                if answer is None:
                    answer = HANDLERS[type(message)](connection, message, office)
                    handled.note(connection, message.request, answer)
        except Exception as error:  # noqa: BLE001 - whoever asks must be answered, whatever happened
            told = _told(error)
            self.send(sender, RequestRefused(told.code, told.sentence, message.request, told.next_step))
            return
        for notice in office.notices:
            self._tell_parent(notice)
        self.send(sender, Done(message.request, answer))

    on_cancel_message = on_resolve_message = on_opt_out = on_opt_in = on_set_limits = on_request
    on_set_fallbacks = on_add_device = on_device_command = on_add_key = on_revoke_key = on_request
    on_recycle_shard = on_request
    on_add_endpoint = on_change_endpoint = on_remove_endpoint = on_try_endpoint = on_replay_deliveries = on_request

    def _tell_parent(self, message: object) -> None:
        if self.parent is not None:
            self.send(self.parent, message)


class Hints:
    """Hints on their way: at most one for each actor, so that a stuck one never clogs the router."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Any, set[int]]] = {}
        self._sent_at: dict[str, float] = {}

    def add(self, target: Any, device_id: int) -> None:
        """Note that ``target`` has work for a device."""
        self._waiting.setdefault(str(target), (target, set()))[1].add(device_id)

    def noted(self, target: Any) -> None:
        """Note that ``target`` has read its last hint."""
        self._sent_at.pop(str(target), None)

    def due(self) -> list[tuple[Any, tuple[int, ...]]]:
        """Return the hints that may go now."""
        now = time.monotonic()
        ready = []
        for key in list(self._waiting):
            sent_at = self._sent_at.get(key)
            if sent_at is None or now - sent_at > _HINT_PATIENCE_SECONDS:
                target, device_ids = self._waiting.pop(key)
                self._sent_at[key] = now
                ready.append((target, tuple(sorted(device_ids))))
        return ready


def _answer(message: SendMessage, answer: Accepted | KeyConflict | NotAccepted) -> MessageAccepted | MessageRejected:
    """Return how it is told what came of a message."""
    if isinstance(answer, Accepted):
        return MessageAccepted(answer.id, message.request, answer.repeated)
    if isinstance(answer, KeyConflict):
        problem = Problem(
            "key_conflict",
            f"The idempotency key belongs to message {answer.id}, which says something else.",
            "Use a new key for a new message.",
        )
        return _rejected(message, problem)
    return _rejected(message, _OPTED_OUT)


def _rejected(message: SendMessage, problem: Problem) -> MessageRejected:
    return MessageRejected(problem.code, problem.reason, message.request, problem.next_step)


def _told(error: Exception) -> SalamanderError:
    """Return an error as it is told to whoever asked; an unexpected one is logged with its traceback."""
    if isinstance(error, SalamanderError):
        return error
    if isinstance(error, Problem):
        return Refused(error.reason, error.next_step, code=error.code)
    logger().error("A request failed unexpectedly", exc_info=error)
    return SalamanderError(
        "The router failed at this request; nothing was changed.", "See run.py logs.", code="internal"
    )
