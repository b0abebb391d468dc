"""What is checked beforehand: an account when it is added, a message when it is accepted."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from actors.platforms.contract import Account, PlatformContract, PlatformMessage, host_is_allowed
from actors.platforms.limits import TEMPLATE
from actors.platforms.templates import TemplateInvalid, template_of
from actors.uploads import id_in
from config.errors import Refused
from storage.text import is_storable

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A recipient: E.164 digits, so neither a list separator nor anything else can name a second one.
_NUMBER = re.compile(r"[1-9][0-9]{6,14}")
#: A group's id: digits, letters and the marks found in them; again no separator of any platform.
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{4,99}")
_REFERENCE = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: What may travel in a header, a query and a form alike.
_CREDENTIAL = re.compile(r"[\x21-\x7e]{1,1000}")
#: What a file given as a credential may hold, in characters.
_LONGEST_FILE = 20_000
_LONGEST_URL = 2048
#: Suffixes that name a media type for certain; any other (``.php``, none) tells nothing about the file.
_TELLING_SUFFIXES = (
    "jpg jpeg png gif webp bmp tif tiff heic svg mp3 ogg oga opus mpga wav m4a aac amr flac mp4 m4v mov avi "
    "mkv webm 3gp mpeg mpg pdf doc docx odt csv ppt pptx xls xlsx txt rtf zip rar 7z apk exe html htm"
)


class AccountNotUsable(Refused):
    """A platform account's address or credential cannot be used."""

    code = "account_not_usable"


class MessageNotUsable(Refused):
    """A platform cannot carry this message."""

    code = "message_not_usable"


def check_account(
    contract: PlatformContract,
    base_url: str | None,
    credentials: Mapping[str, str],
    *,
    loopback_allowed: bool,
) -> Account:
    """Return the account to use, its base URL in one normal form.

    Args:
        contract: the platform.
        base_url: the API's address; empty: the platform's default.
        credentials: the values of the contract's credential fields.
        loopback_allowed: the simulator runs, so addresses of this machine are fine, by plain HTTP too.

    Raises:
        AccountNotUsable: with a sentence that names the field but never a credential's value.
    """
    account = Account(
        _usable_base_url(contract, base_url, loopback_allowed=loopback_allowed),
        _usable_credentials(contract, credentials),
    )
    if sentence := contract.refuse_account(account):
        raise AccountNotUsable(sentence)
    return account


def _usable_credentials(contract: PlatformContract, credentials: Mapping[str, str]) -> dict[str, str]:
    known = {each.name: each for each in contract.credential_fields}
    if unknown := sorted(set(credentials) - set(known)):
        # A misplaced credential may stand where the name should be, so an unknown name is not repeated.
        raise AccountNotUsable(
            f"{contract.title} knows no {'such credential' if len(unknown) == 1 else 'such credentials'}.",
            f"It needs: {', '.join(known)}.",
        )
    for name, each in known.items():
        value = credentials.get(name, "")
        if not value and each.required:
            raise AccountNotUsable(f"{contract.title} needs the credential {name} ({each.title}).")
        if value and not each.is_file and not _CREDENTIAL.fullmatch(value):
            raise AccountNotUsable(
                f"The credential {name} holds a space, a line break or a letter that no credential has.",
                "Copy it again, without what stands around it.",
            )
        # A path's segment of dots alone would be taken for a way up.
        if value in {".", ".."} or len(value) > _LONGEST_FILE:
            raise AccountNotUsable(f"The credential {name} is not {each.title}.")
        if value and each.pattern is not None and not re.fullmatch(each.pattern, value):
            raise AccountNotUsable(
                f"The credential {name} is not {each.title}.", f"It looks like {each.example}." if each.example else ""
            )
    return {name: value for name, value in credentials.items() if value}


def _usable_base_url(contract: PlatformContract, base_url: str | None, *, loopback_allowed: bool) -> str:
    given = (base_url or contract.default_base_url or "").strip()
    if not given:
        raise AccountNotUsable(
            f"{contract.title} needs a base URL: its address differs by account.",
            "Give the address your own server has."
            if "*" in contract.allowed_hosts
            else f"Give one whose host is {' or '.join(contract.allowed_hosts)}, as its dashboard shows it.",
        )
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        raise AccountNotUsable(f"The base URL of {contract.title} is not a URL.") from None
    host = (parts.hostname or "").lower()
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise AccountNotUsable(
            "A base URL holds no user, password, query or fragment.", "Give credentials as credentials."
        )
    if not host or not given.isascii() or any(character.isspace() for character in given):
        raise AccountNotUsable(f"The base URL of {contract.title} is not a URL.")
    path = parts.path.rstrip("/")
    runs_anywhere = "*" in contract.allowed_hosts
    if _is_loopback(host):
        if not loopback_allowed and not runs_anywhere:
            raise AccountNotUsable(
                f"The base URL of {contract.title} points at this machine.",
                "Only the simulator's stand-ins live here: start with --simulator, or give its real address.",
            )
        if parts.scheme not in {"http", "https"}:
            raise AccountNotUsable("A base URL starts with https://.")
        return _assembled(parts, host, port, path or contract.base_path)
    if parts.scheme != "https":
        raise AccountNotUsable("A base URL starts with https://.", "Credentials never travel over plain HTTP.")
    if not host_is_allowed(host, contract.allowed_hosts):
        raise AccountNotUsable(
            f"{host} is no address of {contract.title}.",
            f"Give one whose host is {' or '.join(contract.allowed_hosts)}.",
        )
    if not runs_anywhere and (port not in {None, 443} or path not in {"", contract.base_path}):
        raise AccountNotUsable(
            f"The base URL of {contract.title} is https://{host}{contract.base_path} and nothing behind it."
        )
    return _assembled(parts, host, None if port == 443 else port, path or contract.base_path)


def _assembled(parts: SplitResult, host: str, port: int | None, path: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{path}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_message(contract: PlatformContract, message: PlatformMessage) -> None:
    """Check what this platform asks of a message, beyond what every route asks.

    Raises:
        MessageNotUsable: with a sentence and a stable code.
    """
    limits, title = contract.limits, contract.title
    if not _REFERENCE.fullmatch(message.reference):
        raise MessageNotUsable("A message reference is 1 to 64 letters, digits, - or _.", code="reference_invalid")
    _check_recipient(contract, message)
    if message.kind not in limits.kinds:
        raise MessageNotUsable(
            f"{title} does not carry {message.kind}.",
            f"It carries {', '.join(sorted(limits.kinds))}.",
            code="kind_not_carried",
        )
    if not is_storable(message.body):
        raise MessageNotUsable("The text holds characters that cannot be sent.", code="text_invalid")
    if message.kind == TEMPLATE:
        try:
            template_of(message.body)
        except TemplateInvalid as error:
            raise MessageNotUsable(f"The template cannot be used: {error}.", code="template_invalid") from None
        return
    if message.kind == "text":
        if not message.body.strip():
            raise MessageNotUsable("The text is empty.", code="text_empty")
        if message.media_url:
            raise MessageNotUsable("A text message has no media.", code="media_not_wanted")
        _check_length(title, "text", message.body, limits.text_characters)
        return
    if message.body and message.kind not in limits.captioned_kinds:
        raise MessageNotUsable(f"{title} sends {message.kind} without a caption.", code="caption_not_carried")
    _check_length(title, "caption", message.body, limits.caption_characters)
    _check_media(contract, message)


def _check_recipient(contract: PlatformContract, message: PlatformMessage) -> None:
    if message.to_group and not contract.limits.groups:
        raise MessageNotUsable(f"{contract.title} cannot be given a group by its id.", code="group_not_carried")
    if not (_GROUP if message.to_group else _NUMBER).fullmatch(message.to):
        what = "a group's id" if message.to_group else "a number of 7 to 15 digits with its country code"
        raise MessageNotUsable(f"The recipient is not {what}.", code="recipient_invalid")


def _check_length(title: str, what: str, text: str, longest: int | None) -> None:
    if longest is not None and len(text) > longest:
        raise MessageNotUsable(
            f"The {what} has {len(text)} characters; {title} takes at most {longest}.", code="text_too_long"
        )


def _check_media(contract: PlatformContract, message: PlatformMessage) -> None:
    if id_in(message.media_url) is not None:
        raise MessageNotUsable(
            f"{contract.title} fetches media itself; it cannot be given an uploaded file.",
            "Give a public https URL.",
            code="upload_not_carried",
        )
    url = message.media_url
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise MessageNotUsable(
            f"{contract.title} fetches media itself and needs a public http(s) URL.", code="media_url_invalid"
        )
    taken = contract.limits.media_suffixes.get(message.kind)
    _, dot, suffix = parts.path.rpartition("/")[2].rpartition(".")
    suffix = suffix.lower() if dot else ""
    if taken is not None and suffix in _TELLING_SUFFIXES.split() and suffix not in taken:
        raise MessageNotUsable(
            f"{contract.title} takes no .{suffix} as {message.kind}.",
            f"It takes {', '.join(sorted(taken))}.",
            code="media_type_not_carried",
        )
