"""All Signal sessions a phone has with one device: the current one, and earlier ones for late messages."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from simulator.whatsapp.curve import KeyPair
from simulator.whatsapp.ratchet import (
    Chain,
    PreKeyMessage,
    Session,
    UndecryptableMessage,
    answer_session,
    decrypt,
)

#: How many earlier sessions are kept (libsignal's limit).
_EARLIER_KEPT = 40


@dataclass
class SessionRecord:
    """The sessions with one device, the current one first."""

    sessions: list[Session] = field(default_factory=list)

    def begin(self, session: Session) -> None:
        """Make ``session`` the current one."""
        self.sessions = [session, *self.sessions][: _EARLIER_KEPT + 1]

    def knows(self, message: PreKeyMessage) -> bool:
        """Tell whether the session that ``message`` begins exists already."""
        return any(session.base == message.base for session in self.sessions)

    def answer(
        self, identity: KeyPair, signed_pre_key: KeyPair, pre_key: KeyPair | None, message: PreKeyMessage
    ) -> bytes:
        """Begin the session of ``message`` and return its plaintext; on failure nothing is changed.

        Raises:
            UndecryptableMessage: the message does not authenticate.
        """
        session, plaintext = decrypt(answer_session(identity, signed_pre_key, pre_key, message), message.message)
        self.begin(session)
        return plaintext

    def decrypt(self, message: bytes) -> bytes:
        """Decrypt with the session the message belongs to, which becomes the current one.

        Raises:
            UndecryptableMessage: it belongs to none; the reason is the current session's.
        """
        reason = UndecryptableMessage("there is no session with this device")
        for position, session in enumerate(self.sessions):
            try:
                advanced, plaintext = decrypt(session, message)
            except UndecryptableMessage as error:
                reason = error if position == 0 else reason
                continue
            del self.sessions[position]
            self.begin(advanced)
            return plaintext
        raise reason

    def dump(self) -> bytes:
        """Return the record as it is kept."""
        return json.dumps([_session_to_json(session) for session in self.sessions]).encode()

    @classmethod
    def load(cls, data: bytes | None) -> SessionRecord:
        """Read a kept record; None is one without sessions."""
        return cls([_session_from_json(session) for session in json.loads(data)] if data else [])


def _session_to_json(session: Session) -> dict[str, Any]:
    return {
        "keys": [
            key.hex()
            for key in (
                session.ours,
                session.theirs,
                session.root,
                session.base,
                session.ratchet,
                session.sending,
            )
        ],
        "indices": [session.sending_index, session.previous_index, session.registration],
        "unanswered": session.unanswered,
        "chains": [
            [
                chain.ratchet.hex(),
                chain.key.hex(),
                chain.index,
                {str(n): seed.hex() for n, seed in chain.skipped.items()},
            ]
            for chain in session.chains
        ],
    }


def _session_from_json(kept: dict[str, Any]) -> Session:
    ours, theirs, root, base, ratchet, sending = (bytes.fromhex(key) for key in kept["keys"])
    sending_index, previous_index, registration = kept["indices"]
    return Session(
        ours=ours,
        theirs=theirs,
        root=root,
        base=base,
        ratchet=ratchet,
        sending=sending,
        sending_index=sending_index,
        previous_index=previous_index,
        registration=registration,
        unanswered=tuple(kept["unanswered"]) if kept["unanswered"] else None,
        chains=[
            Chain(
                bytes.fromhex(peer),
                bytes.fromhex(key),
                index,
                {int(n): bytes.fromhex(seed) for n, seed in skipped.items()},
            )
            for peer, key, index, skipped in kept["chains"]
        ],
    )
