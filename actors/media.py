"""Fetch the file that a message refers to, with limits: size, time, no redirects to elsewhere on this machine."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import requests

from actors.platforms.connections import OneAttemptAdapter, attempt
from actors.public_addresses import LOOPBACK, AddressRefused, AddressRule, HostUnknown

#: WhatsApp takes documents up to 2 GB and other media up to 16-64 MB; we hold it in memory, so less.
MEDIA_LIMIT_BYTES = 64 * 1024 * 1024
#: How long fetching one file may take in all, in seconds.
MEDIA_SECONDS = 60.0


class MediaNotFetched(Exception):
    """The file could not be had; ``for_good`` says that trying again is no use."""

    def __init__(self, sentence: str, *, for_good: bool) -> None:
        super().__init__(sentence)
        self.for_good = for_good


def fetch_media(url: str, *, loopback_allowed: bool) -> bytes:
    """Return the bytes at ``url``.

    Raises:
        MediaNotFetched: the address is private, the file is too large, or the server fails.
    """
    _refuse_private_addresses(url, loopback_allowed=loopback_allowed)
    # The time-outs below count from one byte to the next; a server that drips must not hold the lane for ever.
    attempt.deadline = time.monotonic() + MEDIA_SECONDS
    attempt.rule = _rule(loopback_allowed=loopback_allowed)
    try:
        with requests.Session() as session:
            session.trust_env = False
            for scheme in ("http://", "https://"):
                session.mount(scheme, OneAttemptAdapter(1))
            with session.get(url, stream=True, timeout=(5, 15), allow_redirects=False) as reply:
                if reply.status_code != 200:
                    gone = 300 <= reply.status_code < 500 and reply.status_code not in {408, 425, 429}
                    raise MediaNotFetched(f"The media URL answered {reply.status_code}.", for_good=gone)
                chunks: list[bytes] = []
                size = 0
                for chunk in reply.iter_content(65_536):
                    size += len(chunk)
                    if size > MEDIA_LIMIT_BYTES:
                        raise MediaNotFetched("The media file is larger than 64 MB.", for_good=True)
                    chunks.append(chunk)
                return b"".join(chunks)
    except AddressRefused:
        raise _private() from None  # its name led elsewhere a moment ago
    except requests.RequestException as error:
        raise MediaNotFetched(
            f"The media file could not be fetched ({type(error).__name__}).", for_good=False
        ) from None
    finally:
        attempt.deadline = attempt.rule = None


def _refuse_private_addresses(url: str, *, loopback_allowed: bool) -> None:
    """Refuse hosts that resolve to this machine or a private network: messages must not read internal pages."""
    host = urlsplit(url).hostname or ""
    try:
        _rule(loopback_allowed=loopback_allowed).resolve(host)
    except HostUnknown:
        raise MediaNotFetched("The media URL's host cannot be found.", for_good=False) from None
    except AddressRefused:
        raise _private() from None


def _rule(*, loopback_allowed: bool) -> AddressRule:
    return AddressRule(LOOPBACK if loopback_allowed else ())


def _private() -> MediaNotFetched:
    return MediaNotFetched("The media URL points to a private network.", for_good=True)
