"""Receipts of one device: kept until they are recorded, recorded once, and applied to their messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.whatsapp.inbound import number_behind
from actors.whatsapp.receipt_journal import ReceiptJournal
from storage.events import Event
from storage.turns import Receipt, Turn

if TYPE_CHECKING:
    from actors.whatsapp.events import ReceiptReceived
    from actors.whatsapp.services import Services

#: Receipts by WhatsApp's words, and the stage they prove.
_STAGES = {"delivered": "delivered", "read": "read", "played": "read", "sender": "sent"}
#: So many numbers of chats are remembered, that not each receipt asks the library's store.
_NUMBERS = 1000


class Receipts:
    """What recipients' phones confirm to one device."""

    def __init__(self, services: Services, device_id: int) -> None:
        self._services = services
        self._device_id = device_id
        self._journal = ReceiptJournal(services.home.journal, device_id)
        self._numbers: dict[str, str] = {}

    def note(self, receipt: ReceiptReceived) -> None:
        """Note a receipt that has just arrived; :meth:`record` it soon."""
        self._journal.note(receipt)

    async def catch_up(self) -> None:
        """Record what an earlier process noted and could not record any more."""
        for receipt in self._journal.left_behind():
            await self._record(receipt)

    async def record(self, receipt: ReceiptReceived) -> None:
        """Record a receipt that was noted, then let it move its messages; repeated, it changes nothing."""
        await self._record(receipt)
        self._journal.recorded()

    async def _record(self, receipt: ReceiptReceived) -> None:
        stage = _STAGES.get(receipt.kind)
        if stage is None:
            return
        number = await self._number_of(receipt.chat)
        receipts = tuple(
            Receipt(
                Event(
                    "receipt",
                    f"{message_id}:{stage}",
                    {
                        "message_id": message_id,
                        "stage": stage,
                        "chat": receipt.chat,
                        "chat_number": number,
                        "time": receipt.timestamp,
                    },
                ),
                message_id,
                stage,
            )
            for message_id in receipt.message_ids
        )
        await self._services.turn(Turn(self._device_id, receipts=receipts))

    async def _number_of(self, chat: str) -> str | None:
        """Return the phone number behind a private chat, if it is known."""
        number = self._numbers.get(chat)
        if number is None:
            number = await number_behind(self._services, chat)
            if number is not None:
                if len(self._numbers) >= _NUMBERS:
                    self._numbers.clear()
                self._numbers[chat] = number
        return number
