"""Template messages from acceptance to the platform's request."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from actors.messages import Media, SendMessage
from actors.platforms import contract_of
from actors.platforms.contract import Account, PlatformMessage
from actors.validation import Problem, check_message
from storage.database import Connection, Database
from storage.outbox import NewMessage, Outbox
from tests.support.outbox import accept, claim_next, new_device

TEMPLATE = json.dumps({"name": "order_update", "language": "en_US", "components": []})


def checked(message: SendMessage) -> str:
    return check_message(message, region="", loopback_media=False, now=datetime.now(UTC)).kind


def test_a_template_is_stored_and_becomes_the_platforms_template_request(
    connection: Connection, database: Database
) -> None:
    device = new_device(connection, "meta_cloud")
    assert checked(SendMessage("d", "+60123456789", TEMPLATE, template=True)) == "template"
    accept(connection, NewMessage(device, "60123456789", "template", TEMPLATE))
    claim = claim_next(Outbox(database, "owner"), device)
    credentials = {"access_token": "invented", "phone_number_id": "1234567890"}
    contract = contract_of("meta_cloud")
    names = {field.name for field in contract.credential_fields}
    account = Account("https://graph.facebook.com", {k: v for k, v in credentials.items() if k in names})
    message = PlatformMessage(reference="r-1", to=claim.recipient, kind=claim.kind, body=claim.body)
    request = contract.build_request(message, account)
    assert request.body is not None
    sent = json.loads(request.body)
    assert sent["type"] == "template"
    assert sent["template"]["name"] == "order_update"


def test_a_template_with_media_beside_it_is_refused() -> None:
    with pytest.raises(Problem) as caught:
        checked(SendMessage("d", "+60123456789", TEMPLATE, template=True, media=Media("https://example.com/a.png")))
    assert caught.value.code == "bad_template"
