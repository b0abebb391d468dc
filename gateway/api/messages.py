"""/v1/messages: send one or many, show one with its story, list, cancel, settle a doubt."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Header, Query, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, model_validator

from actors.asking import new_key
from actors.messages import CancelMessage, Media, MessageAccepted, MessageRejected, ResolveMessage, SendMessage
from actors.router import BATCH_LIMIT
from actors.validation import TEXT_LIMIT, Problem, normalise_recipient
from config.errors import NotFound, Refused
from gateway.api.description import (
    PAGE,
    AfterId,
    Body,
    DeviceName,
    Limit,
    MessageId,
    OfDevice,
    Page,
    Text,
    examples,
    page,
    problems,
)
from gateway.callers import Caller, Reader, Sender
from gateway.context import Context, Here
from gateway.tracing import requests as tracing
from storage import outbox, pages

State = Literal["queued", "sending", "sent", "delivered", "read", "failed", "expired", "cancelled", "in_doubt"]

_NOT_FOUND = HTTPStatus.NOT_FOUND
_CONFLICT = HTTPStatus.CONFLICT
_SETTLING = problems(_NOT_FOUND, _CONFLICT, change=True)
_KEY_LIMIT = 255
#: A batch's key is followed by each message's position in it.
_BATCH_KEY_LIMIT = 200
#: Times that every calendar here can tell.
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)

_routes = APIRouter(prefix="/messages", tags=["messages"])


def _sensible(moment: datetime) -> datetime:
    if not _EARLIEST <= moment <= _LATEST:
        raise ValueError("it is not between the years 2000 and 9000")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_sensible)]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=_KEY_LIMIT,
        description="The same key never sends twice: a repeated request gets the first one's answer.",
    ),
]


class MediaReference(Body):
    """A file to send: at a public https URL, or uploaded (`POST /v1/uploads`) for WhatsApp devices."""

    url: Text | None = Field(None, min_length=1, max_length=2048, examples=["https://example.com/menu.pdf"])
    upload: str | None = Field(None, pattern="^[0-9a-f]{32}$", description="The id of an upload.")
    kind: Literal["", "image", "document", "video", "audio"] = Field("", description="Empty: by its name.")
    name: Text = Field("", max_length=200, description="The file name people see.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.url is None) == (self.upload is None):
            raise ValueError("give one of url and upload")
        return self


class NewMessage(Body):
    """A message to send."""

    device: DeviceName
    to: Text = Field(min_length=1, max_length=100, examples=["+60123456789"], description="A number, or a group's JID.")
    text: Text = Field("", max_length=TEXT_LIMIT, description="The text, or the media's caption.")
    media: MediaReference | None = None
    template: bool = Field(False, description="The text is the JSON of a template message.")
    priority: int = Field(0, ge=-100, le=100, description="Higher overtakes on the device's lane.")
    not_before: Moment | None = Field(None, description="Send it then.")
    expires_at: Moment | None = Field(None, description="Not sent later than then.")


class NewMessageInBatch(NewMessage):
    """A message of a batch."""

    idempotency_key: Text | None = Field(None, min_length=1, max_length=_KEY_LIMIT)


class Batch(Body):
    """Messages to send, committed together."""

    messages: list[NewMessageInBatch] = Field(min_length=1, max_length=BATCH_LIMIT)


class Accepted(BaseModel):
    """The message is committed under this id."""

    id: int
    repeated: bool = Field(description="The idempotency key was known already; nothing new was accepted.")


class BatchResult(BaseModel):
    """What came of one message of a batch: `id`, or `code` and the words for it."""

    id: int | None = None
    repeated: bool | None = None
    code: str | None = None
    detail: str | None = None
    next_step: str | None = None


class BatchAccepted(BaseModel):
    """What came of a batch: one result for each message, in order."""

    accepted: int
    refused: int
    results: list[BatchResult]


class MessageItem(BaseModel):
    """A message."""

    id: int
    device: str
    platform: str
    recipient: str
    kind: str
    body: str
    media_name: str
    state: State
    reason_code: str
    reason: str
    priority: int
    attempts: int
    external_id: str | None
    idempotency_key: str | None
    not_before: datetime | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Step(BaseModel):
    """A state that a message came into."""

    at: datetime
    state: str
    reason_code: str
    reason: str


class Attempt(BaseModel):
    """An attempt to send a message."""

    number: int
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    reason: str


class MessageStory(MessageItem):
    """A message with its story."""

    story: list[Step]
    attempts_made: list[Attempt]


class Resolution(Body):
    """How a doubt is settled."""

    sent: bool = Field(description="True: it arrived. False: it did not, and is sent again.")


class Settled(BaseModel):
    """The state of the message now."""

    id: int
    state: str


def router(_context: Context) -> APIRouter:
    """Return the addresses of messages."""
    return _routes


def _send_message(new: NewMessage, key: str | None) -> SendMessage:
    media = None
    if new.media is not None:
        url = new.media.url or f"upload:{new.media.upload}"
        media = Media(url, new.media.kind, new.media.name)
    return SendMessage(
        device=new.device,
        to=new.to,
        text=new.text,
        media=media,
        template=new.template,
        idempotency_key=new_key() if key is None else key,
        priority=new.priority,
        not_before=new.not_before,
        expires_at=new.expires_at,
        trace=tracing.current.get(),
    )


def _without_others(answer: MessageRejected, caller: Caller) -> MessageRejected:
    """Return a rejection as this caller may read it: it may name another's message."""
    if answer.code == "key_conflict" and caller.devices is not None:
        reason = "The idempotency key belongs to another message, which says something else."
        return MessageRejected(answer.code, reason, answer.request, answer.next_step)
    return answer


@_routes.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Accepted,
    responses=problems(_NOT_FOUND, _CONFLICT, change=True),
    openapi_extra=examples(
        text={"device": "shop-1", "to": "+60123456789", "text": "Your order is ready."},
        media={
            "device": "shop-1",
            "to": "+60123456789",
            "text": "Our menu",
            "media": {"url": "https://example.com/menu.pdf"},
        },
    ),
)
async def send_message(new: NewMessage, here: Here, caller: Sender, key: Key = None) -> Response:
    """Send a message. When this answers 202, it is committed: it is sent once, or its story says why not."""
    caller.check_name(new.device)
    try:
        accepted = await here.router.send(_send_message(new, key))
    except Refused as refused:
        if refused.code == "key_conflict" and caller.devices is not None:
            sentence = "The idempotency key belongs to another message, which says something else."
            raise Refused(sentence, refused.next_step, code=refused.code) from None
        raise
    body = json.dumps({"id": accepted.id, "repeated": accepted.repeated})
    headers = {"Location": f"/v1/messages/{accepted.id}"}
    return Response(body, HTTPStatus.ACCEPTED, headers, "application/json")


@_routes.post(
    "/batch",
    response_model=BatchAccepted,
    responses=problems(change=True),
    openapi_extra=examples(
        two={
            "messages": [
                {"device": "shop-1", "to": "+60123456789", "text": "It is ready.", "idempotency_key": "order-1"},
                {"device": "shop-1", "to": "+60198887777", "text": "It is late.", "idempotency_key": "order-2"},
            ]
        }
    ),
)
async def send_batch(batch: Batch, here: Here, caller: Sender, key: Key = None) -> Response:
    """Send up to 500 messages, committed together. With an Idempotency-Key the whole batch may be sent again."""
    if key is not None and len(key) > _BATCH_KEY_LIMIT:
        sentence = f"The idempotency key of a batch has at most {_BATCH_KEY_LIMIT} characters."
        raise Refused(sentence, "Use a shorter one.", code="bad_key")
    results: list[dict[str, Any]] = [{} for _ in batch.messages]
    wanted: list[tuple[int, SendMessage]] = []
    for position, new in enumerate(batch.messages):
        own_key = new.idempotency_key or (f"{key}/{position}" if key is not None else None)
        try:
            caller.check_name(new.device)
        except NotFound as error:
            results[position] = {"code": error.code, "detail": error.sentence, "next_step": error.next_step}
        else:
            wanted.append((position, _send_message(new, own_key)))
    answers = await here.router.send_batch([message for _, message in wanted]) if wanted else []
    for (position, _), answer in zip(wanted, answers, strict=True):
        if isinstance(answer, MessageAccepted):
            results[position] = {"id": answer.id, "repeated": answer.repeated}
        else:
            told = _without_others(answer, caller)
            results[position] = {"code": told.code, "detail": told.reason, "next_step": told.next_step}
    accepted = sum("id" in result for result in results)
    body = {"accepted": accepted, "refused": len(results) - accepted, "results": results}
    return Response(json.dumps(body), media_type="application/json")


@_routes.get("", response_model=Page[MessageItem], responses=problems())
async def list_messages(
    here: Here,
    caller: Reader,
    device: OfDevice = None,
    state: Annotated[State | None, Query(examples=["in_doubt"])] = None,
    to: Annotated[Text | None, Query(min_length=1, max_length=100, description="Only this recipient.")] = None,
    after: AfterId = None,
    limit: Limit = PAGE,
) -> Any:
    """List messages, newest first."""
    recipient = None
    if to is not None:
        try:
            recipient = normalise_recipient(to, here.settings.default_region)
        except Problem as found:
            raise Refused(found.reason, found.next_step, code=found.code) from None
    rows = await here.read(
        lambda connection: pages.messages(
            connection,
            before=pages.NEWEST if after is None else after,
            limit=limit + 1,
            device_ids=caller.device_ids,
            device=device,
            state=state,
            recipient=recipient,
        )
    )
    return page(rows, limit)


@_routes.get("/{message_id:int}", response_model=MessageStory, responses=problems(_NOT_FOUND))
async def show_message(message_id: MessageId, here: Here, caller: Reader) -> Any:
    """Show a message with its story and its attempts."""
    row = await here.read(lambda connection: outbox.message(connection, message_id))
    if row is None or not caller.sees(row["device_id"]):
        raise _unknown(message_id)
    row["platform"] = row["platform"] or "whatsapp"
    return row


@_routes.post(
    "/{message_id:int}/cancel", response_model=Settled, responses=problems(_NOT_FOUND, _CONFLICT, change=True)
)
async def cancel_message(message_id: MessageId, here: Here, caller: Sender) -> Any:
    """Cancel a message that is still queued."""
    await _check_visible(here, caller, message_id)
    state = await here.router.request(CancelMessage(message_id))
    return {"id": message_id, "state": state}


@_routes.post(
    "/{message_id:int}/resolve",
    response_model=Settled,
    responses=problems(_NOT_FOUND, _CONFLICT, change=True),
    openapi_extra=examples(it_arrived={"sent": True}, it_did_not={"sent": False}),
)
async def resolve_message(message_id: MessageId, how: Resolution, here: Here, caller: Sender) -> Any:
    """Settle a message in doubt by your own knowledge: it arrived, or it did not and is sent again."""
    await _check_visible(here, caller, message_id)
    state = await here.router.request(ResolveMessage(message_id, how.sent))
    return {"id": message_id, "state": state}


async def _check_visible(here: Context, caller: Caller, message_id: int) -> None:
    row = await here.read(lambda connection: outbox.message(connection, message_id))
    if row is None or not caller.sees(row["device_id"]):
        raise _unknown(message_id)


def _unknown(message_id: int) -> NotFound:
    return NotFound(f"There is no message {message_id}.", "See GET /v1/messages.", code="unknown_message")
