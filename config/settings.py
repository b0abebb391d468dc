"""Every setting, typed, with its default and the reason for it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config.errors import ConfigurationInvalid
from config.home import Home


class Settings(BaseSettings):
    """The configuration of one installation.

    Values come from, first wins: ``SALAMANDER_*`` environment variables, ``config.toml`` in the home,
    the defaults here. Durations are in seconds.
    """

    model_config = SettingsConfigDict(env_prefix="SALAMANDER_", extra="forbid", frozen=True)

    #: The one address every socket of the actor system binds to. Anything but loopback needs a private network.
    bind_address: str = "127.0.0.1"
    #: The Thespian Admin's port; 0 picks a free one at each start (clients find it in the home).
    admin_port: int = Field(0, ge=0, le=65535)

    #: PostgreSQL for devices and the outbox; empty: the embedded server.
    database_url: SecretStr | None = None
    #: PostgreSQL for whatsmeow's own tables. It must be another database; needed when ``database_url`` is set.
    whatsmeow_database_url: SecretStr | None = None
    #: Where PostgreSQL's programs are (a directory holding ``postgres`` and ``initdb``); empty: found by itself.
    postgres_programs: Path | None = None

    #: Processes that host WhatsApp devices, at most. A fleet of up to this many devices gets one each.
    max_shards: int = Field(32, ge=1, le=512)
    #: Worker threads of each platform actor: how many requests to one platform may be under way at once.
    platform_workers: int = Field(16, ge=1, le=256)

    #: How often children report that they are alive.
    heartbeat_seconds: float = Field(2.0, gt=0)
    #: Heartbeats that may be missing before a child is killed and started again.
    heartbeat_misses: int = Field(3, ge=2)
    #: How long a new child may take to report for the first time (it imports a large library).
    child_start_seconds: float = Field(60.0, gt=0)

    #: The back-off of restarts: the first wait, and the longest.
    backoff_first_seconds: float = Field(1.0, gt=0)
    backoff_longest_seconds: float = Field(300.0, gt=0)
    #: How long a device or child must stay up before its back-off starts afresh.
    stable_seconds: float = Field(300.0, gt=0)

    #: Connects a second of the whole fleet, at most, whoever asks for them.
    connects_per_second: float = Field(60.0, gt=0)
    #: How long one connection attempt of a device may take.
    connect_seconds: float = Field(20.0, gt=0)
    #: How long the WhatsApp library may take to reconnect by itself before the device is refreshed.
    reconnect_seconds: float = Field(15.0, gt=0)
    #: How long one send may take before its outcome is looked up instead of awaited.
    send_seconds: float = Field(30.0, gt=0)
    #: How long a pairing stays open.
    pairing_seconds: float = Field(160.0, gt=0)
    #: How long a stop waits for sends under way.
    drain_seconds: float = Field(5.0, ge=0)
    #: How often lanes are looked at without a hint that there is work.
    poll_seconds: float = Field(1.0, gt=0)

    #: The country assumed for numbers written without one (two letters, as MY or ID); empty: none, so such
    #: numbers are refused. A number is never rewritten from one country to another.
    default_region: str = Field("", pattern=r"^([A-Z]{2})?$")

    #: Log lines below this level are not written.
    log_level: str = Field("info", pattern=r"^(debug|info|warning|error)$")

    @model_validator(mode="after")
    def _databases_belong_together(self) -> Self:
        if (self.database_url is None) != (self.whatsmeow_database_url is None):
            raise ValueError("database_url and whatsmeow_database_url must be set together")
        if self.backoff_longest_seconds < self.backoff_first_seconds:
            raise ValueError("backoff_longest_seconds must not be less than backoff_first_seconds")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over ``config.toml`` (which arrives as the initial values)."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


def load_settings(home: Home) -> Settings:
    """Read the settings of ``home``.

    Raises:
        ConfigurationInvalid: a value is unusable or unknown; the sentence names it.
    """
    known = {f"SALAMANDER_{name}".upper() for name in Settings.model_fields} | {
        "SALAMANDER_HOME",
        "SALAMANDER_DAEMON",
        "SALAMANDER_SIMULATOR",
    }
    # Credentials of platform accounts are not settings, but come the same way (see commands/devices.py).
    given = [name for name in os.environ if name.startswith("SALAMANDER_")]
    unknown = sorted(set(given) - known - {name for name in given if name.startswith("SALAMANDER_CREDENTIAL_")})
    if unknown:
        raise ConfigurationInvalid(
            f"The environment variable {unknown[0]} is no setting of Salamander.",
            "See README, Configuration.",
        )
    where = f"{home.configuration} or the environment"
    try:
        values: dict[str, Any] = {}
        if home.configuration.exists():
            values = tomllib.loads(home.configuration.read_text(encoding="utf-8"))
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "configuration"
        raise ConfigurationInvalid(
            f"The setting {name} is not usable: {first['msg']}.", f"Correct it in {where}."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationInvalid(f"{home.configuration} is not valid TOML: {error}.", "Correct that line.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(f"{home.configuration} cannot be read: {type(error).__name__}.") from None
