"""Signing in and out, and the first sign-in of all, by a code from the terminal."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import Request, Response

from config.durations import duration
from config.errors import Refused, SalamanderError
from config.logging import logger
from gateway.dashboard import lockout
from gateway.dashboard.desk import EXPIRY, Desk, go_to
from storage import users
from storage.passwords import (
    SHORTEST,
    check_password,
    code_hash,
    hash_password,
    is_dated,
    new_token,
    password_matches,
    token_hash,
    user_name,
)

if TYPE_CHECKING:
    from fastapi import APIRouter
    from starlette.datastructures import FormData

    from storage.database import Connection, Row

#: How long a sign-in form is good, in seconds.
_FORM_SECONDS = 3600.0
#: How refusals are answered; any other is about what was typed.
_STATUS = {"too_many_requests": HTTPStatus.TOO_MANY_REQUESTS, "not_signed_in": HTTPStatus.UNAUTHORIZED}


def add_routes(routes: APIRouter, desk: Desk) -> None:
    """Add the addresses of signing in and out."""
    context = desk.context

    async def show(
        request: Request, status: int = 200, error: SalamanderError | None = None, name: str = ""
    ) -> Response:
        """Show the form: the first user's while there is nobody, else the one for those who are known."""
        first = not await context.read(users.exist)
        token = request.cookies.get(desk.form_cookie) or new_token()
        target = _own_path(request.query_params.get("next", "/"))
        response = await desk.page(
            request,
            "sign_in.html",
            status=status,
            first=first,
            form_proof=desk.proof(token),
            next=target,
            error=error,
            name=name,
            shortest=SHORTEST,
        )
        desk.set_cookie(request, response, desk.form_cookie, token, _FORM_SECONDS)
        return response

    async def welcome(request: Request, user_id: int, target: str) -> Response:
        """Begin a session and go on."""
        token = new_token()
        await context.read(lambda connection: users.open_session(connection, user_id, token_hash(token), EXPIRY))
        response = go_to(target)
        desk.set_cookie(request, response, desk.session_cookie, token, EXPIRY.longest_seconds)
        response.delete_cookie(desk.form_cookie, httponly=True, samesite="strict")
        return response

    async def admit(request: Request, name: str) -> tuple[bytes, bytes]:
        """Note a try as a failure until it is none, and return its subjects.

        Raises:
            Refused: there were too many; this one was not looked at.
        """
        peer = request.client.host if request.client is not None else "unknown"
        address = lockout.address_of(peer, request.headers.get("x-forwarded-for", ""))
        subjects = (lockout.name_subject(name), lockout.address_subject(address))

        def note(connection: Connection) -> float:
            users.lock_subjects(connection, subjects)
            failures = users.failures(connection, subjects, lockout.WINDOW_SECONDS)
            seconds = lockout.locked_for(*subjects, failures, datetime.now(UTC))
            if not seconds:
                users.note_failures(connection, subjects, lockout.WINDOW_SECONDS)
            return seconds

        seconds = await context.read(note)
        if seconds:
            logger().warning("Sign-ins are locked after too many failures", address=address)
            raise Refused(
                "There were too many failed sign-ins.", f"Try again in {duration(seconds)}.", code="too_many_requests"
            )
        return subjects

    @routes.get("/sign-in")
    async def sign_in_form(request: Request) -> Response:
        return await show(request)

    @routes.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        form = await desk.form(request, request.cookies.get(desk.form_cookie, ""))
        name, password = _text(form, "name"), _text(form, "password")
        try:
            subjects = await admit(request, name)
            row: Row | None = await context.read(lambda connection: users.by_name(connection, _as_name(name)))
            known = row["password_hash"] if row is not None else None
            if not await anyio.to_thread.run_sync(password_matches, password, known) or row is None:
                raise Refused("Name and password do not belong together.", "Try again.", code="not_signed_in")
        except Refused as error:
            return await show(request, _STATUS.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY), error, name)
        await context.read(lambda connection: users.take_back(connection, name=subjects[0], address=subjects[1]))
        if is_dated(row["password_hash"]):
            fresh = await anyio.to_thread.run_sync(hash_password, password)
            await context.read(lambda connection: users.rehash(connection, row["id"], fresh))
        logger().info("Signed in", user=row["name"], role=row["role"])
        return await welcome(request, row["id"], _own_path(_text(form, "next")))

    @routes.post("/first-sign-in")
    async def first_sign_in(request: Request) -> Response:
        form = await desk.form(request, request.cookies.get(desk.form_cookie, ""))
        typed, password = code_hash(_text(form, "code")), _text(form, "password")
        name = _text(form, "name")
        try:
            stored_name = user_name(name)
            check_password(password)
            if password != _text(form, "again"):
                raise Refused("The two passwords differ.", "Type the same twice.", code="bad_password")
            subjects = await admit(request, "first sign-in")
            hashed = await anyio.to_thread.run_sync(hash_password, password)
            if not await context.read(lambda connection: _let_in(connection, typed, stored_name, hashed)):
                raise Refused(
                    "The code is not right, or no longer good.",
                    "Get a fresh one: run.py dashboard",
                    code="not_signed_in",
                )
            row = await context.read(lambda connection: users.by_name(connection, stored_name))
        except Refused as error:
            return await show(request, _STATUS.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY), error, name)
        await context.read(lambda connection: users.take_back(connection, name=subjects[0], address=subjects[1]))
        assert row is not None  # noqa: S101 - it was just added
        logger().info("The first user signed in", user=stored_name)
        return await welcome(request, row["id"], "/")

    @routes.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        visitor = await desk.visitor(request)
        await desk.form(request, visitor.token)
        await context.read(lambda connection: users.close_session(connection, token_hash(visitor.token)))
        response = go_to("/sign-in")
        response.delete_cookie(desk.session_cookie, httponly=True, samesite="strict")
        return response


def _let_in(connection: Connection, typed: bytes, name: str, password_hash: str) -> bool:
    """Make whoever knows the code the first user; a wrong guess uses up one try."""
    if users.exist(connection):
        return False
    expected = users.try_first_code(connection)
    if expected is None or not hmac.compare_digest(expected, typed):
        return False
    users.add(connection, name, "operator", password_hash)
    users.forget_first_code(connection)
    return True


def _text(form: FormData, field: str) -> str:
    value = form.get(field, "")
    return value if isinstance(value, str) else ""


def _as_name(text: str) -> str:
    """Return a typed name as it is stored, or one that nobody has."""
    try:
        return user_name(text)
    except Refused:
        return ""


def _own_path(target: str) -> str:
    """Return a path to go on to, if it is one of ours and nobody else's address."""
    plain = target.isascii() and target.isprintable() and "\\" not in target
    return target if plain and target.startswith("/") and not target.startswith("//") else "/"
