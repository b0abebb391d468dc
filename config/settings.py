"""Every setting, typed, with its default and the reason for it."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import phonenumbers
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from config.errors import ConfigurationInvalid
from config.home import Home
from config.quiet_hours import QuietHours, time_zone


class Settings(BaseSettings):
    """The configuration of one installation.

    Values come from, first wins: ``SALAMANDER_*`` environment variables, ``config.toml`` in the home,
    the defaults here. Durations are in seconds.
    """

    model_config = SettingsConfigDict(env_prefix="SALAMANDER_", extra="forbid", frozen=True, allow_inf_nan=False)

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

    #: PgBouncer, which lets any number of clients share a few connections: ``auto`` runs it before the embedded server
    #: when its program is found, a path names the program, ``off`` does without; ``yours`` says that the database
    #: URLs lead through a PgBouncer of yours (in transaction mode).
    pgbouncer: str = "auto"
    #: Connections to the embedded server, at most, however many devices there are.
    database_connections: int = Field(100, ge=40, le=10_000)

    #: Processes that host WhatsApp devices, at most. A fleet of up to this many devices gets one each.
    max_shards: int = Field(32, ge=1, le=512)
    #: Worker threads of each platform actor, at most (they are started as they are needed): how many requests to one
    #: platform may be under way at once.
    platform_workers: int = Field(100, ge=1, le=256)
    #: How many messages of one platform account may be under way at once (never more than docs/platforms.md says of its
    #: platform, and one where the device has limits of its own). With more than one, messages may overtake each other.
    platform_in_flight: int = Field(1, ge=1, le=64)

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

    #: Connects of the whole fleet within a second, at most, whoever asks for them: 3000 devices take 36 s.
    connects_per_second: float = Field(100.0, gt=0)
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

    #: What a shard may use up before a fresh process takes over its devices; 0: any amount. Clients opened since its
    #: start (the library leaks two descriptors and some memory at each); descriptors and memory (MB) beyond what its
    #: devices take ordinarily (12 and 1 MB each); its age.
    recycle_refreshes: int = Field(5000, ge=0)
    recycle_descriptors: int = Field(8192, ge=0)
    recycle_memory_mb: float = Field(256.0, ge=0)
    recycle_age_seconds: float = Field(604_800.0, ge=0)

    #: The country assumed for numbers written without one (two letters, as MY or ID); empty: none, so such
    #: numbers are refused. A number is never rewritten from one country to another.
    default_region: str = Field("", pattern=r"^([A-Z]{2})?$")

    #: Pacing of each device, off by default; a device's own limits (run.py device limit) come first. The least time
    #: between the end of one send and the beginning of the next, and up to how much is added to it at random.
    send_gap_seconds: float = Field(0.0, ge=0, le=86_400)
    send_jitter_seconds: float = Field(0.0, ge=0, le=86_400)
    #: Messages a device sends in any 60 minutes, and in any 24 hours; 0: any number.
    sends_per_hour: int = Field(0, ge=0, le=1_000_000)
    sends_per_day: int = Field(0, ge=0, le=1_000_000)
    #: For how many days after it was linked (a platform device: added) a device warms up; 0: not at all. Meanwhile it
    #: sends at most warm_up_messages in 24 hours on its first day, twice as many on its second, and so on.
    warm_up_days: int = Field(0, ge=0, le=365)
    warm_up_messages: int = Field(20, ge=1, le=1_000_000)
    #: When only urgent messages are sent, as 22:00-07:00 by the clocks of the time zone; empty: never.
    quiet_hours: str = ""
    quiet_hours_time_zone: str = "UTC"
    #: The priority from which on a message is urgent: it is sent in quiet hours.
    urgent_priority: int = Field(10, ge=-100, le=100)
    #: Whoever writes one of these words, and nothing else, to a WhatsApp device is not written to any more.
    opt_out_words: tuple[str, ...] = ("STOP", "BERHENTI", "UNSUBSCRIBE")
    #: Whether WhatsApp is asked about a number before the first message to it (again after 30 days; after a day when
    #: the number was not on WhatsApp).
    check_recipients: bool = True
    #: After how long in doubt a message is sent again; 0: never by itself. It may then arrive twice.
    in_doubt_patience_seconds: float = Field(0.0, ge=0)

    #: How long a device must be logged out, banned or otherwise down before its messages go by a fallback device.
    failover_patience_seconds: float = Field(300.0, ge=0)
    #: After how many attempts that certainly did not send a message goes by a fallback device.
    failover_attempts: int = Field(5, ge=1)

    #: After how many days finished messages, with their stories, received events and restarts are removed; 0: never.
    retention_days: int = Field(0, ge=0, le=36_500)

    #: The HTTP API and the dashboard: whether there are any, their port (0: a free one, picked once and kept), the
    #: address they bind to, and the names by which a reverse proxy reaches them (a browser may use no other).
    gateway_enabled: bool = True
    gateway_port: int = Field(0, ge=0, le=65535)
    gateway_address: str = "127.0.0.1"
    gateway_hosts: tuple[str, ...] = ()
    #: Requests of one API key in a minute, unless the key has a limit of its own; 0: any number.
    requests_per_minute: int = Field(60_000, ge=0, le=10_000_000)
    #: The largest file that may be uploaded, in megabytes. WhatsApp takes documents up to 2 GB, but a sender holds a
    #: file in memory while it encrypts it.
    upload_megabytes: int = Field(64, ge=1, le=512)

    #: The listener for platforms' webhooks: its port (0: none), and the address it binds to. Anything but loopback
    #: wants a reverse proxy with TLS before it.
    webhook_port: int = Field(0, ge=0, le=65535)
    webhook_address: str = "127.0.0.1"
    #: The address under which providers reach it from outside, as https://hooks.example.com; empty: not at all.
    webhook_base_url: str = ""

    #: Networks (as 10.1.0.0/16) that webhook endpoints may be in, and be http, though they are private. None by itself:
    #: whoever may add an endpoint could otherwise reach what only this machine reaches.
    endpoint_networks: tuple[str, ...] = ()

    #: Where traces are exported to: the address of an OpenTelemetry collector that takes OTLP over HTTP, path and all,
    #: as http://127.0.0.1:4318/v1/traces; empty: nothing is traced. What authorises us there is a secret, and comes in
    #: OpenTelemetry's own environment variable OTEL_EXPORTER_OTLP_HEADERS.
    traces_endpoint: str = ""
    #: How many of the traces that begin here are recorded, from 0 to 1; a caller's traceparent decides for itself.
    traces_share: float = Field(1.0, ge=0, le=1)

    #: Log lines below this level are not written.
    log_level: str = Field("info", pattern=r"^(debug|info|warning|error)$")

    @property
    def quiet(self) -> QuietHours | None:
        """The quiet hours, or None when there are none."""
        return QuietHours.parse(self.quiet_hours, self.quiet_hours_time_zone) if self.quiet_hours else None

    @field_validator("pgbouncer")
    @classmethod
    def _pgbouncer_is_a_choice(cls, choice: str) -> str:
        if choice not in {"auto", "off", "yours"} and not choice.startswith("/"):
            raise ValueError("it is neither auto, off, yours nor an absolute path")
        return choice

    @field_validator("default_region")
    @classmethod
    def _region_exists(cls, region: str) -> str:
        if region and region not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(f"there is no region {region}; write it as MY or ID")
        return region

    @field_validator("quiet_hours_time_zone")
    @classmethod
    def _time_zone_exists(cls, name: str) -> str:
        time_zone(name)
        return name

    @field_validator("quiet_hours")
    @classmethod
    def _quiet_hours_are_readable(cls, span: str) -> str:
        if span:
            QuietHours.parse(span, "UTC")
        return span

    @field_validator("opt_out_words")
    @classmethod
    def _words_say_something(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not all(word.strip() for word in words):
            raise ValueError("an empty word would opt out whoever sends a picture")
        return words

    @field_validator("endpoint_networks")
    @classmethod
    def _networks_are_some(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError(f"{network} is no network; write it as 10.1.0.0/16") from None
        return networks

    @field_validator("bind_address")
    @classmethod
    def _one_interface(cls, address: str) -> str:
        try:
            parsed = ipaddress.IPv4Address(address)
        except ValueError:
            raise ValueError("it is no IPv4 address") from None
        if parsed.is_unspecified or parsed.is_multicast:
            raise ValueError("it is not the address of one interface")
        return address

    @field_validator("webhook_address", "gateway_address")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        try:
            return str(ipaddress.ip_address(address))
        except ValueError:
            raise ValueError("it is no IP address") from None

    @field_validator("webhook_base_url", "traces_endpoint")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if url and (not usable or parts.query or parts.fragment or "@" in parts.netloc or not url.isascii()):
            raise ValueError("it is no http or https address without user, query and fragment")
        return url

    @field_validator("traces_endpoint")
    @classmethod
    def _traces_can_be_exported(cls, url: str) -> str:
        if url and urlsplit(url).path in {"", "/"}:
            raise ValueError("it has no path; collectors take traces at /v1/traces")
        if url and not (find_spec("opentelemetry") and find_spec("opentelemetry.proto")):
            raise ValueError("OpenTelemetry is not installed; it comes with the extra salamander[tracing]")
        return url

    @model_validator(mode="after")
    def _databases_belong_together(self) -> Self:
        if (self.database_url is None) != (self.whatsmeow_database_url is None):
            raise ValueError("database_url and whatsmeow_database_url must be set together")
        if self.pgbouncer == "yours" and self.database_url is None:
            raise ValueError("pgbouncer can be yours only when database_url leads to it")
        if self.pgbouncer.startswith("/") and self.database_url is not None:
            raise ValueError("the daemon runs PgBouncer before the embedded server only; before yours, it is yours")
        if self.traces_endpoint and not (self.gateway_enabled or self.webhook_port):
            raise ValueError("traces_endpoint needs the gateway, which exports them; set gateway_enabled")
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
            "See docs/settings.md.",
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
        problem = first["msg"].removeprefix("Value error, ")
        raise ConfigurationInvalid(f"The setting {name} is not usable: {problem}.", f"Correct it in {where}.") from None
    except SettingsError as error:
        # A list in the environment that is no JSON; the sentence names the setting, and its cause may quote the value.
        raise ConfigurationInvalid(f"{error}.", f"Write lists as JSON; correct it in {where}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationInvalid(f"{home.configuration} is not valid TOML: {error}.", "Correct that line.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(
            f"{home.configuration} cannot be read: {type(error).__name__}.",
            "Make it a text file (UTF-8) that this user may read.",
        ) from None
