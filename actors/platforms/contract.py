"""What a platform is to us: its limits, its credentials, and how one message becomes one request.

A contract is pure: it opens no socket, reads no clock and keeps no state. ``transport.py`` moves the bytes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, quote_plus, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.platforms.outcomes import AccountCheck, Outcome

#: Every kind of message there is; a platform's ``Limits.kinds`` names those it takes.
KINDS = ("text", "image", "document", "video", "audio")


@dataclass(frozen=True)
class PlatformMessage:
    """One message on its way to a platform.

    Attributes:
        reference: our own name for it, unique among everything that ever goes through the account
            (so that a provider that keeps references can be asked about it); letters, digits, ``-``, ``_``.
        to: the recipient as E.164 digits without ``+``, or a group's id when ``to_group``.
        kind: one of ``KINDS``.
        body: the text, or the caption of media.
        media_url: where the provider fetches the media from.
        media_name: the file name people see, where a platform can show one.
        to_group: ``to`` is a group's id.
    """

    reference: str
    to: str
    kind: str
    body: str = ""
    media_url: str = ""
    media_name: str = ""
    to_group: bool = False


@dataclass(frozen=True)
class Account:
    """A device's account at a platform, as ``checks.check_account`` accepted it."""

    base_url: str
    credentials: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class CredentialField:
    """One credential a platform asks for."""

    name: str
    title: str
    secret: bool = True
    required: bool = True


@dataclass(frozen=True)
class Limits:
    """What a platform takes. None: its documentation names no limit.

    Attributes:
        kinds: the kinds of message.
        text_characters: the longest text.
        caption_characters: the longest caption.
        captioned_kinds: the kinds that may carry a caption.
        media_bytes: the largest media; the provider measures it, as only it fetches the file.
        media_suffixes: the file types of a kind; a kind that is missing takes any.
        groups: a group may be the recipient.
    """

    kinds: frozenset[str]
    text_characters: int | None = None
    caption_characters: int | None = None
    captioned_kinds: frozenset[str] = frozenset()
    media_bytes: int | None = None
    media_suffixes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    groups: bool = False


@dataclass(frozen=True)
class Timeouts:
    """How long a platform gets, in seconds: to be reached, and to answer once reached."""

    connect_seconds: float
    reply_seconds: float

    @property
    def total_seconds(self) -> float:
        """The longest one request may take from its start to its reply's last byte."""
        return self.connect_seconds + self.reply_seconds


@dataclass(frozen=True, repr=False)
class Request:
    """One HTTP request.

    Attributes:
        method: GET or POST.
        url: the whole URL; it may hold a credential, so it is never shown.
        headers: the headers.
        body: the body, or None.
        reference: the reference under which the provider can be asked about this send later, or None.
        secrets: the credential values inside, to be struck out of whatever a provider writes back.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    reference: str | None = None
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = urlsplit(self.url)
        return f"<Request {self.method} {parts.scheme}://{parts.hostname} {len(self.body or b'')} bytes>"


class PlatformContract(ABC):
    """One platform: a subclass, in a module of its own, that binds an instance to ``CONTRACT``.

    Attributes:
        name: the platform's machine name; also its module's name.
        title: its name for people.
        documentation: where its API is documented.
        limits: what it takes.
        credential_fields: what an account needs.
        default_base_url: the API's address, or None when it differs by account.
        base_path: the path that the API's own base URLs end with ("" or "/api").
        allowed_hosts: the hosts a base URL may name; ``*.example.com`` stands for one label more, ``*`` for
            any host (software that customers run themselves).
        timeouts: how long it gets.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    documentation: ClassVar[str]
    limits: ClassVar[Limits]
    credential_fields: ClassVar[tuple[CredentialField, ...]]
    default_base_url: ClassVar[str | None]
    base_path: ClassVar[str]
    allowed_hosts: ClassVar[tuple[str, ...]]
    timeouts: ClassVar[Timeouts]

    @abstractmethod
    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the one request that sends ``message``, which ``checks.check_message`` accepted."""

    @abstractmethod
    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what a reply to ``build_request`` says. Any input gives an outcome; nothing raises."""

    def build_lookup(self, reference: str, account: Account) -> Request | None:
        """Return the request that asks about an earlier send; None: the platform cannot be asked."""
        del reference, account
        return None

    def parse_lookup(self, status: int, headers: Mapping[str, str], body: bytes, reference: str) -> Outcome | None:
        """Return what became of the send called ``reference``.

        Returns:
            ``Accepted`` or ``Rejected`` settle it; None: the provider knows nothing of it (no proof while its
            report may lag behind); ``Unknown``: the look-up itself failed.
        """
        del status, headers, body, reference
        return None

    def build_check(self, account: Account) -> Request | None:
        """Return the request that asks how the account is, sending nothing; None: there is none."""
        del account
        return None

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return what a reply to ``build_check`` says; None: the platform has no such check."""
        del status, headers, body
        return None

    def request_for(
        self,
        account: Account,
        method: str,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        reference: str | None = None,
    ) -> Request:
        """Return a request under the account's base URL, its secrets named so that they can be struck out."""
        body = None if form is None else urlencode(form).encode("ascii")
        # Uncompressed, a reply is as large as it says; nobody gains from compressing 200 bytes.
        every = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        if form is not None:
            every["Content-Type"] = "application/x-www-form-urlencoded"
        return Request(
            method=method,
            url=account.base_url + path + (f"?{urlencode(query)}" if query else ""),
            headers=every,
            body=body,
            reference=reference,
            secrets=self.secrets_of(account.credentials),
        )

    def secrets_of(self, credentials: Mapping[str, str]) -> tuple[str, ...]:
        """Return every spelling in which a secret of ``credentials`` may appear in a URL or a reply."""
        values = {
            credentials[known.name] for known in self.credential_fields if known.secret and credentials.get(known.name)
        }
        spellings = values | {quote(value, safe="") for value in values} | {quote_plus(value) for value in values}
        return tuple(sorted(spellings, key=len, reverse=True))


def host_is_allowed(host: str, patterns: tuple[str, ...]) -> bool:
    """Say whether ``host`` (lower case) is one of ``patterns``."""
    for pattern in patterns:
        if pattern in {"*", host}:
            return True
        if pattern.startswith("*.") and re.fullmatch(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?" + re.escape(pattern[1:]), host):
            return True
    return False
