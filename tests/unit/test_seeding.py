"""Seeded companions are linked as truly as paired ones: every signature verifies."""

from __future__ import annotations

from benchmarks.support.seeding import PRE_KEYS, make_links
from simulator.whatsapp.adv import key_index_of, verify_device_identity
from simulator.whatsapp.curve import verify_pre_key


def test_a_seeded_link_has_valid_signatures_of_both_sides_and_keys_of_its_own() -> None:
    links = list(make_links("shop", 3))
    for link in links:
        companion = link.companion
        verify_device_identity(companion.device_identity, link.phone.identity.public, companion.identity)
        assert key_index_of(companion.device_identity) == companion.device
        assert verify_pre_key(companion.identity, companion.signed_pre_key, companion.signature)
        assert verify_pre_key(link.phone.identity.public, link.phone.signed_pre_key.public, link.phone.signature)
        assert len(link.pre_keys) == PRE_KEYS
    assert len({link.jid for link in links}) == 3
    assert len({link.companion.identity for link in links}) == 3
