"""What is accepted to be sent: numbers of the right country, texts as they were written, media that can be fetched."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import phonenumbers
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from actors.messages import Media, SendMessage
from actors.validation import (
    CAPTION_LIMIT,
    MEDIA_KINDS,
    TEXT_LIMIT,
    Checked,
    Problem,
    check_device_name,
    check_media,
    check_message,
    normalise_recipient,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
#: A time of which nobody can tell where it is meant.
NAIVE = NOW.replace(tzinfo=None) + timedelta(days=365)
MESSAGE = SendMessage("shop", "+60123456789", "hello")
REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)

CALLING_CODES = sorted(str(code) for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE)

digits = st.text("0123456789", min_size=5, max_size=13)


def check(message: SendMessage, **options: bool) -> Checked:
    return check_message(message, region="", loopback_media=options.get("loopback_media", False), now=NOW)


def code_of(message: SendMessage, **options: bool) -> str:
    with pytest.raises(Problem) as found:
        check(message, **options)
    assert found.value.reason.endswith(".")
    return found.value.code


# --- recipients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "region", "number"),
    [
        ("+60123456789", "", "60123456789"),
        ("60123456789", "", "60123456789"),
        ("0060123456789", "", "60123456789"),
        ("0060123456789", "MY", "60123456789"),
        (" +60 12-345 6789 ", "", "60123456789"),
        ("+60 (0)12-345 6789", "", "60123456789"),
        ("0123456789", "MY", "60123456789"),
        ("(012) 345 6789", "MY", "60123456789"),
        ("0812 3456 7890", "ID", "6281234567890"),
        ("6281234567890", "MY", "6281234567890"),
        ("08001 234567", "GB", "448001234567"),
        ("+39 06 1234 5678", "", "390612345678"),
        ("+1 (201) 555-0123", "", "12015550123"),
        ("+54 9 11 2345 6789", "", "5491123456789"),
        ("01160123456789", "US", "60123456789"),
        ("120363025246125016@g.us", "", "120363025246125016@g.us"),
        ("60123456789-1612345678@g.us", "", "60123456789-1612345678@g.us"),
    ],
)
def test_a_recipient_has_one_form(to: str, region: str, number: str) -> None:
    assert normalise_recipient(to, region) == number
    assert normalise_recipient(number, region) == number


@pytest.mark.parametrize(
    ("to", "region"),
    [
        ("", ""),
        ("   ", "MY"),
        ("hello", "MY"),
        ("+", "MY"),
        ("++60123456789", ""),
        ("+6012", ""),
        ("+601234567890123456", ""),
        ("0123456789", ""),
        ("123", "MY"),
        ("+999123456789", ""),
        ("+60123456789,+60123456780", ""),
        ("+60123456789\n+60123456780", ""),
        ("+60123456789;ext=5", ""),
        ("+60123456789 x5", ""),
        ("+6012345678٩", ""),
        ("60123456789@s.whatsapp.net", ""),
        ("status@broadcast", ""),
        ("120363025246125016@g.us ", ""),
        ("+0060123456789", ""),
    ],
)
def test_what_is_no_number_is_refused(to: str, region: str) -> None:
    with pytest.raises(Problem) as found:
        normalise_recipient(to, region)
    assert found.value.code == "bad_number"
    assert "+60123456789" in found.value.next_step


@pytest.mark.parametrize(
    ("to", "region"), [("001 65 9123 4567", "SG"), ("0011 65 9123 4567", "AU"), ("001 65 9123 4567", "HK")]
)
def test_a_number_that_reads_differently_where_it_was_written_is_refused(to: str, region: str) -> None:
    assert normalise_recipient(to, "") == "16591234567", "dialled elsewhere, it is an American's"
    with pytest.raises(Problem, match="two ways"):
        normalise_recipient(to, region)


@given(st.sampled_from(CALLING_CODES), digits, st.sampled_from(REGIONS), st.sampled_from(["+", "", "00"]))
def test_an_international_number_never_changes_country(code: str, rest: str, region: str, prefix: str) -> None:
    try:
        accepted = normalise_recipient(prefix + code + rest, region)
    except Problem:
        return
    assert accepted.startswith(code)
    # At most what is dialled inside a country only is left out (the 0 in +60 (0)12 345 6789), or put (a mobile's 9 in
    # Argentina): the subscriber's own digits stay.
    assert accepted[-4:] == rest[-4:]


@given(digits, st.sampled_from(REGIONS))
def test_a_national_number_stays_in_its_region_unless_it_dials_abroad(rest: str, region: str) -> None:
    text = "0" + rest
    assume(not text.startswith("00"))
    try:
        accepted = normalise_recipient(text, region)
    except Problem:
        return
    read = phonenumbers.parse(text, region, keep_raw_input=True)
    if read.country_code_source != phonenumbers.CountryCodeSource.FROM_NUMBER_WITH_IDD:
        assert accepted.startswith(str(phonenumbers.country_code_for_region(region)))
    assert accepted[-4:] == rest[-4:]


@given(digits, st.sampled_from(REGIONS))
def test_two_zeros_lead_abroad_or_nowhere(rest: str, region: str) -> None:
    try:
        accepted = normalise_recipient("00" + rest, region)
    except Problem:
        return
    assert accepted == normalise_recipient("+" + rest, "")
    dialled = phonenumbers.parse("00" + rest, region)
    assert accepted == phonenumbers.format_number(dialled, phonenumbers.PhoneNumberFormat.E164).lstrip("+")


@given(st.text(max_size=30), st.sampled_from(["", "MY"]))
def test_whatever_is_accepted_is_digits_or_a_group(to: str, region: str) -> None:
    try:
        accepted = normalise_recipient(to, region)
    except Problem:
        return
    assert accepted.endswith("@g.us") or (accepted.isascii() and accepted.isdigit() and 7 <= len(accepted) <= 17)


# --- texts -----------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=200))
def test_a_text_is_never_altered(text: str) -> None:
    message = replace(MESSAGE, text=text)
    if text.strip():
        assert check(message) == Checked("60123456789", "text", text, "", "")
    else:
        assert code_of(message) == "empty_text"
    captioned = replace(message, media=Media("https://example.com/a.png"))
    assert check(captioned).body == text


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"text": ""}, "empty_text"),
        ({"text": " \n\t"}, "empty_text"),
        ({"text": "x" * (TEXT_LIMIT + 1)}, "text_too_long"),
        ({"text": "x" * 10_000_000}, "text_too_long"),
        ({"text": "a\x00b"}, "bad_text"),
        ({"text": "a\udce9b"}, "bad_text"),
        ({"text": "x" * (CAPTION_LIMIT + 1), "media": Media("https://example.com/a.png")}, "text_too_long"),
        ({"to": "nobody"}, "bad_number"),
        ({"idempotency_key": ""}, "bad_key"),
        ({"idempotency_key": "k" * 256}, "bad_key"),
        ({"idempotency_key": "a\x00b"}, "bad_key"),
        ({"idempotency_key": "a\udce9b"}, "bad_key"),
        ({"priority": 101}, "bad_priority"),
        ({"priority": -101}, "bad_priority"),
        ({"expires_at": NOW}, "already_expired"),
        ({"expires_at": NAIVE}, "bad_time"),
        ({"expires_at": NAIVE - timedelta(days=5000)}, "bad_time"),
        ({"not_before": NAIVE}, "bad_time"),
        ({"not_before": NOW + timedelta(hours=2), "expires_at": NOW + timedelta(hours=1)}, "bad_time"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_its_own_code(changes: dict[str, object], code: str) -> None:
    assert code_of(replace(MESSAGE, **changes)) == code  # type: ignore[arg-type]  # as the table gives them


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "x" * TEXT_LIMIT},
        {"text": "x" * CAPTION_LIMIT, "media": Media("https://example.com/a.png")},
        {"idempotency_key": "k" * 255},
        {"idempotency_key": "schlüssel 🔑"},
        {"priority": 100},
        {"expires_at": NOW.astimezone(timezone(timedelta(hours=8))) + timedelta(seconds=1)},
        {"not_before": NOW - timedelta(days=1)},
        {"not_before": NOW + timedelta(hours=1), "expires_at": NOW + timedelta(hours=2)},
    ],
)
def test_what_just_fits_is_accepted(changes: dict[str, object]) -> None:
    assert check(replace(MESSAGE, **changes)).recipient == "60123456789"  # type: ignore[arg-type]  # as above


# --- media -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media", "kind", "name"),
    [
        (Media("https://example.com/photo.JPG"), "image", "photo.JPG"),
        (Media("https://example.com/a%20b.mp4?token=1"), "video", "a b.mp4"),
        (Media("https://example.com/song.mp3"), "audio", "song.mp3"),
        (Media("https://example.com/price.pdf"), "document", "price.pdf"),
        (Media("https://example.com/"), "document", "file"),
        (Media("https://example.com/x", "image"), "image", "x"),
        (Media("https://example.com/x", "", "report.png"), "image", "report.png"),
        (Media("https://example.com/" + "n" * 300 + ".png"), "image", "n" * 200),
        (Media("https://example.com/a%00b.png"), "image", "a\ufffdb.png"),
        (Media("https://example.com/%ff.png"), "image", "\ufffd.png"),
    ],
)
def test_media_has_a_kind_and_a_name(media: Media, kind: str, name: str) -> None:
    assert check_media(media, loopback_allowed=False) == (kind, media.url, name)
    assert kind in MEDIA_KINDS


@pytest.mark.parametrize(
    "media",
    [
        Media(""),
        Media("example.com/a.png"),
        Media("http://example.com/a.png"),
        Media("ftp://example.com/a.png"),
        Media("file:///etc/passwd"),
        Media("https:///a.png"),
        Media("https://[::1/a.png"),
        Media("https://example.com:port/a.png"),
        Media("https://user:secret@example.com/a.png"),
        Media("https://user@example.com/a.png"),
        Media("https://example.com/a b.png"),
        Media("https://example.com/a\n.png"),
        Media("https://example.com/a\x00.png"),
        Media("https://example.com/" + "a" * 2048),
        Media("https://127.0.0.1/a.png"),
        Media("https://localhost/a.png"),
        Media("https://[::1]/a.png"),
        Media("https://example.com/a.png", "sticker"),
        Media("https://example.com/a.png", "image", "a\x00b.png"),
        Media("https://example.com/a.png", "image", "a\udce9.png"),
    ],
    ids=lambda media: media.url[:60] + media.kind,
)
def test_media_that_cannot_be_fetched_is_refused(media: Media) -> None:
    assert code_of(replace(MESSAGE, media=media)) == "bad_media"


def test_plain_http_is_for_the_simulator_on_this_machine() -> None:
    media = Media("http://127.0.0.1:8000/a.png")
    assert check(replace(MESSAGE, media=media), loopback_media=True).media_url == media.url
    assert code_of(replace(MESSAGE, media=Media("http://example.com/a.png")), loopback_media=True) == "bad_media"


def test_a_refusal_never_repeats_a_password() -> None:
    with pytest.raises(Problem) as found:
        check_media(Media("https://user:hunter2@example.com/a.png"), loopback_allowed=False)
    assert "hunter2" not in f"{found.value.reason} {found.value.next_step}"


# --- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "shop-1", "0", "A.b_c-d", "x" * 64])
def test_a_device_name_is_taken_as_it_is(name: str) -> None:
    assert check_device_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "-shop", ".hidden", "a b", "a/b", "a\n", "café", "a\x00"])
def test_a_name_that_would_confuse_is_refused(name: str) -> None:
    with pytest.raises(Problem) as found:
        check_device_name(name)
    assert found.value.code == "bad_name"
