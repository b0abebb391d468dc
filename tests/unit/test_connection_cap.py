"""Connections to the embedded server stay below the cap, whatever is configured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigurationInvalid
from storage.connection_cap import connection_past_pgbouncer, shard_connections
from storage.pgbouncer import RESERVED, pooled_connections


@given(st.integers(40, 2000), st.integers(1, 512))
def test_all_shards_together_stay_below_the_cap_or_the_setting_is_refused(cap: int, max_shards: int) -> None:
    if (max_shards + 1) * 2 + 30 > cap:
        with pytest.raises(ConfigurationInvalid, match="database_connections"):
            shard_connections(cap, max_shards)
        return
    each = shard_connections(cap, max_shards)
    assert 1 <= each <= 2
    assert (max_shards + 1) * (each + 1) + 30 <= cap


def test_the_defaults_fit() -> None:
    assert shard_connections(100, 32) == 1
    assert shard_connections(200, 32) == 2
    with pytest.raises(ConfigurationInvalid, match="64 shards need 160 connections"):
        shard_connections(100, 64)


@given(st.integers(40, 2000), st.integers(1, 512))
def test_a_shard_has_a_connection_beside_pgbouncers_only_where_all_fit(cap: int, max_shards: int) -> None:
    pooled = pooled_connections(cap)
    if connection_past_pgbouncer(cap, max_shards, pooled=pooled, others=RESERVED):
        assert pooled + (max_shards + 1) + RESERVED <= cap
    else:
        assert pooled + (max_shards + 1) + RESERVED > cap


def test_with_the_defaults_it_has() -> None:
    assert pooled_connections(100) == 40
    assert connection_past_pgbouncer(100, 32, pooled=40, others=RESERVED)
    assert not connection_past_pgbouncer(40, 32, pooled=pooled_connections(40), others=RESERVED)
