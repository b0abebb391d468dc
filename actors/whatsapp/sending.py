"""Send one claimed message over a WhatsApp client, and record the one honest outcome."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from actors import uploads
from actors.care import Rules
from actors.media import MediaNotFetched, fetch_media
from actors.whatsapp import session
from actors.whatsapp.events import ClientError, Content, NotSent, SendRefused, Sent
from actors.whatsapp.evidence import Finding, SecretJournal, Verdict, weigh
from config.logging import logger
from storage import care, turns
from storage.outbox import Claim, Orphan, Outbox
from storage.turns import Turn

if TYPE_CHECKING:
    from actors.whatsapp.client import WhatsAppClient
    from actors.whatsapp.services import Services

Result = TypeVar("Result")

#: After an attempt that certainly did not send, the lane waits 1 s, 2 s, 4 s … up to this many seconds.
_LONGEST_HOLD = 60.0
#: How long WhatsApp may take to say whether a number is there, in seconds (the library waits longer).
_CHECK_SECONDS = 15.0
#: A message whose media cannot be had or uploaded is given up after so many attempts.
_MEDIA_ATTEMPTS = 5
_MEDIA_FAULTS = frozenset({"media_not_fetched", "upload_failed"})
#: Secrets of finished messages are deleted from the library's table so many at a time.
_FORGET_AT_ONCE = 50


class Sender:
    """Sends for one device, one message after the other. It knows nothing of connections' health."""

    def __init__(self, services: Services, device_id: int, name: str, owner: str) -> None:
        self._services = services
        self._device_id = device_id
        self._name = name
        self._rules = Rules.of(services.settings)
        self.outbox = Outbox(services.database, owner, self._rules)
        self.journal = SecretJournal(services.home.journal, device_id)
        #: The attempt under way, for the journal (read from the library's thread).
        self.attempt_under_way: int | None = None
        #: The secret of the claim that the lane asked for last. It may be committed long before its answer comes.
        self._claiming: bytes | None = None
        #: The companion that sends, or sent: with its session, the library deletes what it stored of its messages.
        self._jid: str | None = None
        self._finished: list[bytes] = []
        self._late: set[asyncio.Task[None]] = set()

    async def send_lane(
        self, client: WhatsAppClient, may_send: Callable[[], bool], give_up: Callable[[], None]
    ) -> None:
        """Send the lane's messages over ``client``, one after the other, as long as ``may_send``.

        Each is claimed before anything of it is sent; what became of it is recorded together with the next claim.
        ``give_up`` is called when the library hangs before anything left: it must have the client closed, which makes
        the library return. A cancelled attempt is settled by evidence later.
        """
        try:
            claim = await self._exchange(None) if may_send() else None
            while claim is not None:
                self._jid = client.jid
                self.attempt_under_way = claim.attempt_id
                sent = await self._send(claim, client, give_up)
                ended = None if sent is None else (claim, sent)
                claim = await self._exchange(ended, claim_next=may_send())
        finally:
            self.attempt_under_way = self._claiming = None

    async def _exchange(self, ended: tuple[Claim, Sent] | None, *, claim_next: bool = True) -> Claim | None:
        """Record that a message was sent, if one was, and claim the next, if any shall be: in one transaction."""
        outcome = None if ended is None else turns.sent(ended[0], ended[1].message_id)
        # Rules that hold for every device must be asked before a claim.
        at_once = claim_next and not self._rules.everywhere
        head = None
        if outcome is not None or at_once:
            secret = self._secret_to_claim_with() if at_once else None
            head = await self._services.turn(Turn(self._device_id, sent=outcome, secret=secret))
        if ended is not None:
            message, sent = ended
            await self._forget_secret(message.secret)
            logger().info("Sent", device=self._name, message=message.message_id, whatsapp_id=sent.message_id)
        if not claim_next or (head is not None and head.claim is not None):
            return None if head is None else head.claim
        if not at_once or (head is not None and (head.limited or head.again)):
            return await self._claim_by_the_rules()
        return None

    async def _claim_by_the_rules(self) -> Claim | None:
        """Claim the head of a lane that is limited, or whose first message was cancelled just now."""
        secret, asked = self._secret_to_claim_with(), itertools.count()
        return await self._record(lambda outbox: outbox.claim(self._device_id, secret, again=next(asked) > 0))

    def _secret_to_claim_with(self) -> bytes:
        self._claiming = secrets.token_bytes(32)
        return self._claiming

    async def _record(self, work: Callable[[Outbox], Result]) -> Result:
        """Do something with the outbox, and return when it is committed, with what the shard's other devices record."""
        return await self._services.store(lambda connection: work(self.outbox.within(connection)))

    async def _send(self, claim: Claim, client: WhatsAppClient, give_up: Callable[[], None]) -> Sent | None:
        """Send a claimed message. Return WhatsApp's answer, which is yet to be recorded; any other outcome is."""
        if not await self._recipient_is_there(claim, client):
            return None
        try:
            content = await self._content_of(claim)
        except MediaNotFetched as error:
            reason = str(error)
            if error.for_good:
                await self._record(lambda outbox: outbox.failed(claim, "media_not_fetched", reason))
            else:
                await self._not_sent(claim, "media_not_fetched", reason)
            return None
        with self._services.recorder.inside(self._device_id):
            call = asyncio.ensure_future(client.send(claim.recipient, content, claim.secret))
            finished, _ = await asyncio.wait({call}, timeout=self._services.settings.send_seconds)
        if not finished:
            finding = await self._find(claim)
            if finding.verdict is Verdict.UNKNOWN:
                await self._record(
                    lambda outbox: outbox.in_doubt(
                        claim, "no_answer", "WhatsApp did not answer in time.", finding.message_id
                    )
                )
                self._watch_late_answer(claim, call)
                give_up()  # the library is busy with it for another minute; the lane must not wait for that
                return None
            logger().warning("The library hangs before sending; closing its client", device=self._name)
            give_up()
        with contextlib.suppress(ClientError):
            await asyncio.wait({call})
        failure = call.exception()
        if failure is None:
            return call.result()
        await self._record_failure(claim, failure)
        return None

    async def _recipient_is_there(self, claim: Claim, client: WhatsAppClient) -> bool:
        """Return whether the message may go as far as its recipient is concerned; if not, record why.

        WhatsApp is asked before the first message to a number. Whatever goes wrong with that, nothing was sent yet.
        """
        there = claim.on_whatsapp
        if not self._services.settings.check_recipients or "@" in claim.recipient or there:
            return True
        if there is None:
            call = asyncio.ensure_future(client.is_on_whatsapp(claim.recipient))
            call.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            try:
                there = await asyncio.wait_for(asyncio.shield(call), _CHECK_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it was, the message has certainly not left
                words = str(error) or "no answer in time"
                reason = f"WhatsApp did not say whether the recipient is there: {words}".rstrip(".") + "."
                await self._not_sent(claim, "not_checked", reason)
                return False
            await self._services.store(care.note_check, claim.recipient, there)
        if not there:
            reason = "The number is not on WhatsApp."
            await self._record(lambda outbox: outbox.failed(claim, "not_on_whatsapp", reason))
            logger().warning("Not on WhatsApp", device=self._name, message=claim.message_id)
        return there

    async def _content_of(self, claim: Claim) -> Content:
        if claim.kind == "text":
            return Content("text", claim.body)
        media = await asyncio.to_thread(self._media_of, claim.media_url)
        return Content(claim.kind, claim.body, media, claim.media_name)

    def _media_of(self, media_url: str) -> bytes:
        upload_id = uploads.id_in(media_url)
        if upload_id is None:
            return fetch_media(media_url, loopback_allowed=self._services.loopback)
        try:
            return uploads.path_of(self._services.home, upload_id).read_bytes()
        except OSError as error:
            sentence = f"The uploaded file cannot be read on this host ({type(error).__name__})."
            raise MediaNotFetched(sentence, for_good=True) from None

    async def _record_failure(self, claim: Claim, error: BaseException) -> None:
        """Record the outcome of a call that has ended with an error."""
        if isinstance(error, SendRefused):
            code, reason = error.code, str(error)
            await self._record(lambda outbox: outbox.failed(claim, code, reason))
            logger().warning("Refused", device=self._name, message=claim.message_id, reason=reason)
        elif isinstance(error, NotSent):
            await self._not_sent(claim, error.code, str(error))
        else:
            code = error.code if isinstance(error, ClientError) else "library_error"
            await self._settle_by_evidence(claim, code, str(error))

    async def _forget_secret(self, secret: bytes) -> None:
        """Let the library's table forget the secrets of finished messages, many at once; nothing else prunes it."""
        self._finished.append(secret)
        if len(self._finished) >= _FORGET_AT_ONCE:
            finished, self._finished = self._finished, []
            await self._services.look(session.forget_secrets, finished)

    async def _not_sent(self, claim: Claim, code: str, reason: str) -> None:
        """Put a message that certainly did not leave back at the head of its lane, and let the lane breathe."""
        if code in _MEDIA_FAULTS and claim.attempt >= _MEDIA_ATTEMPTS:
            # The lane must not wait for one file for ever.
            await self._record(lambda outbox: outbox.failed(claim, code, reason))
            logger().warning("Given up on its media", device=self._name, message=claim.message_id, reason=reason)
            return
        seconds = min(_LONGEST_HOLD, 2.0 ** min(claim.attempt - 1, 10))
        await self._record(lambda outbox: outbox.queued_again(claim, code, reason))
        if claim.attempt > 1:
            await self._record(lambda outbox: outbox.hold_lane(self._device_id, seconds, reason))
        logger().warning(
            "Not sent; queued again", device=self._name, message=claim.message_id, reason=reason, code=code
        )

    async def _settle_by_evidence(self, claim: Claim, code: str, reason: str) -> None:
        finding = await self._find(claim)
        if finding.verdict is Verdict.NEVER_LEFT:
            await self._not_sent(claim, code, f"{reason} It never left: no secret was stored.")
            return
        await self._record(lambda outbox: outbox.in_doubt(claim, code, reason, finding.message_id))
        logger().warning("In doubt", device=self._name, message=claim.message_id, reason=reason)

    async def settle_orphans(self, jid: str | None) -> int:
        """Settle what earlier owners of this device left without an outcome; return how many there were.

        ``jid`` is the companion that the device is bound to.
        """
        orphans = await self._services.run(lambda: self.outbox.orphans([self._device_id]))
        await self._settle(orphans, jid, "Its process ended")
        return len(orphans)

    async def settle_stranded(self, jid: str | None, seconds: float) -> None:
        """Settle attempts that nobody has been at for ``seconds``, whoever made them: their outcome was lost."""
        stranded = await self._services.run(lambda: self.outbox.stranded([self._device_id], seconds))
        nobodys = [
            each for each in stranded if each.attempt_id != self.attempt_under_way and each.secret != self._claiming
        ]
        await self._settle(nobodys, jid, "Its attempt was abandoned")

    async def _settle(self, orphans: Sequence[Orphan], jid: str | None, what: str) -> None:
        """Settle attempts without an owner by evidence; ``what`` happened to them, as a sentence begins."""
        if not orphans:
            return
        found, intact = await self._look_up([orphan.secret for orphan in orphans], jid)
        for orphan in orphans:
            noted = self.journal.message_id_of(orphan.attempt_id)
            finding = weigh(found.get(orphan.secret), noted, store_intact=intact and orphan.session_stands)
            await self._record(self._outcome_of(orphan, finding, what))
            logger().info(
                "Settled an attempt that nobody was at any more",
                device=self._name,
                message=orphan.message_id,
                verdict=finding.verdict.value,
                whatsapp_id=finding.message_id,
            )

    def _outcome_of(self, orphan: Orphan, finding: Finding, what: str) -> Callable[[Outbox], None]:
        if finding.verdict is Verdict.NEVER_LEFT:
            again = f"{what} before the message left; it is sent again."
            return lambda outbox: outbox.queued_again(orphan, "never_left", again)
        doubt = f"{what} while the message was on its way."
        return lambda outbox: outbox.in_doubt(orphan, "process_ended", doubt, finding.message_id)

    async def _find(self, claim: Claim) -> Finding:
        found, intact = await self._look_up([claim.secret], self._jid)
        noted = self.journal.message_id_of(claim.attempt_id)
        return weigh(found.get(claim.secret), noted, store_intact=intact)

    async def _look_up(self, wanted: list[bytes], jid: str | None) -> tuple[dict[bytes, str], bool]:
        """Return the message id stored for each secret, and whether one that is missing proves anything."""

        def look(connection: session.Connection) -> tuple[dict[bytes, str], bool]:
            found = session.message_ids_of(connection, wanted)
            # In this order: a session that is still there now was there when the secrets were looked for.
            return found, jid is not None and session.stored_session(connection, jid) is not None

        return await self._services.look(look)

    def _watch_late_answer(self, claim: Claim, call: asyncio.Future[Sent]) -> None:
        """Let an answer that comes after the deadline still settle its message; other messages go on."""

        async def wait() -> None:
            await asyncio.wait({call})
            error = call.exception()
            if error is None:
                sent = call.result()
                await self._record(lambda outbox: outbox.sent(claim, sent.message_id, "Answered late."))
            elif isinstance(error, SendRefused):
                code, reason = error.code, f"{error} (Answered late.)"
                await self._record(lambda outbox: outbox.failed(claim, code, reason))

        task = asyncio.ensure_future(wait())
        self._late.add(task)
        task.add_done_callback(self._late.discard)
