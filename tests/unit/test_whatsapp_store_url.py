"""What the store's URL is given for Go's driver, and the SQL files' format."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from actors.whatsapp.session import store_url_for_library
from config.errors import StorageUnavailable
from storage.sql import parse_queries, queries


def parameters(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def test_a_socket_url_keeps_its_path_and_closes_idle_connections() -> None:
    url = store_url_for_library("postgres://postgres:p%40ss@/whatsmeow?host=/run/my%20pg&port=5432")
    assert url.startswith("postgres://postgres:p%40ss@/whatsmeow?")
    found = parameters(url)
    assert (found["host"], found["port"], found["idle_session_timeout"]) == ("/run/my pg", "5432", "2000")
    assert "sslmode" not in found
    assert "+" not in url  # lib/pq takes it for a space or for itself, depending on its version


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_tls_is_not_demanded_on_loopback(host: str) -> None:
    assert parameters(store_url_for_library(f"postgresql://u:p@{host}:5433/w"))["sslmode"] == "disable"


def test_what_the_url_says_itself_is_kept() -> None:
    found = parameters(store_url_for_library("postgres://u@127.0.0.1/w?sslmode=require&connect_timeout=1"))
    assert (found["sslmode"], found["connect_timeout"]) == ("require", "1")
    assert "sslmode" not in parameters(store_url_for_library("postgres://u@db.example.org/w"))


def test_a_pooler_gets_no_settings_of_the_session() -> None:
    found = parameters(store_url_for_library("postgres://u@127.0.0.1:6432/w", pooled=True))
    assert found["binary_parameters"] == "yes"
    assert not {"idle_session_timeout", "synchronous_commit"} & set(found)


def test_a_keyword_value_string_is_an_error() -> None:
    with pytest.raises(StorageUnavailable, match="postgres://"):
        store_url_for_library("host=/run dbname=w password=hidden")


def test_statements_are_found_by_name_with_comments_above_or_below() -> None:
    text = "-- the file\n\n-- why\n-- name: one\nselect 1; \n\n-- name: two\n-- why\nselect 2\n  + 3;\n"
    assert parse_queries(text) == {"one": "select 1", "two": "select 2\n  + 3"}


def test_a_statement_named_twice_or_left_empty_is_an_error() -> None:
    with pytest.raises(ValueError, match="twice"):
        parse_queries("-- name: one\nselect 1;\n-- name: one\nselect 2;")
    with pytest.raises(ValueError, match="no statement"):
        parse_queries("-- name: one\n-- only words\n")


@pytest.mark.parametrize("group", ["whatsmeow"])
def test_the_query_files_can_be_read(group: str) -> None:
    assert queries(group) is queries(group)
    assert "stored_session" in queries(group)
