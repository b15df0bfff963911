from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perry.cli.text import (
    Column,
    ago,
    duration,
    harmless,
    iso_ago,
    local_time,
    one_line,
    shortened,
    shortened_left,
    table,
    utc_time,
    width,
)

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "just now"),
        (0, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (185, "3 min ago"),
        (3599, "59 min ago"),
        (3600, "1 hour ago"),
        (7300, "2 hours ago"),
        (86_400, "1 day ago"),
        (29 * 86_400, "29 days ago"),
        (30 * 86_400, "2023-10-15"),
    ],
)
def test_a_time_is_said_as_people_say_it(seconds: int, said: str) -> None:
    assert ago(round((NOW - seconds) * 1000), NOW) == said


def test_times_are_told_by_the_clock_here_and_for_readers_anywhere(
    set_zone: Callable[[str], None],
) -> None:
    moment = round(NOW * 1000)
    set_zone("EST5")
    assert local_time(moment) == ("2023-11-14 17:13:20", "UTC-05:00")
    assert utc_time(moment) == "2023-11-14 22:13:20 UTC"
    set_zone("JST-9")
    assert ago(moment, NOW + 5_000_000) == "2023-11-15"
    for never in (-(10**30), 10**30, -62_135_596_800_000 - 1):
        assert (local_time(never)[0], utc_time(never)) == ("-", "-")
        assert ago(never, NOW) in {"-", "just now"}


def test_docker_times_are_understood_and_anything_else_stays() -> None:
    assert iso_ago("2023-11-14T22:10:20.123456789Z", NOW) == "2 min ago"
    assert iso_ago("", NOW) == ""
    assert iso_ago("once", NOW) == "once"


def test_durations_keep_the_digits_that_matter() -> None:
    assert [duration(s) for s in (0.041, 12.34, 125.0)] == ["0.04 s", "12.3 s", "2 min 5 s"]


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert harmless("\x1b[2Jgone\x07") == "\\x1b[2Jgone\\x07"
    assert harmless("a\u202eb\u2028c\x9b") == "a\\u202eb\\u2028c\\x9b"
    assert harmless("a\r\nb\tc\rd") == "a\nb\tc\\x0dd"


def test_a_lone_surrogate_can_be_printed_afterwards() -> None:
    assert harmless("x\ud83d").encode() == "x\ufffd".encode()


def test_emoji_of_several_characters_stay_whole() -> None:
    assert harmless("👩\u200d💻") == "👩\u200d💻"


@given(st.text())
def test_no_text_whatever_obeys_or_breaks_the_line(text: str) -> None:
    told = one_line(text)
    told.encode()
    assert not any(letter < " " or "\x7f" <= letter <= "\x9f" for letter in told)


@given(st.text(), st.integers(min_value=1, max_value=40))
def test_shortened_text_fits(text: str, columns: int) -> None:
    assert width(shortened(one_line(text), columns)) <= columns
    assert width(shortened_left(one_line(text), columns)) <= columns


def test_wide_letters_count_twice() -> None:
    assert width("日本") == 4
    assert shortened("日本語", 5) == "日本…"
    assert shortened_left("/home/workspace/site", 10) == "…pace/site"


COLUMNS = (Column("ID"), Column("TITLE", least=5), Column("N", right=True))


def test_a_table_is_cut_to_the_terminal() -> None:
    lines = table(COLUMNS, [("a1", "a title that is long", "7")], room=20)
    assert lines == ["ID  TITLE          N", "a1  a title that…  7"]


def test_a_table_in_a_pipe_keeps_every_value_whole() -> None:
    title = "word " * 60
    [_, line] = table(COLUMNS, [("a1", title, "7")], room=None)
    assert title.strip() in line


def test_a_table_never_takes_from_a_column_that_may_not_be_cut() -> None:
    [_, line] = table(COLUMNS, [("an-id-that-is-needed-whole", "title", "7")], room=10)
    assert line.startswith("an-id-that-is-needed-whole")


def test_a_cell_cannot_add_a_line_to_the_table() -> None:
    lines = table(COLUMNS, [("a1", "one\ntwo\x1b[1A", "7")], room=80)
    assert lines[1] == "a1  one two\\x1b[1A  7"
