"""The simulator's keys are kept away from everything but a loopback proxy."""

from __future__ import annotations

import pytest

from actors.whatsapp.loopback import KeepAlive, is_loopback, replace_noise_root
from config.errors import ConfigurationInvalid


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:8080", "socks5://127.8.8.8:1", "http://[::1]:80"])
def test_loopback_proxies_are_known(proxy: str) -> None:
    assert is_loopback(proxy)


@pytest.mark.parametrize(
    "proxy",
    [None, "", "http://192.0.2.1:8080", "http://127.0.0.1.example.org:80", "http://user@example.org", "nonsense"],
)
def test_everything_else_is_not_loopback(proxy: str | None) -> None:
    assert not is_loopback(proxy)
    with pytest.raises(ConfigurationInvalid, match=r"127\.0\.0\.1"):
        replace_noise_root(bytes(32), proxy=proxy)


def test_a_library_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigurationInvalid, match="0 times"):
        replace_noise_root(bytes(32), proxy="http://127.0.0.1:1")


def test_a_root_of_the_wrong_length_is_an_error() -> None:
    with pytest.raises(ConfigurationInvalid, match="32 bytes"):
        replace_noise_root(b"short", proxy="http://127.0.0.1:1")


def test_keep_alive_settings_are_nanoseconds() -> None:
    assert KeepAlive().as_variables()[:8] == (10_000_000_000).to_bytes(8, "little")
