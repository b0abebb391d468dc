"""What a platform is to us: its limits, its credentials, and how one message becomes one request.

A contract is pure: it opens no socket, reads no clock and keeps no state. ``transport.py`` moves the bytes.
"""

from __future__ import annotations

import base64
import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, quote_plus, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actors.platforms.documented import DocumentedReply, SuccessMarker
    from actors.platforms.limits import Limits, Timeouts
    from actors.platforms.outcomes import AccountCheck, Outcome
    from actors.platforms.webhooks import DeliveryReport


#: The field of a callback address's query that holds our own name for the message.
REFERENCE_FIELD = "reference"


@dataclass(frozen=True)
class PlatformMessage:
    """One message on its way to a platform.

    Attributes:
        reference: our own name for it, unique among everything that ever goes through the account
            (so that a provider that keeps references can be asked about it); letters, digits, ``-``, ``_``.
        to: the recipient as E.164 digits without ``+``, or a group's id when ``to_group``.
        kind: one of ``limits.KINDS``, or ``limits.TEMPLATE``.
        body: the text, the caption of media, or a template as ``templates.py`` describes it.
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
    """A device's account at a platform, as ``checks.check_account`` accepted it.

    Attributes:
        base_url: the API's address.
        credentials: the values of the contract's credential fields.
        callback_url: where a provider that takes an address with each message reports its stages; "": nowhere.
            It holds the webhook's secret.
    """

    base_url: str
    credentials: Mapping[str, str] = field(repr=False)
    callback_url: str = field(default="", repr=False)

    def callback_url_for(self, reference: str) -> str:
        """Return the callback address of one message, which brings our reference back."""
        return f"{self.callback_url}?{urlencode({REFERENCE_FIELD: reference})}"


@dataclass(frozen=True)
class CredentialField:
    """One credential a platform asks for, or a setting that belongs to the account as closely.

    Attributes:
        name: its machine name.
        title: what it is, for people.
        secret: it is never shown, not even while it is typed.
        required: no account is without.
        pattern: the regular expression its values match, where a wrong one would only show at the first send.
        example: an invented value.
        is_file: the value is the content of a file, which people name by its path.
    """

    name: str
    title: str
    secret: bool = True
    required: bool = True
    pattern: str | None = None
    example: str = ""
    is_file: bool = False


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
        read_by: the contract that reads the reply; None: the platform's own. (A platform whose replies are described
            by the account has one contract for each description.)
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    reference: str | None = None
    secrets: tuple[str, ...] = ()
    read_by: PlatformContract | None = None

    def __repr__(self) -> str:
        parts = urlsplit(self.url)
        return f"<Request {self.method} {parts.scheme}://{parts.hostname} {len(self.body or b'')} bytes>"


class PlatformContract(ABC):
    """One platform: a subclass, in a module of its own, that binds an instance to ``CONTRACT``.

    Attributes:
        name: the platform's machine name; also its module's name.
        title: its name for people.
        documentation: where its API is documented.
        notes: what people should know before they use it, a sentence each.
        limits: what it takes, and how fast.
        success: the one sign of a success that is documented.
        replies: the replies it is known to give, each with its outcome.
        credential_fields: what an account needs.
        default_base_url: the API's address, or None when it differs by account.
        base_path: the path that the API's own base URLs end with ("" or "/api").
        allowed_hosts: the hosts a base URL may name; ``*.example.com`` stands for one label more, ``*`` for
            any host (software that customers run themselves, on this machine too).
        timeouts: how long it gets.
        webhook_signature: how its webhooks are signed, in words; "": not at all, so that only a secret in the
            webhook's address tells them from anybody's.
        reports_reference: its webhooks bring our reference back, so that they settle a send whose reply was lost.
        takes_callback_url: a send names the address for its reports, and that brings our reference back.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    documentation: ClassVar[str]
    notes: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[Limits]
    success: ClassVar[SuccessMarker]
    replies: ClassVar[tuple[DocumentedReply, ...]] = ()
    credential_fields: ClassVar[tuple[CredentialField, ...]]
    default_base_url: ClassVar[str | None] = None
    base_path: ClassVar[str] = ""
    allowed_hosts: ClassVar[tuple[str, ...]]
    timeouts: ClassVar[Timeouts]
    webhook_signature: ClassVar[str] = ""
    reports_reference: ClassVar[bool] = False
    takes_callback_url: ClassVar[bool] = False

    # --- sending -----------------------------------------------------------------------------------------

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

    # --- the account -------------------------------------------------------------------------------------

    def refuse_account(self, account: Account) -> str:
        """Return why ``account`` cannot be used, in one sentence without any of its values; "": it can be."""
        del account
        return ""

    def build_check(self, account: Account) -> Request | None:
        """Return the request that asks how the account is, sending nothing; None: there is none."""
        del account
        return None

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return what a reply to ``build_check`` says; None: the platform has no such check."""
        del status, headers, body
        return None

    # --- how far a message came --------------------------------------------------------------------------

    def build_status(self, provider_id: str, recipient: str, account: Account) -> Request | None:
        """Return the request that asks how far an accepted message came; None: the platform cannot be asked."""
        del provider_id, recipient, account
        return None

    def parse_status(
        self, status: int, headers: Mapping[str, str], body: bytes, provider_id: str
    ) -> DeliveryReport | None:
        """Return what a reply to ``build_status`` says; None: nothing new, or nothing understood."""
        del status, headers, body, provider_id
        return None

    def answer_challenge(self, query: Mapping[str, str], account: Account) -> str | None:
        """Return the answer to the GET by which a provider tries a webhook's address; None: refuse it."""
        del query, account
        return None

    def verify_webhook(self, headers: Mapping[str, str], body: bytes, url: str, account: Account) -> bool:
        """Say whether a webhook may be believed, once its address held our secret.

        Args:
            headers: its headers.
            body: its body, byte for byte.
            url: the whole address it was sent to, as the provider knows it.
            account: the account it is about.
        """
        del headers, body, url, account
        return not self.webhook_signature

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, account: Account) -> list[DeliveryReport]:
        """Return the reports in a webhook that ``verify_webhook`` let pass. Whatever else it tells is left out."""
        del headers, body, account
        return []

    # --- what contracts share ----------------------------------------------------------------------------

    def request_for(
        self,
        account: Account,
        method: str,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        json_body: Any = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        reference: str | None = None,
    ) -> Request:
        """Return a request under the account's base URL, its secrets named so that they can be struck out."""
        # Uncompressed, a reply is as large as it says; nobody gains from compressing 200 bytes.
        every = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        body = None
        if form is not None:
            body = urlencode(form).encode("ascii")
            every["Content-Type"] = "application/x-www-form-urlencoded"
        elif json_body is not None:
            body = json.dumps(json_body, separators=(",", ":")).encode("ascii")
            every["Content-Type"] = "application/json"
        return Request(
            method=method,
            url=account.base_url + path + (f"?{urlencode(query)}" if query else ""),
            headers=every,
            body=body,
            reference=reference,
            # A provider that refuses the callback address repeats it, and it holds the webhook's secret.
            secrets=spellings(filter(None, [account.callback_url])) + self.secrets_of(account.credentials),
        )

    def secrets_of(self, credentials: Mapping[str, str]) -> tuple[str, ...]:
        """Return every spelling in which a secret of ``credentials`` may appear in a URL or a reply."""
        return spellings(
            credentials[known.name] for known in self.credential_fields if known.secret and credentials.get(known.name)
        )


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return every spelling in which secrets may appear in a URL or a reply, the longest first."""
    values = set(secrets)
    every = values | {quote(value, safe="") for value in values} | {quote_plus(value) for value in values}
    return tuple(sorted(every, key=len, reverse=True))


def path_part(value: str) -> str:
    """Return ``value`` as one segment of a path, whatever is in it."""
    return quote(value, safe="")


def basic_authorization(user: str, password: str) -> dict[str, str]:
    """Return the header of HTTP's basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")}


def host_is_allowed(host: str, patterns: tuple[str, ...]) -> bool:
    """Say whether ``host`` (lower case) is one of ``patterns``."""
    for pattern in patterns:
        if pattern in {"*", host}:
            return True
        if pattern.startswith("*.") and re.fullmatch(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?" + re.escape(pattern[1:]), host):
            return True
    return False
