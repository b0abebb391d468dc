"""Any small gateway over HTTP, described wholly by the account: see ``gateway_description.py``.

The description is a file, sealed with the account's credentials when the device is added. The outcome rules are
those of every platform: nothing is accepted without the marker that the description names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actors.platforms.contract import (
    Account,
    CredentialField,
    PlatformContract,
    PlatformMessage,
    Request,
    host_is_allowed,
)
from actors.platforms.documented import ASSUMED, DocumentedReply, SuccessMarker
from actors.platforms.files import file_name_of
from actors.platforms.gateway_description import (
    ACCOUNT_PLACEHOLDERS,
    Description,
    DescriptionInvalid,
    description_of,
    filled,
)
from actors.platforms.limits import KINDS, Limits, Timeouts
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
from actors.platforms.replies import (
    all_text_of,
    holds_any,
    id_of,
    json_object,
    judge_check_status,
    judge_status,
    text_of,
    value_at,
)
from actors.platforms.webhooks import DeliveryReport, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: What a new account begins with; it is valid, and the tests and the simulator use it too.
EXAMPLE = """
hosts = ["gateway.example.com"]
[send]
path = "/v1/send"
headers = { Authorization = "Bearer {token}" }
json = { to = "{to}", text = "{text}", ref = "{reference}" }
[media]
path = "/v1/send-media"
headers = { Authorization = "Bearer {token}" }
json = { to = "{to}", url = "{media_url}", caption = "{text}", type = "{kind}", ref = "{reference}" }
[reply]
accepted = { path = "ok", equals = true }
id = "message.id"
reason = "error"
refused = { path = "ok", equals = false }
[[reply.failures]]
contains = "token"
outcome = "rejected"
scope = "credential"
[[reply.failures]]
contains = "offline"
outcome = "retry"
scope = "device"
seconds = 300
[check]
path = "/v1/device"
headers = { Authorization = "Bearer {token}" }
connected = { path = "device", equals = "online" }
disconnected = { path = "device", equals = "offline" }
[webhook]
id = "id"
reference = "ref"
status = "status"
stages = { sent = "sent", delivered = "delivered", read = "read", failed = "failed" }
"""


class Http(PlatformContract):
    """The contract of a described gateway; without a description it reads replies as the example says.

    Args:
        text: the description.
    """

    name = "http"
    title = "HTTP gateway"
    documentation = "https://github.com/toml-lang/toml"
    limits = Limits(kinds=frozenset(KINDS), captioned_kinds=frozenset(KINDS[1:]))
    success = SuccessMarker(("ok",), (True,))
    replies = (
        DocumentedReply("the marker that the description names", 200, {"ok": True}, Accepted, None, ASSUMED),
        DocumentedReply("the refusal it names", 200, {"ok": False, "error": "?"}, Rejected, Scope.MESSAGE, ASSUMED),
        DocumentedReply(
            "a failure it names", 500, {"ok": False, "error": "token?"}, Rejected, Scope.CREDENTIAL, ASSUMED
        ),
        DocumentedReply("neither", 200, {"result": "?"}, Unknown, None, ASSUMED),
    )
    notes = (
        "The account describes the gateway in a file; the replies shown are those of its example.",
        "The base URL names one of the hosts that the description allows.",
        "A gateway without `[media]` gets the media's address as text.",
        "Webhooks are not signed.",
    )
    credential_fields = (
        CredentialField("description", "the description of the gateway", example=EXAMPLE, is_file=True),
        CredentialField("token", "what {token} stands for", required=False),
        CredentialField("secret", "what {secret} stands for", required=False),
        CredentialField("sender", "what {sender} stands for", secret=False, required=False),
    )
    allowed_hosts = ("*",)
    timeouts = Timeouts(connect_seconds=5.0, reply_seconds=30.0)

    def __init__(self, text: str = EXAMPLE) -> None:
        self._gateway: Description = description_of(text)

    def refuse_account(self, account: Account) -> str:
        """Return why the description, or the base URL beside it, cannot be used."""
        try:
            described = Http(account.credentials["description"])
        except DescriptionInvalid as error:
            return f"The description of the gateway cannot be used: {error}."
        host = urlsplit(account.base_url).hostname or ""
        if host not in _LOOPBACK and not host_is_allowed(host, described._gateway.hosts):
            return "The base URL names a host that the description does not allow."
        return ""

    def build_request(self, message: PlatformMessage, account: Account) -> Request:
        """Return the send as the account describes it."""
        described = Http(account.credentials["description"])
        gateway = described._gateway
        values = _values(account) | {
            "to": message.to,
            "text": message.body,
            "kind": message.kind,
            "media_url": message.media_url,
            "media_name": file_name_of(message) if message.media_url else "",
            "reference": message.reference,
        }
        call = gateway.send
        if message.media_url and gateway.media is not None:
            call = gateway.media
        elif message.media_url:
            values["text"] = f"{message.body}\n{message.media_url}".strip()
        return described._requested(
            account,
            self.request_for(
                account,
                "POST",
                call.filled_path(values),
                form=filled(call.form, values),
                json_body=filled(call.json, values),
                headers=filled(call.headers, values),
            ),
        )

    def parse_reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Return what the description makes of a reply: its failures, its refusal, its marker, in this order."""
        reply, gateway = json_object(body), self._gateway
        if reply is None:
            return judge_status(status, headers)
        accepted = gateway.accepted
        taken = (
            accepted.holds(reply) if accepted.equals is not None else id_of(value_at(reply, accepted.path)) is not None
        )
        said = text_of(value_at(reply, gateway.reason_path)) or ("" if taken else all_text_of(reply))
        if taken:
            if 200 <= status < 300:
                return Accepted(id_of(value_at(reply, gateway.id_path)), said)
            return Unknown("contradiction", f"HTTP {status} with a success in the body")
        refused = gateway.refused is not None and gateway.refused.holds(reply)
        # Under a 2xx or 5xx, words alone prove nothing: the gateway must say that it refused.
        if refused or 400 <= status < 500:
            for failure in gateway.failures:
                if holds_any(said, (failure.contains,)):
                    if failure.retry:
                        return Retryable("refused_for_now", said, failure.seconds, failure.scope)
                    return Rejected("refused", said, failure.scope)
        if refused and 200 <= status < 300:
            return Rejected("refused", said or "refused without a reason", Scope.MESSAGE)
        return judge_status(status, headers, said)

    def build_check(self, account: Account) -> Request | None:
        """Return the question that the account describes."""
        described = Http(account.credentials["description"])
        call = described._gateway.check
        if call is None:
            return None
        values = _values(account)
        request = self.request_for(account, "GET", call.filled_path(values), headers=filled(call.headers, values))
        return described._requested(account, request)

    def parse_check(self, status: int, headers: Mapping[str, str], body: bytes) -> AccountCheck | None:
        """Return what the description makes of the answer."""
        del headers
        reply, gateway = json_object(body) or {}, self._gateway
        if status == 200 and gateway.connected is not None and gateway.connected.holds(reply):
            return AccountCheck(AccountState.CONNECTED, "connected")
        if status == 200 and gateway.disconnected is not None and gateway.disconnected.holds(reply):
            return AccountCheck(AccountState.DISCONNECTED, "disconnected")
        return judge_check_status(status, text_of(value_at(reply, gateway.reason_path)))

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, account: Account) -> list[DeliveryReport]:
        """Return the stage that a webhook tells where the description says it stands."""
        del headers
        event, gateway = json_object(body) or {}, Http(account.credentials["description"])._gateway
        stage = gateway.stages.get(text_of(value_at(event, gateway.report["status"])))
        provider_id = id_of(value_at(event, gateway.report["id"]))
        reference = id_of(value_at(event, gateway.report["reference"]))
        if stage is None or not (provider_id or reference):
            return []
        reason = text_of(value_at(event, gateway.reason_path)) if stage is Stage.FAILED else ""
        return [DeliveryReport(stage, provider_id, reference, reason=reason)]

    def _requested(self, account: Account, request: Request) -> Request:
        """Return ``request``, to be read by this description; its text is no secret worth looking for in replies."""
        secrets = self.secrets_of({name: each for name, each in account.credentials.items() if name != "description"})
        return replace(request, read_by=self, secrets=secrets)


def _values(account: Account) -> dict[str, str]:
    return {name: account.credentials.get(name, "") for name in ACCOUNT_PLACEHOLDERS}


CONTRACT = Http()
