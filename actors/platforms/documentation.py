"""The page about all platforms, made from their contracts so that it cannot disagree with them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from actors.platforms import gateway_description
from actors.platforms.contract import PlatformContract
from actors.platforms.limits import KINDS, MEBIBYTE, TEMPLATE
from actors.platforms.outcomes import Accepted, Rejected, Retryable, Scope, Unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actors.platforms.documented import DocumentedReply

_HEAD = """\
# Platforms

<!-- Made by `python -m actors.platforms` from the contracts in `actors/platforms/`. Change those, not this file. -->

A device sends through its platform: `run.py device add NAME --platform PLATFORM`. Credentials come by prompt, from
the environment (`SALAMANDER_CREDENTIAL_` and the credential's name in capitals) or from a file, never as arguments.
`run.py device test NAME` asks the provider how the account is, without sending anything.

## What an outcome means

{outcomes}

A success without the marker below is never a success. What the outcome is about says who else is concerned: the
*message* (and its recipient) alone, the *credential*, the *config* of the device, the *device* (the phone behind the
account), the *account* at the provider, or the *service* itself.

Where a provider's reply holds no verdict, the HTTP status decides: 3xx is rejected (config), 401 and 403 are rejected
(credential), 400, 404, 413, 415 and 422 are rejected (message), 429 is retryable after `Retry-After`, and everything
else, every 5xx above all, is unknown. Of failures to connect only three prove that nothing was sent: no address, no
connection, no connection in time.

## How fast, and how far it came

The documented rates below are kept: messages of an account are spread over each second, and a recipient's pace holds
the account's lane, nobody else's. A lane is first in, first out with one request under way at a time, whatever number
the provider allows. `Retry-After` is obeyed; without it, waits grow as told below.

With `webhook_port` set, `run.py device webhook NAME` shows the address at which a provider reports `delivered`, `read`
and `failed`. Its path holds a secret; signatures are verified where the provider signs.

Sources of a fact: *documented* by the platform's owner, *observed* in third parties' code, *assumed* by us.
"""

_OUTCOMES = (
    (
        "accepted",
        "The provider said, in its documented words, that it took the message. It is not delivered yet.",
        "`sent`; later stages come by webhook",
    ),
    (
        "rejected",
        "The message was not taken, and sending it again unchanged will not help.",
        "`failed`, with the reason",
    ),
    ("retryable", "The message was certainly not taken.", "sent again after a wait, or over another route"),
    (
        "unknown",
        "Nobody can tell: the reply was lost, or held no verdict.",
        "`in_doubt`: never sent again by itself; a look-up, a webhook or a person settles it",
    ),
)
_NAMES = {Accepted: "accepted", Rejected: "rejected", Retryable: "retryable", Unknown: "unknown"}


def page(contracts: Mapping[str, PlatformContract]) -> str:
    """Return the page in Markdown."""
    outcomes = [f"| {' | '.join(row)} |" for row in _OUTCOMES]
    table = "\n".join(["| outcome | what is certain | what happens next |", "| --- | --- | --- |", *outcomes])
    lines = [_HEAD.replace("{outcomes}", table), "## Overview", "", *_overview(contracts)]
    for contract in contracts.values():
        lines += ["", *_section(contract)]
    lines += ["", "## Describing a gateway", "", inspect.cleandoc(gateway_description.__doc__ or "")]
    return "\n".join(lines) + "\n"


def _overview(contracts: Mapping[str, PlatformContract]) -> Iterator[str]:
    yield "| platform | carries | groups | looked up after a lost reply | status asked by id | webhooks | signed |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for contract in contracts.values():
        kinds = [kind for kind in (*KINDS, TEMPLATE) if kind in contract.limits.kinds]
        cells = [
            f"[{contract.title}](#{_anchor(contract.title)}) (`{contract.name}`)",
            "all kinds" if kinds == list(KINDS) else ", ".join(kinds).replace(", ".join(KINDS), "all kinds"),
            _yes(contract.limits.groups),
            "by webhook"
            if contract.reports_reference or contract.takes_callback_url
            else _yes(_has(contract, "build_lookup")),
            _yes(_has(contract, "build_status")),
            _yes(_has(contract, "parse_webhook")),
            _yes(bool(contract.webhook_signature)),
        ]
        yield f"| {' | '.join(cells)} |"


def _section(contract: PlatformContract) -> Iterator[str]:
    yield f"## {contract.title}"
    yield ""
    yield f"`--platform {contract.name}`, documented at <{contract.documentation}>"
    yield ""
    base = f"`{contract.default_base_url}`" if contract.default_base_url else "the account's own (`--base-url`)"
    hosts = "any host" if "*" in contract.allowed_hosts else ", ".join(f"`{host}`" for host in contract.allowed_hosts)
    yield f"- Base URL: {base}; allowed: {hosts}"
    for known in contract.credential_fields:
        needed = "" if known.required else ", optional"
        example = f", such as `{known.example}`" if known.example and not known.is_file else ""
        yield f"- Credential `{known.name}`: {known.title}{example}{', the path of a file' * known.is_file}{needed}"
    yield f"- Limits: {_limits(contract)}"
    yield f"- Pace: {_pace(contract)}"
    times = contract.timeouts
    yield f"- Time: {times.connect_seconds:g} s to connect, {times.reply_seconds:g} s to answer"
    yield f"- A success: {contract.success}"
    if contract.webhook_signature:
        yield f"- Webhooks are signed: {contract.webhook_signature}"
    yield from (f"- {note}" for note in contract.notes)
    yield ""
    yield "| reply | HTTP | outcome | about | source |"
    yield "| --- | --- | --- | --- | --- |"
    yield from (_reply(reply) for reply in contract.replies)


def _reply(reply: DocumentedReply) -> str:
    about = reply.scope.value if isinstance(reply.scope, Scope) else ""
    return f"| {reply.meaning} | {reply.status} | {_NAMES[reply.outcome]} | {about} | {reply.source} |"


def _limits(contract: PlatformContract) -> str:
    limits = contract.limits
    parts = []
    if limits.text_characters is not None:
        parts.append(f"text of {limits.text_characters} characters")
    if limits.caption_characters is not None:
        parts.append(f"caption of {limits.caption_characters} characters")
    captioned = [kind for kind in KINDS if kind in limits.captioned_kinds]
    parts.append(f"captions on {', '.join(captioned)}")
    sizes: dict[int, list[str]] = {}
    for kind, size in limits.media_bytes.items():
        sizes.setdefault(size, []).append(kind)
    parts += [f"{', '.join(kinds)} of {size // MEBIBYTE} MiB" for size, kinds in sizes.items()]
    parts += [f"{kind} as {', '.join(sorted(suffixes))}" for kind, suffixes in limits.media_suffixes.items()]
    return "; ".join(parts)


def _pace(contract: PlatformContract) -> str:
    limits = contract.limits
    parts = []
    if limits.messages_per_second is not None:
        parts.append(f"{limits.messages_per_second:g} messages a second and account")
    if limits.seconds_per_recipient is not None:
        burst = f" (bursts of {limits.recipient_burst})" if limits.recipient_burst > 1 else ""
        parts.append(f"one each {limits.seconds_per_recipient:g} s to the same recipient{burst}")
    if not parts:
        parts.append("no limit is documented")
    parts.append(f"at most {limits.max_in_flight} requests of one account at once (`platform_in_flight` says how many)")
    parts.append(f"tried again after waits that grow, to {limits.retry.longest_seconds:g} s unless it asks for longer")
    return "; ".join(parts)


def _has(contract: PlatformContract, method: str) -> bool:
    return getattr(type(contract), method) is not getattr(PlatformContract, method)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _anchor(title: str) -> str:
    kept = "".join(character for character in title.lower() if character.isalnum() or character in " -")
    return kept.replace(" ", "-")
