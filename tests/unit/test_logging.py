"""Log lines: one JSON object each, whole, without secrets, whatever happens to the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from config import logging as our_logging
from config.logging import LogFile, configure_logging, human_line, logger, scrub

SECRET = "hunter2"
WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """A log file that this process writes to, as an actor does."""
    path = tmp_path / "salamander.log"
    configure_logging(path, "info", "test")
    yield path
    structlog.reset_defaults()
    our_logging._bound.clear()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_says_when_who_and_what(log: Path) -> None:
    logger(device="shop").info("Sent", message=7, reason="line\nbreak", who="名前 🎉")
    [line] = lines(log)
    assert {"actor": "test", "level": "info", "event": "Sent", "device": "shop", "message": 7}.items() <= line.items()
    assert (line["reason"], line["who"]) == ("line\nbreak", "名前 🎉")
    assert line["timestamp"].endswith("Z")
    assert log.stat().st_mode & 0o777 == 0o600


def test_lines_below_the_level_are_not_written(log: Path) -> None:
    logger().debug("too detailed")
    assert not log.exists()


def test_what_is_odd_is_written_all_the_same(log: Path) -> None:
    logger().info("odd", path=Path("/somewhere"), bad="\udce9", number=float("nan"), nested={"a": [object]})
    logger().info("next")
    assert [line["event"] for line in lines(log)] == ["odd", "next"]


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "access_token",
        "secret",
        "secret_key",
        "password",
        "Authorization",
        "api_key",
        "apikey",
        "credentials",
        "database_url",
        "dsn",
        "key",
    ],
)
def test_fields_that_hold_secrets_are_masked(log: Path, key: str) -> None:
    logger().info("a line", **{key: SECRET})
    assert SECRET not in log.read_text(encoding="utf-8")
    assert lines(log)[0][key] == "***"


def test_secrets_in_urls_are_masked_wherever_they_stand(log: Path) -> None:
    url = f"postgresql://user:{SECRET}@localhost/x"
    try:
        raise ValueError(url)
    except ValueError as error:
        logger().info(f"at {url}", reason=f"cannot reach {url}.", error=error, nested=[error])
        logger().exception("with a traceback")
    assert SECRET not in log.read_text(encoding="utf-8")
    assert lines(log)[0]["reason"] == "cannot reach postgresql://***@localhost/x."
    assert "ValueError" in lines(log)[1]["exception"]


@given(WORDS, st.sampled_from(["", "/path", ":80/x?y=1", "?mail=a@b.example"]), WORDS)
def test_scrubbing_takes_the_credentials_and_leaves_the_rest(word: str, rest: str, host: str) -> None:
    assert scrub(f"see http://{host}{rest} now") == f"see http://{host}{rest} now"
    assert scrub(f"see http://u:{word}@{host}{rest} now") == f"see http://***@{host}{rest} now"
    assert scrub(f"see socks5://{word}@{host}") == f"see socks5://***@{host}"
    assert scrub(f"see http://u:{word}@{word}@{host}") == f"see http://***@{host}", "a password that was not quoted"


def test_a_file_that_was_rotated_away_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(our_logging, "_ROTATION_CHECK_SECONDS", -1.0)
    path = tmp_path / "a.log"
    file = LogFile(path)
    file.write("before\n")
    path.rename(tmp_path / "a.log.1")
    file.write("after\n")
    assert path.read_text(encoding="utf-8") == "after\n"
    assert (tmp_path / "a.log.1").read_text(encoding="utf-8") == "before\n"


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(our_logging, "_ROTATION_CHECK_SECONDS", -1.0)
    path = tmp_path / "missing" / "a.log"
    file = LogFile(path)
    file.write("lost\n")
    path.parent.mkdir()
    file.write("kept\n")
    assert path.read_text(encoding="utf-8") == "kept\n"


def _write_many(path: Path, name: str) -> None:
    file = LogFile(path)
    for number in range(200):
        file.write(f"{name} {number} {name * 500}\n")


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    processes = [get_context("spawn").Process(target=_write_many, args=(path, name)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    written = path.read_text(encoding="utf-8").splitlines()
    assert sorted(written) == sorted(f"{name} {number} {name * 500}" for name in "abcd" for number in range(200))


def test_a_record_reads_as_a_line_for_people() -> None:
    record = {
        "timestamp": "2026-01-02T03:04:05.678901Z",
        "level": "info",
        "actor": "router",
        "pid": 1,
        "event": "Sent",
        "device": "shop",
        "reason": "",
        "attempt": 0,
    }
    assert human_line(record) == "2026-01-02 03:04:05.678 info    router: Sent  device=shop  attempt=0"
    assert human_line({}) is not None
