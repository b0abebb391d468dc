"""What can be told of the images and the compose file without building them: they name what exists, carefully."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from config.settings import Settings

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*Dockerfile"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile: the word, and what follows it with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def last_stage(path: Path) -> list[tuple[str, str]]:
    steps = instructions(path)
    begins = max(position for position, (word, _) in enumerate(steps) if word == "FROM")
    return steps[begins:]


def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def test_every_file_that_an_image_copies_exists_and_is_let_through() -> None:
    let_through = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for path in DOCKERFILES:
        for word, rest in instructions(path):
            if word == "COPY" and not rest.startswith("--from"):
                copied.update(rest.split()[:-1])
    assert len(copied) > 10
    for name in copied:
        assert (PROJECT / name).exists(), name
        assert name.split("/")[0] in let_through, name


def test_the_image_holds_every_package_and_what_the_wheel_is_made_of() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    copied = {rest.split()[0] for word, rest in instructions(DEPLOY / "Dockerfile") if word == "COPY"}

    assert packages <= copied
    assert all((PROJECT / package).is_dir() for package in packages)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_an_ordinary_user_and_has_a_health_check(path: Path) -> None:
    stage = dict(last_stage(path))

    assert stage["USER"] not in {"root", "0"}
    assert stage["HEALTHCHECK"]
    assert ":" in stage["FROM"]
    assert not stage["FROM"].endswith(":latest")


def test_the_image_is_built_in_two_stages_from_hashed_dependencies() -> None:
    steps = instructions(DEPLOY / "Dockerfile")

    assert [word for word, _ in steps].count("FROM") == 2
    assert any("--require-hashes" in rest for word, rest in steps if word == "RUN")


def test_the_images_lock_is_a_part_of_the_whole_lock() -> None:
    def pins(path: Path) -> set[str]:
        return set(re.findall(r"^([a-z0-9._-]+==\S+)", path.read_text(encoding="utf-8"), re.MULTILINE | re.IGNORECASE))

    ours = pins(DEPLOY / "requirements.lock")
    assert len(ours) > 30
    assert ours <= pins(PROJECT / "requirements.lock"), "make lock writes both"
    assert not any(pin.startswith(("pytest", "ruff", "playwright")) for pin in ours)


def test_the_images_settings_exist() -> None:
    told = re.findall(r"SALAMANDER_([A-Z_]+)=(\S+)", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    names = {name.lower() for name, _ in told} - {"home"}
    names |= {name.removeprefix("SALAMANDER_").lower() for name in compose()["services"]["salamander"]["environment"]}

    assert names
    assert names <= set(Settings.model_fields)


def test_the_compose_file_names_what_is_there() -> None:
    told = compose()
    for name, service in told["services"].items():
        assert ("image" in service) != ("build" in service), name
        if "build" in service:
            assert (DEPLOY / service["build"]["context"]).resolve() == PROJECT
            assert (PROJECT / service["build"]["dockerfile"]).is_file()
        assert {each["source"] for each in service.get("configs", [])} <= set(told["configs"])
        volumes = {each.split(":")[0] for each in service.get("volumes", [])}
        assert volumes <= set(told["volumes"])
        assert set(service.get("depends_on", {})) <= set(told["services"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_both_databases_go_through_the_pooler_which_knows_them() -> None:
    environment = compose()["services"]["salamander"]["environment"]
    bouncer = configparser.ConfigParser(interpolation=None)
    bouncer.read(DEPLOY / "pgbouncer.ini")

    assert environment["SALAMANDER_PGBOUNCER"] == "yours"
    assert bouncer["pgbouncer"]["pool_mode"] == "transaction"
    for name in ("SALAMANDER_DATABASE_URL", "SALAMANDER_WHATSMEOW_DATABASE_URL"):
        url = urlsplit(environment[name])
        assert (url.hostname, str(url.port)) == ("pgbouncer", bouncer["pgbouncer"]["listen_port"])
        assert url.path.lstrip("/") in bouncer["databases"]


def test_no_password_stands_in_what_is_deployed() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"salamander:([^@\s]+)@", text)) == {"${POSTGRES_PASSWORD}"}
