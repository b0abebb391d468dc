"""Named statements, and the text that PostgreSQL can hold."""

from __future__ import annotations

from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.sql import parse_queries, queries
from storage.text import is_storable, storable, storable_value

any_text = st.text(st.characters(), max_size=50)


@given(any_text)
def test_what_is_storable_stays_and_the_rest_becomes_so(text: str) -> None:
    made = storable(text)
    assert "\x00" not in made
    assert made.encode("utf-8").decode("utf-8") == made
    assert len(made) == len(text)
    assert storable(made) == made
    assert (
        is_storable(text) == (made == text) == ("\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text))
    )


@given(
    st.recursive(st.none() | st.integers() | any_text, lambda each: st.lists(each) | st.dictionaries(any_text, each))
)
def test_every_text_inside_a_value_becomes_storable(value: object) -> None:
    assert "\\x00" not in repr(storable_value(value)).replace("\\\\", "")
    assert storable_value(storable_value(value)) == storable_value(value)


def test_statements_are_found_by_their_names_without_comments() -> None:
    text = "-- Above.\n-- name: one\nselect 1 -- inline\n;\n\n-- About two.\n-- name: two\n-- Below.\nselect 2;\n"
    assert parse_queries(text) == {"one": "select 1 -- inline", "two": "select 2"}


@pytest.mark.parametrize("text", ["-- name: one\n", "-- name: one\nselect 1;\n-- name: one\nselect 2;\n"])
def test_a_name_without_statement_or_with_two_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="one"):
        parse_queries(text)


@pytest.mark.parametrize(
    "group", sorted(entry.name.removesuffix(".sql") for entry in (files("storage") / "queries").iterdir())
)
def test_every_query_file_can_be_read_and_explains_each_statement(group: str) -> None:
    assert queries(group)
    text = (files("storage") / "queries" / f"{group}.sql").read_text(encoding="utf-8")
    assert text.count("-- name:") == len(queries(group))
    with pytest.raises(TypeError):
        queries(group)["new"] = "select 1"  # type: ignore[index]  # it must be read-only
