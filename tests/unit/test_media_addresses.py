"""Which addresses a media URL may lead to: none inside our own networks, however they are written."""

from __future__ import annotations

import pytest

from actors.media import MediaNotFetched, _refuse_private_addresses

INSIDE = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0.0.0.0",  # noqa: S104 - nothing binds to it
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[fd00::1]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a00:1]",
    "[2002:7f00:1::]",
    "[64:ff9b:1::a00:1]",
    "[::ffff:0:10.0.0.1]",
    "[::10.0.0.1]",
    "[5f00::1]",
]


@pytest.mark.parametrize("host", INSIDE)
def test_what_is_inside_is_refused_for_good(host: str) -> None:
    with pytest.raises(MediaNotFetched, match="private network") as refused:
        _refuse_private_addresses(f"https://{host}/a.png", loopback_allowed=False)
    assert refused.value.for_good


@pytest.mark.parametrize("host", ["8.8.8.8", "[2606:4700::1111]", "[64:ff9b::808:808]", "[::ffff:8.8.8.8]"])
def test_what_is_public_is_not(host: str) -> None:
    _refuse_private_addresses(f"https://{host}/a.png", loopback_allowed=False)


@pytest.mark.parametrize("host", INSIDE)
def test_the_simulator_opens_this_machine_and_nothing_behind_it(host: str) -> None:
    url = f"http://{host}/a.png"
    if host in {"127.0.0.1", "127.1", "2130706433", "[::1]"}:
        _refuse_private_addresses(url, loopback_allowed=True)
    else:
        with pytest.raises(MediaNotFetched):
            _refuse_private_addresses(url, loopback_allowed=True)
