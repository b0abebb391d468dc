"""What a message must be before it is accepted: pure checks, each with a code and a sentence."""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote, urlsplit

import phonenumbers

from actors.messages import Media, SendMessage
from actors.uploads import id_in
from config.errors import Refused
from storage.text import is_storable, storable

#: The kinds of media there are.
MEDIA_KINDS = ("image", "document", "video", "audio")
#: WhatsApp shows at most 65 536 characters of a text, and 1 024 of a caption.
TEXT_LIMIT = 65_536
CAPTION_LIMIT = 1_024
_KEY_LIMIT = 255
_URL_LIMIT = 2048
#: What people put between the digits of a number.
_MARKS = re.compile(r"[ ().\-/]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_GROUP = re.compile(r"[0-9]{10,25}(-[0-9]{5,15})?@g\.us")


class Problem(Exception):
    """Why a message is not accepted, and what to do about it."""

    def __init__(self, code: str, reason: str, next_step: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.next_step = next_step


@dataclass(frozen=True)
class Checked:
    """A message whose parts are in their final form."""

    recipient: str
    kind: str
    body: str
    media_url: str
    media_name: str


def check_proxy(url: str | None) -> None:
    """Refuse what is no proxy; the sentence never quotes it, since it may hold a password.

    Raises:
        Refused: it is not the URL of an http, https or socks5 proxy.
    """
    if url is not None and not url.startswith(("http://", "https://", "socks5://")):
        raise Refused(
            "The proxy is not an http, https or socks5 URL.", "Write it as http://HOST:PORT.", code="bad_proxy"
        )


def check_device_name(name: str) -> str:
    """Return ``name``.

    Raises:
        Problem: it is not 1-64 letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise Problem(
            "bad_name",
            f"{name!r} is not a usable device name.",
            "Use 1-64 letters, digits, dots, dashes and underscores, starting with a letter or digit.",
        )
    return name


def normalise_recipient(to: str, region: str) -> str:
    """Return a recipient as E.164 digits without the plus, or a group's JID unchanged.

    A number is taken as international when it starts with ``+``, ``00`` or a country code; only one that starts with a
    single 0 is read in ``region`` (two letters, or empty: refused). No number is moved from one country to another.

    Whether the number is *possible* is checked, not whether its range is in use: operators open new ranges
    before any table knows them, and WhatsApp itself says who is on it.

    Raises:
        Problem: it cannot be a telephone number.
    """
    if _GROUP.fullmatch(to):
        return to
    text = to.strip()
    help_ = "Write it with its country code, such as +60123456789."
    if not text or not re.fullmatch(r"\+?[0-9 ().\-/]+", text):
        raise Problem("bad_number", f"{to!r} is not a telephone number.", help_)
    text = _MARKS.sub("", text)
    national = text.startswith("0") and not text.startswith("00")
    if national and not region:
        raise Problem("bad_number", f"{to!r} has no country code.", help_ + " Or set default_region.")
    international = text if text.startswith("+") else "+" + text.removeprefix("00")
    number = _parsed(text, region) if national else _parsed(international, None)
    if number is None:
        raise Problem("bad_number", f"{to!r} is not a telephone number.", help_)
    if not phonenumbers.is_possible_number(number):
        raise Problem("bad_number", f"{to!r} is too long or too short for its country.", help_)
    if text.startswith("00") and region and _parsed(text, region) != number:
        # Where other prefixes lead abroad (001 in Singapore, 0011 in Australia) it may name somebody else elsewhere.
        raise Problem("bad_number", f"{to!r} can be read in two ways.", help_)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164).lstrip("+")


def _parsed(text: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None


def check_media(media: Media, *, loopback_allowed: bool) -> tuple[str, str, str]:
    """Return a media reference as (kind, URL, file name). An uploaded file's name says what it is.

    Raises:
        Problem: the URL is malformed, not https (http only to loopback, and only where allowed), carries a
            password, or the kind is unknown.
    """
    uploaded = id_in(media.url) is not None
    path = "" if uploaded else _check_media_url(media.url, loopback_allowed=loopback_allowed)
    if not is_storable(media.name):
        raise Problem("bad_media", "The media file's name is not valid Unicode or holds NUL.", "Give another name.")
    name = media.name or storable(unquote(path.rsplit("/", 1)[-1])) or "file"
    kind = media.kind or _kind_of(name)
    if kind not in MEDIA_KINDS:
        raise Problem("bad_media", f"{kind!r} is no kind of media.", f"Use one of {', '.join(MEDIA_KINDS)}.")
    return kind, media.url, name[:200]


def _check_media_url(url: str, *, loopback_allowed: bool) -> str:
    """Return the path of a media URL, or raise :class:`Problem`."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is not a number
    except ValueError:
        parts = urlsplit("")
    if not parts.hostname or parts.scheme not in {"http", "https"} or not url.isprintable() or " " in url:
        raise Problem("bad_media", "The media reference is not an http(s) URL.", "Give a public https URL.")
    if len(url) > _URL_LIMIT:
        raise Problem("bad_media", f"The media URL is longer than {_URL_LIMIT:,} characters.", "Give a shorter one.")
    if parts.username or parts.password:
        raise Problem("bad_media", "The media URL carries a user name or password.", "Use a URL without one.")
    loopback = parts.hostname in {"127.0.0.1", "localhost", "::1"}
    if loopback and not loopback_allowed:
        raise Problem("bad_media", "The media URL points to this machine.", "Give a public https URL.")
    if parts.scheme == "http" and not loopback:
        raise Problem("bad_media", "The media URL is not https.", "Give a public https URL.")
    return parts.path


def _kind_of(name: str) -> str:
    guessed = mimetypes.guess_type(name)[0] or ""
    family = guessed.split("/")[0]
    return family if family in {"image", "video", "audio"} else "document"


def check_message(message: SendMessage, *, region: str, loopback_media: bool, now: datetime) -> Checked:
    """Return the message's parts in their final form. The text itself is never altered.

    Raises:
        Problem: it cannot be accepted as it is.
    """
    recipient = normalise_recipient(message.to, region)
    if message.idempotency_key is not None and not 1 <= len(message.idempotency_key) <= _KEY_LIMIT:
        raise Problem("bad_key", "The idempotency key is empty or too long.", f"Use 1-{_KEY_LIMIT} characters.")
    if message.idempotency_key is not None and not is_storable(message.idempotency_key):
        raise Problem("bad_key", "The idempotency key is not valid Unicode or holds NUL.", "Use printable characters.")
    for moment in (message.not_before, message.expires_at):
        if moment is not None and moment.utcoffset() is None:
            raise Problem("bad_time", "A time without a time zone is ambiguous.", "Give it with a zone.")
    if message.expires_at is not None and message.expires_at <= now:
        raise Problem("already_expired", "The message's time ran out before it was accepted.")
    if message.expires_at is not None and message.not_before is not None and message.expires_at <= message.not_before:
        raise Problem("bad_time", "The message's time runs out before it may be sent.", "Give a later expiry.")
    if not -100 <= message.priority <= 100:
        raise Problem("bad_priority", "The priority is out of range.", "Use -100 to 100.")
    if "\x00" in message.text:
        raise Problem("bad_text", "The text holds a NUL character.", "Remove it.")
    try:
        message.text.encode("utf-8")
    except UnicodeEncodeError:
        raise Problem("bad_text", "The text is not valid Unicode.", "Check its encoding (UTF-8).") from None
    if message.media is None:
        if not message.text.strip():
            raise Problem("empty_text", "The text is empty.", "Give a text, or media.")
        if len(message.text) > TEXT_LIMIT:
            raise Problem(
                "text_too_long",
                f"The text has {len(message.text):,} characters; WhatsApp takes {TEXT_LIMIT:,}.",
                "Shorten it, or send it as a document.",
            )
        return Checked(recipient, "template" if message.template else "text", message.text, "", "")
    if message.template:
        raise Problem("bad_template", "A template carries its media inside.", "Give a template, or media.")
    if len(message.text) > CAPTION_LIMIT:
        raise Problem(
            "text_too_long",
            f"The caption has {len(message.text):,} characters; {CAPTION_LIMIT:,} are allowed.",
            "Shorten it, or send the text as a message of its own.",
        )
    kind, url, name = check_media(message.media, loopback_allowed=loopback_media)
    return Checked(recipient, kind, message.text, url, name)
