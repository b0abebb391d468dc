"""Messages over the gateway's HTTP API, as one careful program sends them: each under its key."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import requests

from actors.messages import SendMessage
from benchmarks.support.trial import Trial, TrialFailed
from config.errors import NoAnswer, Refused

#: Answers that say "not now", or nothing about the message: the same key is sent again.
_AGAIN = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


class HttpSender:
    """Posts single messages with a key of its own; the gateway keeps its address whatever is done to it."""

    def __init__(self, trial: Trial, seconds: float) -> None:
        made = trial.command("key", "create", "--scope", "send", "--per-minute", "0", "--json")
        status = trial.command("status", "--json")
        if made.returncode or status.returncode:
            raise TrialFailed(f"the gateway's key: {made.stderr}{status.stderr}".strip())
        self._address = f"{json.loads(status.stdout)['gateway']['url']}/v1/messages"
        self._headers = {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}
        self._seconds = seconds

    def send(self, message: SendMessage) -> int:
        """Post a message and return its id.

        Raises:
            Refused: it was turned away.
            NoAnswer: nobody knows whether it was accepted.
        """
        headers = self._headers | {"Idempotency-Key": str(message.idempotency_key)}
        try:
            # Without a session: a connection that a killed gateway left behind would only fail once more.
            reply = requests.post(self._address, json=_body(message), headers=headers, timeout=self._seconds)
            answer: dict[str, Any] = reply.json()
        except (requests.RequestException, ValueError) as error:
            raise NoAnswer(f"The gateway did not answer ({type(error).__name__}).") from None
        if reply.status_code == HTTPStatus.ACCEPTED:
            return int(answer["id"])
        if reply.status_code in _AGAIN or reply.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise NoAnswer(f"The gateway answered {reply.status_code}: {answer.get('detail')}")
        raise Refused(str(answer.get("detail")), code=str(answer.get("code")))


def _body(message: SendMessage) -> dict[str, Any]:
    body: dict[str, Any] = {
        "device": message.device,
        "to": message.to,
        "text": message.text,
        "priority": message.priority,
    }
    if message.media is not None:
        body["media"] = {"url": message.media.url}
    return body
