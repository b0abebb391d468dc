"""Carries an adoption out: looks what there is, plans, copies each session, and has the router create its device.

A session is in our store before its device is in the device table, so that a device never stands without a session.
Interrupted between the two, a copy without a device is left, which nothing connects; a repetition replaces it.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

from actors.whatsapp.addresses import names_companion
from adoption.original import credentials_of, read_originals, token_of
from adoption.plan import Known, Session, Step, linked_at, make_plan
from adoption.source import ORIGINAL_TABLE
from adoption.store import check_schema, companion_tables, key_of
from config.errors import NoAnswer, NotFound, Refused, SalamanderError, StorageUnavailable
from storage.devices import Companion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actors.fleet import Fleet
    from adoption.source import Source
    from adoption.store import Store
    from storage.credentials import CredentialSeal


class Adoption:
    """One adoption, from a source into a running fleet.

    Args:
        source: what is adopted from.
        store: our whatsmeow database.
        fleet: the running fleet.
        seal: opens the credentials of the accounts that are here already.
        base_urls: the API addresses of platforms that have no common one, by platform.

    Attributes:
        warnings: what the operator should know, a sentence each.

    Raises:
        Refused: the source holds nothing to adopt, or nothing that can be copied as it is.
    """

    def __init__(
        self, source: Source, store: Store, fleet: Fleet, seal: CredentialSeal, base_urls: Mapping[str, str]
    ) -> None:
        self._source = source
        self._store = store
        self._fleet = fleet
        self._seal = seal
        self._base_urls = base_urls
        self.warnings: list[str] = []
        self._has_sessions = "whatsmeow_device" in source.tables()
        if self._has_sessions or ORIGINAL_TABLE not in source.tables():
            self.warnings += check_schema(source, store.version, store.schema)

    # --- looking -----------------------------------------------------------------------------------------

    def plan(self, chosen: Mapping[str, str]) -> list[Step]:
        """Return what would be done; nothing is changed. ``chosen``: names by JID, number or original name.

        Raises:
            Refused: a chosen name cannot be used.
        """
        sessions = list(self._sessions()) if self._has_sessions else []
        steps = make_plan(sessions, read_originals(self._source), self._known(), chosen)
        for step in steps:
            if step.session is not None and step.outcome == "planned" and "whatsmeow_pre_keys" not in step.session.rows:
                self.warnings.append(
                    f"{step.session.jid} brings no pre-keys: does the other tool keep keys in a second database?"
                    " Then the first messages to it cannot be read until their senders try again."
                )
        return steps

    def _sessions(self) -> Iterator[Session]:
        rows: dict[str, dict[str, int]] = defaultdict(dict)
        present = self._source.tables()
        for table in companion_tables(self._store.schema):
            if table in present:
                for jid, count in self._source.counts(table, key_of(self._store.schema[table])).items():
                    rows[jid][table] = count
        has_lid = "lid" in present["whatsmeow_device"]
        columns = ["jid", "adv_details", *(["lid"] if has_lid else [])]
        for jid, details, *lid in sorted(self._source.rows("whatsmeow_device", columns), key=lambda row: str(row[0])):
            yield Session(str(jid), str((lid or [""])[0] or ""), linked_at(bytes(details or b"")), rows[jid])

    def _known(self) -> Known:
        devices = self._fleet.devices()
        accounts = {}
        for device in devices:
            if device.platform is not None and device.credentials is not None:
                with suppress(SalamanderError):
                    token = token_of(device.platform, self._seal.open(device.credentials))
                    accounts[device.platform, token] = device.name
        return Known(
            companions={device.jid: device.name for device in devices if device.jid is not None},
            accounts=accounts,
            names=frozenset(device.name for device in devices),
        )

    # --- doing -------------------------------------------------------------------------------------------

    def carry_out(self, steps: list[Step]) -> Iterator[Step]:
        """Do what is planned, a step at a time, and yield each with what came of it. A failure costs that step only.

        Raises:
            Refused: the source is in use (again); what was yielded is done, the rest is not.
            NoAnswer, StorageUnavailable: our router or database is away; likewise. A repetition goes on.
        """
        if any(step.outcome == "planned" and step.session is not None for step in steps):
            self._source.require_idle()
            self._store.learn_lids(self._source)
        for step in steps:
            if step.outcome != "planned":
                yield step
                continue
            self._source.require_idle()
            try:
                if step.session is not None:
                    self._adopt(step, step.session)
                else:
                    self._import(step)
            except (NoAnswer, StorageUnavailable):
                raise
            except (Refused, NotFound) as error:
                yield step.ended("failed", f"{error.sentence} {error.next_step}".strip())
            else:
                yield step.ended("adopted")

    def _adopt(self, step: Step, session: Session) -> None:
        """Copy one session, then have its device created, bound to it in one row."""
        if not names_companion(session.jid):
            raise Refused(f"{session.jid} is no companion of a phone number.", code="bad_companion")
        self._store.copy_companion(self._source, session.jid)
        try:
            companion = Companion(session.jid, session.lid, session.linked_at)
            self._fleet.add_device(step.name, companion=companion, limits=step.limits)
        except Refused as refusal:
            if refusal.code != "companion_taken":
                self._store.forget_companion(session.jid)
            raise

    def _import(self, step: Step) -> None:
        """Create the device of a platform's account; its token is sealed before it leaves this process."""
        assert step.original is not None  # noqa: S101 - a step has a session or a row of the original's
        self._fleet.add_device(
            step.name,
            platform=step.original.platform,
            base_url=self._base_urls.get(step.platform),
            credentials=credentials_of(step.original),
            limits=step.limits,
        )
