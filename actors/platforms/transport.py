"""The one HTTP transport of all platforms: a request goes out at most once, and its fate is told honestly.

Built on the adapter of requests, without a session and so without what could send twice or elsewhere: no retries, no
redirects, no proxies or credentials from the environment, no cookies; and with a total deadline and a cap on replies.
An exception's text holds the URL, and with some platforms so the credential: only its class is ever told.
"""

from __future__ import annotations

import logging
import ssl
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import requests
from urllib3.exceptions import ConnectTimeoutError as PoolConnectTimeout
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProxyError

from actors.platforms.connections import OneAttemptAdapter, TunnelRefusedError, attempt
from actors.platforms.outcomes import (
    Accepted,
    AccountCheck,
    AccountState,
    Outcome,
    Rejected,
    Retryable,
    Scope,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from actors.platforms.contract import PlatformContract, Request
    from actors.platforms.webhooks import DeliveryReport

#: The largest reply read, in bytes. A verdict takes some hundred; the rest is an error page or an attack.
LONGEST_REPLY_BYTES = 1_000_000
#: The wait before a platform that could not be reached is tried again, in seconds.
UNREACHABLE_SECONDS = 10.0

#: Raised while the connection is looked for, so before anything is sent: redirects, which could raise them
#: later, are not looked at.
_UNUSABLE_ADDRESSES = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)

# urllib3 warns with whole URLs (a reply's broken header is enough); nothing of it may reach a log.
logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Reply:
    """A whole reply."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class PlatformTransport:
    """Sends requests for any number of threads over shared, kept-alive connections.

    Args:
        connections: how many idle connections to one host are kept; as many as there are threads.
        ca_file: certificates to trust instead of the well-known ones.
    """

    def __init__(self, connections: int = 16, ca_file: Path | None = None) -> None:
        self._adapter = OneAttemptAdapter(connections)
        self._verify: bool | str = True if ca_file is None else str(ca_file)

    def send(
        self,
        request: Request,
        contract: PlatformContract,
        seconds: float | None = None,
        proxy: str | None = None,
    ) -> Outcome:
        """Send one message and return what became of it. Nothing raises, and nothing is sent twice.

        Args:
            request: what ``contract.build_request`` returned.
            contract: the platform.
            seconds: the longest this may take; None: the contract's own time.
            proxy: the device's HTTP proxy as a URL.
        """
        answer = self._exchange(request, contract, seconds, proxy)
        if isinstance(answer, Reply):
            try:
                outcome = (request.read_by or contract).parse_reply(answer.status, answer.headers, answer.body)
            except Exception as error:  # noqa: BLE001 - a reply came: whatever breaks now, the message may be out
                outcome = Unknown("reply_not_understood", f"the reply broke its reader ({_name(error)})")
        else:
            outcome = answer
        if isinstance(outcome, Unknown) and outcome.lookup is None:
            outcome = replace(outcome, lookup=request.reference)
        return _without_secrets(outcome, request.secrets)

    def look_up(
        self,
        request: Request,
        contract: PlatformContract,
        reference: str,
        seconds: float | None = None,
        proxy: str | None = None,
    ) -> Accepted | Rejected | Unknown | None:
        """Ask what became of an earlier send; ``request`` is what ``contract.build_lookup`` returned.

        Returns:
            ``Accepted`` and ``Rejected`` settle it; None: the provider knows nothing of it (yet);
            ``Unknown``: it could not be asked.
        """
        answer = self._exchange(request, contract, seconds, proxy)
        if not isinstance(answer, Reply):
            return Unknown("lookup_failed", answer.reason, reference)
        try:
            outcome = (request.read_by or contract).parse_lookup(answer.status, answer.headers, answer.body, reference)
        except Exception as error:  # noqa: BLE001 - the message stays as doubtful as it was
            return Unknown("lookup_failed", f"the reply broke its reader ({_name(error)})", reference)
        if outcome is None:
            return None
        if isinstance(outcome, Accepted | Rejected):
            settled = _without_secrets(outcome, request.secrets)
            return settled if isinstance(settled, Accepted | Rejected) else None
        return Unknown("lookup_failed", _struck(outcome.reason, request.secrets), reference)

    def check(
        self,
        request: Request,
        contract: PlatformContract,
        seconds: float | None = None,
        proxy: str | None = None,
    ) -> AccountCheck:
        """Ask how an account is; ``request`` is what ``contract.build_check`` returned."""
        answer = self._exchange(request, contract, seconds, proxy)
        if not isinstance(answer, Reply):
            return AccountCheck(AccountState.UNKNOWN, answer.reason)
        try:
            state = (request.read_by or contract).parse_check(answer.status, answer.headers, answer.body)
        except Exception as error:  # noqa: BLE001 - as for a look-up
            return AccountCheck(AccountState.UNKNOWN, f"the reply broke its reader ({_name(error)})")
        if state is None:
            return AccountCheck(AccountState.UNKNOWN, "the platform has no such check")
        return replace(state, detail=_struck(state.detail, request.secrets))

    def ask_status(
        self,
        request: Request,
        contract: PlatformContract,
        provider_id: str,
        seconds: float | None = None,
        proxy: str | None = None,
    ) -> DeliveryReport | None:
        """Ask how far an accepted message came; ``request`` is what ``contract.build_status`` returned.

        Returns:
            The stage; None: nothing new, or the provider could not be asked.
        """
        answer = self._exchange(request, contract, seconds, proxy)
        if not isinstance(answer, Reply):
            return None
        reader = request.read_by or contract
        try:
            report = reader.parse_status(answer.status, answer.headers, answer.body, provider_id)
        except Exception:  # noqa: BLE001 - no news; the next question or a webhook will bring some
            return None
        return None if report is None else replace(report, reason=_struck(report.reason, request.secrets))

    def close(self) -> None:
        """Close the idle connections. A send under way keeps its own until it ends."""
        self._adapter.close()

    def _exchange(
        self, request: Request, contract: PlatformContract, seconds: float | None, proxy: str | None
    ) -> Reply | Rejected | Retryable | Unknown:
        try:
            prepared = _prepared(request)
        except Exception as error:  # noqa: BLE001 - nothing was sent yet, so the failure is ours
            return Rejected("request_invalid", f"the request cannot be made ({_name(error)})", Scope.CONFIG)
        total = contract.timeouts.total_seconds if seconds is None else seconds
        attempt.deadline = time.monotonic() + total
        try:
            response = self._adapter.send(
                prepared,
                stream=True,
                timeout=(min(contract.timeouts.connect_seconds, total), total),
                verify=self._verify,
                proxies={"http": proxy, "https": proxy} if proxy else {},
            )
            with closing(response):
                body = bytearray()
                for chunk in response.iter_content(16_384):
                    body += chunk
                    if len(body) > LONGEST_REPLY_BYTES:
                        return Unknown("reply_too_long", f"HTTP {response.status_code} with an endless reply")
                return Reply(response.status_code, response.headers, bytes(body))
        except Exception as error:  # noqa: BLE001 - every failure has an outcome; unknown ones are in doubt
            return judge_failure(error)
        finally:
            attempt.deadline = None


def _prepared(request: Request) -> requests.PreparedRequest:
    """Return a request as requests' adapter sends it.

    Raises:
        Exception: its address or a header is none.
    """
    prepared = requests.PreparedRequest()
    prepared.method = request.method
    prepared.url = _usable_url(request.url)
    prepared.prepare_headers({"User-Agent": "Salamander", **request.headers})
    prepared.body = request.body
    if request.body is not None:
        prepared.headers["Content-Length"] = str(len(request.body))
    return prepared


@lru_cache(maxsize=256)
def _usable_url(url: str) -> str | None:
    """Return an address in the form in which it is requested; most accounts have one for all that they send."""
    prepared = requests.PreparedRequest()
    prepared.prepare_url(url, None)
    return prepared.url


def judge_failure(error: Exception) -> Rejected | Retryable | Unknown:
    """Return what a failure of requests proves about the message.

    Only three prove that nothing was sent: no address, no connection, no connection in time. All else, a
    time-out or a reset above all, looks the same whether the provider read the request or not.
    """
    name = _name(error)
    if isinstance(error, _UNUSABLE_ADDRESSES):
        return Rejected("address_invalid", f"the base URL or the proxy is no address ({name})", Scope.CONFIG)
    # ConnectTimeout and SSLError are ConnectionErrors too, so the order of these questions matters.
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return _not_reached("connect_timeout", f"no connection in time ({name})", error)
    if isinstance(error, requests.exceptions.SSLError):
        if _is_untrusted_certificate(error):
            return Rejected("certificate_untrusted", f"its certificate is not trusted ({name})", Scope.CONFIG)
        return Unknown("tls_failed", f"the encrypted connection broke ({name})")
    if isinstance(error, requests.exceptions.ConnectionError):
        cause = _pool_failure(error)
        if isinstance(cause, TunnelRefusedError):
            reason = f"the device's proxy opened no tunnel ({name})"
            return Retryable("proxy_refused", reason, UNREACHABLE_SECONDS, Scope.CONFIG)
        if isinstance(cause, NewConnectionError):
            return _not_reached("unreachable", f"no connection ({_name(cause)})", error)
        if isinstance(cause, PoolConnectTimeout):
            return _not_reached("connect_timeout", f"no connection in time ({_name(cause)})", error)
    if isinstance(error, requests.exceptions.Timeout):
        return Unknown("no_reply", f"no reply in time ({name})")
    return Unknown("connection_lost", f"the connection ended before the reply did ({name})")


def _not_reached(code: str, reason: str, error: Exception) -> Retryable:
    if isinstance(error, requests.exceptions.ProxyError):
        return Retryable("proxy_unreachable", f"the device's proxy: {reason}", UNREACHABLE_SECONDS, Scope.CONFIG)
    return Retryable(code, reason, UNREACHABLE_SECONDS, Scope.SERVICE)


def _pool_failure(error: Exception) -> BaseException | None:
    """Return the connection pool's reason behind an exception of requests, if it gives one."""
    cause = error.args[0] if error.args else None
    if isinstance(cause, MaxRetryError):
        cause = cause.reason
    if isinstance(cause, ProxyError):
        cause = cause.original_error
    return cause if isinstance(cause, BaseException) else None


def _is_untrusted_certificate(error: Exception) -> bool:
    cause = _pool_failure(error)
    return any(
        isinstance(each, ssl.SSLCertVerificationError) for each in (cause, *(cause.args if cause is not None else ()))
    )


def _name(error: BaseException) -> str:
    return type(error).__name__


def _struck(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _without_secrets(outcome: Outcome, secrets: tuple[str, ...]) -> Outcome:
    """Return ``outcome`` without credentials, which providers sometimes write back in their texts."""
    if isinstance(outcome, Accepted):
        return replace(outcome, detail=_struck(outcome.detail, secrets))
    return replace(outcome, reason=_struck(outcome.reason, secrets))
