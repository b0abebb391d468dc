"""Messages from a CSV file: whole files refused, single lines reported, the rest as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.csv_file import Line, read_csv
from config.errors import Refused


def read(path: Path, content: str | bytes, *, device: str | None = None) -> list[Line]:
    path = path / "messages.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv(
        path,
        device=device,
        known_devices={"shop": None, "office": None, "desk": "green_api"},
        region="MY",
        loopback=False,
    )


def messages(lines: list[Line]) -> list[tuple[str, str, str]]:
    return [(line.message.device, line.message.to, line.message.text) for line in lines if line.message]


def test_a_file_is_read_in_its_order(tmp_path: Path) -> None:
    lines = read(tmp_path, "device,to,text\nshop,+60123456789,hello\noffice,0123456788,second\n")
    assert messages(lines) == [("shop", "+60123456789", "hello"), ("office", "0123456788", "second")]
    assert [line.number for line in lines] == [2, 3]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffdevice,to,text\nshop,+60123456789,hello\n",
        "device,to,text\r\nshop,+60123456789,hello\r\n",
        " Device , TO ,Text\nshop,+60123456789,hello",
        "device,to,text\n\n , ,\nshop,+60123456789,hello\n\n",
        "text,to,device\nhello,+60123456789,shop\n",
        'device,to,text\n"shop","+60123456789","hello"\n',
        "device,to,text\n shop , +60123456789 ,hello\n",
    ],
    ids=["byte order mark", "windows", "header's spelling", "blank lines", "other order", "quoted", "spaces"],
)
def test_files_of_many_programs_say_the_same(tmp_path: Path, content: str) -> None:
    assert messages(read(tmp_path, content)) == [("shop", "+60123456789", "hello")]


def test_a_text_keeps_its_spaces_lines_and_quotes(tmp_path: Path) -> None:
    [line, after] = read(
        tmp_path, 'device,to,text\nshop,+60123456789,"  two\nlines, ""quoted""  "\nshop,+60123456788,x\n'
    )
    assert line.message is not None
    assert line.message.text == '  two\nlines, "quoted"  '
    assert (line.number, after.number) == (3, 4), "a line is named by where it ends"


def test_media_and_keys_are_read(tmp_path: Path) -> None:
    [line] = read(tmp_path, "device,to,text,media,key\nshop,+60123456789,look,https://example.com/a.png,order-1\n")
    assert line.message is not None
    assert line.message.media is not None
    assert (line.message.media.url, line.message.idempotency_key) == ("https://example.com/a.png", "order-1")
    [line] = read(tmp_path, "device,to,media\nshop,+60123456789,https://example.com/a.png\n")
    assert line.message is not None
    assert line.message.text == ""


def test_the_sender_may_be_given_for_the_whole_file(tmp_path: Path) -> None:
    content = "to,text\n+60123456789,hello\n"
    assert messages(read(tmp_path, content, device="office")) == [("office", "+60123456789", "hello")]
    assert read(tmp_path, content, device="nobody")[0].problem == "there is no device named 'nobody'"
    mixed = "device,to,text\n,+60123456789,one\nshop,+60123456789,two\n"
    assert [device for device, _, _ in messages(read(tmp_path, mixed, device="office"))] == ["office", "shop"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nobody,+60123456789,hello", "no device named 'nobody'"),
        ("shop,12,hello", "12"),
        ("shop,,hello", "not a telephone number"),
        ("shop,+60123456789,", "empty"),
        ("shop,+60123456789,hello,extra", "4 columns"),
        ("shop,+60123456789", "2 columns"),
        ("shop,+60123456789,a\x00b", "NUL"),
        ("shop,+60123456789," + "x" * 70_000, "70,000 characters"),
    ],
)
def test_a_broken_line_is_reported_and_the_others_stay(tmp_path: Path, line: str, words: str) -> None:
    lines = read(tmp_path, f"device,to,text\nshop,+60123456780,before\n{line}\nshop,+60123456781,after\n")
    assert [each.message is None for each in lines] == [False, True, False]
    assert words in lines[1].problem
    assert lines[1].number == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "header"),
        ("shop,+60123456789,hello\n", "header"),
        ("device,text\nshop,hello\n", "header"),
        ("device,to\nshop,+60123456789\n", "header"),
        ("device,to,text\n", "no messages"),
        ("device,to,text,colour\nshop,+60123456789,hello,red\n", "'colour'"),
        ("device,to,text,to\nshop,+60123456789,hello,+60123456780\n", "twice"),
        ('device,to,text\nshop,+60123456789,"never closed\n', "line 2"),
        ('device,to,text\nshop,+60123456789,"a"b\n', "line 2"),
        ("device;to;text\nshop;+60123456789;hello\n", "header"),
        ("device,to,text\nshop,+60123456789,caf\xe9\n".encode("latin-1"), "UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "UTF-8"),
    ],
)
def test_a_file_that_is_not_one_is_refused_as_a_whole(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        read(tmp_path, content)
    assert refused.value.code == "bad_csv"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(Refused, match=str(path)):
            read_csv(path, device=None, known_devices={}, region="", loopback=False)


def test_the_same_file_gives_the_same_keys_and_another_one_others(tmp_path: Path) -> None:
    def keys(content: str) -> list[str | None]:
        return [line.message.idempotency_key for line in read(tmp_path, content) if line.message]

    content = "device,to,text\nshop,+60123456789,same\nshop,+60123456789,same\n"
    first = keys(content)
    assert len(set(first)) == 2, "a file may say the same twice"
    assert keys(content) == first
    assert not set(keys(content + "shop,+60123456789,more\n")) & set(first)


@given(
    st.binary(max_size=300)
    | st.text(max_size=300).map(lambda text: ("device,to,text\n" + text).encode("utf-8", "ignore"))
)
def test_whatever_is_in_a_file_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp()
    try:
        lines = read(path, content)
    except Refused:
        return
    assert all((line.message is None) == bool(line.problem) for line in lines)


def test_what_a_platform_cannot_carry_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    voice = "https://example.com/voice.ogg"
    lines = read(tmp_path, f"device,to,text,media\ndesk,+60123456789,with words,{voice}\ndesk,+60123456789,,{voice}\n")
    assert [line.message is None for line in lines] == [True, False]
    assert "Green-API" in lines[0].problem
