"""What the API's description has in common: problems, pages, names."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.problems import MEDIA_TYPE
from storage.pages import NEWEST
from storage.text import is_storable

Item = TypeVar("Item")

#: How many items a page has when nobody says, and at most.
_PAGE = 50
_LARGEST_PAGE = 500
_EVERYWHERE = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("it holds NUL, or is not valid Unicode")
    return text


#: Text that PostgreSQL can hold.
Text = Annotated[str, AfterValidator(_storable)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
#: A device's name, in a body, in a path and in a query.
DeviceName = Annotated[str, Field(pattern=NAME_PATTERN, examples=["shop-1"])]
InPath = Annotated[str, Path(pattern=NAME_PATTERN, description="The device's name.", examples=["shop-1"])]
OfDevice = Annotated[str | None, Query(pattern=NAME_PATTERN, description="Only this device.", examples=["shop-1"])]
MessageId = Annotated[int, Path(ge=1, le=NEWEST, description="The message's id.", examples=[1])]
Limit = Annotated[int, Query(ge=1, le=_LARGEST_PAGE, description="How many items a page has, at most.")]
#: Where a page begins, for lists whose places are ids.
AfterId = Annotated[int | None, Query(ge=0, le=NEWEST, description="`next` of the page before.")]
PAGE = _PAGE


class Body(BaseModel):
    """A request's body. What it does not know it refuses, so that a misspelt field is noticed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str
    problem: str


class Problem(BaseModel):
    """Why a request was not carried out (RFC 9457)."""

    type: str
    title: str = Field(description="The status in words.")
    status: int
    code: str = Field(description="A stable machine name.", examples=["unknown_device"])
    detail: str = Field(description="What happened, in a sentence.")
    next_step: str = Field(description="What you can do about it.")
    errors: list[FieldProblem] | None = Field(None, description="Each field that is not as it must be.")


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next: str | None = Field(description="Where the next page begins: give it as `after`. Null: this is the last one.")


def page(rows: list[dict[str, Any]], limit: int, place: str = "id") -> dict[str, Any]:
    """Return a page of rows, of which one more than ``limit`` was asked for."""
    items = rows[:limit]
    return {"items": items, "next": str(items[-1][place]) if len(rows) > limit else None}


def problems(*statuses: HTTPStatus, change: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of an operation's problems: these, and those that any operation may have.

    Args:
        statuses: what is particular to the operation.
        change: it goes through the router, which may not answer in time.
    """
    every = {*_EVERYWHERE, *statuses}
    if change:
        every |= {HTTPStatus.GATEWAY_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        int(status): {"description": status.phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted(every)
    }


def examples(**bodies: Any) -> dict[str, Any]:
    """Return the documentation of an operation's body by examples, each under its name. Tests send them all."""
    told = {name: {"summary": name.replace("_", " "), "value": body} for name, body in bodies.items()}
    return {"requestBody": {"content": {"application/json": {"examples": told}}}}
