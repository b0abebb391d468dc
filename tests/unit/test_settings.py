"""Settings: where they come from, and the one line that tells what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config import settings as settings_module
from config.errors import ConfigurationInvalid, HomeNotUsable
from config.home import Home
from config.settings import Settings, load_settings

SECRET = "hunter2-in-the-url"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in [name for name in os.environ if name.startswith("SALAMANDER_")]:
        monkeypatch.delenv(name)
    return Home(tmp_path)


def write(home: Home, text: str) -> None:
    home.configuration.write_text(text, encoding="utf-8")


def refusal(home: Home) -> ConfigurationInvalid:
    with pytest.raises(ConfigurationInvalid) as refused:
        load_settings(home)
    assert "\n" not in refused.value.sentence, "one line"
    assert refused.value.next_step
    assert refused.value.exit_code != 0
    return refused.value


def test_without_a_file_the_defaults_hold(home: Home) -> None:
    settings = load_settings(home)
    assert settings.bind_address == "127.0.0.1"
    assert settings.database_url is None
    assert settings.default_region == ""
    assert settings.backoff_first_seconds <= settings.backoff_longest_seconds


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, 'max_shards = 5\ndefault_region = "MY"\n')
    monkeypatch.setenv("SALAMANDER_MAX_SHARDS", "7")
    settings = load_settings(home)
    assert (settings.max_shards, settings.default_region, settings.platform_workers) == (7, "MY", 100)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("max_shards = 0", "max_shards"),
        ('max_shards = "many"', "max_shards"),
        ("max_shards = 1.5", "max_shards"),
        ("admin_port = 70000", "admin_port"),
        ("heartbeat_seconds = 0", "heartbeat_seconds"),
        ("heartbeat_seconds = nan", "heartbeat_seconds"),
        ("connect_seconds = inf", "connect_seconds"),
        ("poll_seconds = -1", "poll_seconds"),
        ('default_region = "malaysia"', "default_region"),
        ('default_region = "my"', "default_region"),
        ('default_region = "XX"', "default_region"),
        ('log_level = "loud"', "log_level"),
        ('bind_address = "everywhere"', "bind_address"),
        ('bind_address = "0.0.0.0"', "bind_address"),
        ("colour = 1", "colour"),
        ('pgbouncer = "sometimes"', "pgbouncer"),
        ('pgbouncer = "yours"', "pgbouncer"),
        (
            'pgbouncer = "/usr/sbin/pgbouncer"\ndatabase_url = "postgresql:///a"\nwhatsmeow_database_url = "postgresql:///b"',
            "PgBouncer",
        ),
        ("database_connections = 5", "database_connections"),
        ('traces_endpoint = "127.0.0.1:4318/v1/traces"', "traces_endpoint"),
        ('traces_endpoint = "http://127.0.0.1:4318"', "/v1/traces"),
        ('traces_endpoint = "http://me:hush@127.0.0.1:4318/v1/traces"', "traces_endpoint"),
        ('traces_endpoint = "http://127.0.0.1:4318/v1/traces"\ngateway_enabled = false', "gateway_enabled"),
        ("traces_share = 1.5", "traces_share"),
        ("recycle_age_seconds = -1", "recycle_age_seconds"),
        ("backoff_first_seconds = 10\nbackoff_longest_seconds = 5", "backoff_longest_seconds"),
        (f'database_url = "postgresql://u:{SECRET}@localhost/a"', "whatsmeow_database_url"),
        (f"database_url = ['{SECRET}']\nwhatsmeow_database_url = 1", "database_url"),
    ],
)
def test_a_wrong_value_is_named_and_never_repeated(home: Home, line: str, name: str) -> None:
    write(home, line)
    error = refusal(home)
    assert name in error.sentence
    assert SECRET not in f"{error} {error.as_dict()}"
    assert str(home.configuration) in error.next_step


def test_an_unknown_variable_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALAMANDER_MAX_SHARD", "7")
    assert "SALAMANDER_MAX_SHARD " in refusal(home).sentence


@pytest.mark.parametrize("content", [b"max_shards = ", b"[", b"a = 1\na = 2", b"\xff\xfe", b"\x00"])
def test_a_file_that_cannot_be_read_is_named(home: Home, content: bytes) -> None:
    home.configuration.write_bytes(content)
    assert str(home.configuration) in refusal(home).sentence


def test_a_directory_in_place_of_the_file_is_named(home: Home) -> None:
    home.configuration.mkdir()
    assert str(home.configuration) in refusal(home).sentence


def test_secrets_show_in_no_representation(home: Home) -> None:
    write(home, f'database_url = "postgresql://u:{SECRET}@h/a"\nwhatsmeow_database_url = "postgresql://u:{SECRET}@h/b"')
    settings = load_settings(home)
    assert SECRET not in f"{settings!r} {settings}"
    assert SECRET not in settings.model_dump_json()


def test_each_setting_has_a_default() -> None:
    assert all(not field.is_required() for field in Settings.model_fields.values())


# --- the home --------------------------------------------------------------------------------------------


def test_a_home_is_created_for_its_owner_alone_and_its_keys_stay(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home")
    home.create()
    keys = [home.frame_key, home.credentials_key]
    first = [key.read_bytes() for key in keys]
    assert [len(key) for key in first] == [32, 32]
    assert first[0] != first[1]
    for path, mode in ((home.path, 0o700), (home.run, 0o700), (home.logs, 0o700), *((key, 0o600) for key in keys)):
        assert path.stat().st_mode & 0o777 == mode
    home.create()
    assert [key.read_bytes() for key in keys] == first


def test_a_home_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(HomeNotUsable, match="file") as refused:
        Home(tmp_path / "file" / "home").create()
    assert "--home" in refused.value.next_step


def test_traces_are_refused_where_nothing_can_export_them(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, 'traces_endpoint = "http://127.0.0.1:4318/v1/traces"')
    assert load_settings(home).traces_endpoint == "http://127.0.0.1:4318/v1/traces"
    monkeypatch.setattr(settings_module, "find_spec", lambda _name: None)
    assert "salamander[tracing]" in refusal(home).sentence
