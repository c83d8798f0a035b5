"""Nothing from outside acts on the terminal, and nothing of it is lost."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox_tui.view.spans import Span, Style, columns, paint
from hyperbox_tui.view.text import (
    cell_width,
    fit,
    json_text,
    program_line,
    safe_line,
    safe_text,
)

ANYTHING = st.text(st.characters(exclude_categories=[]))
NASTY = st.text(st.sampled_from("a\x1b[]m0;31?\x07\r\n\t\x9b\x7f\udcff\u202e…漢e\u0301"))
SGR = re.compile(r"\x1b\[[0-9;:]*m")


def acts(text: str, kept: str = "") -> bool:
    return any((ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 or c == "\u202e")
               and c not in kept for c in text)


@given(st.one_of(ANYTHING, NASTY))
def test_nothing_that_acts_passes(text: str) -> None:
    assert not acts(safe_text(text), "\n\t")
    assert not acts(safe_line(text))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert safe_text(text) == safe_line(text) == text


def test_what_is_escaped_can_be_read() -> None:
    assert safe_line("a\x1b]0;x\x07\r\n\t\x9b\udcff\u202e漢é") == \
        r"a\x1b]0;x\x07\r\n\t\x9b\xff\u202e漢é"


@given(st.one_of(ANYTHING, NASTY))
def test_of_a_programs_line_only_its_colours_act(text: str) -> None:
    line = program_line(text, colour=True)
    assert not acts(SGR.sub("", line), "\n\t")
    assert not acts(program_line(text, colour=False), "\n\t")
    if "\x1b" in line:
        assert line.endswith("\x1b[0m")


@pytest.mark.parametrize(("text", "shown"), [
    ("\x1b[31mred\x1b[0m", "red"), ("10%\r20%\r30%", "30%"), ("line\r", "line"), ("\r\r", ""),
    ("a\x1b[2Jb", r"a\x1b[2Jb"), ("\x1b[1;38:2:1:2:3mx", "x"),
])
def test_colours_and_progress_bars_in_a_pipe(text: str, shown: str) -> None:
    assert program_line(text, colour=False) == shown


@given(st.one_of(ANYTHING, NASTY).map(safe_line), st.integers(0, 30))
def test_what_is_fitted_fits(text: str, width: int) -> None:
    fitted = fit(text, width)
    assert cell_width(fitted) <= width or not fitted
    if cell_width(text) <= width:
        assert fitted == text


def test_wide_and_joined_characters_are_measured() -> None:
    assert cell_width("漢字") == 4
    assert cell_width("e\u0301") == 1
    assert fit("漢字漢字", 5) == "漢字…"


@given(st.lists(st.builds(Span, st.one_of(ANYTHING, NASTY), st.sampled_from(["", "live"])),
                max_size=5), st.integers(20, 60), st.booleans(), st.booleans())
def test_a_painted_line_is_clean_and_fits(line: list[Span], width: int, colour: bool,
                                          unicode: bool) -> None:
    painted = paint(line, Style(colour, unicode, width))
    plain = SGR.sub("", painted)
    assert not acts(plain)
    assert cell_width(plain) <= width
    assert unicode or plain.isascii()
    assert colour or plain == painted


def test_a_cut_line_ends_in_an_ellipsis_and_a_whole_one_does_not() -> None:
    assert paint(["x" * 20], Style(width=20)) == "x" * 20
    assert paint(["x" * 21], Style(width=20)) == "x" * 19 + "…"
    assert paint(["x" * 10, "y" * 11], Style(width=20)) == "x" * 10 + "y" * 9 + "…"
    assert paint(["x" * 20, "y"], Style(width=20)) == "x" * 19 + "…"
    assert paint(["x" * 21], Style(width=20, unicode=False)) == "x" * 17 + "..."


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = columns([["a", "bb", "c"], ["aaa", "\x1b", "c"]])
    assert [paint(row, Style()) for row in rows] == ["a    bb    c", r"aaa  \x1b  c"]


@given(st.recursive(st.one_of(ANYTHING, st.integers(), st.none()), lambda inner: st.one_of(
    st.lists(inner), st.dictionaries(ANYTHING, inner)), max_leaves=8))
def test_json_output_is_taken_by_every_parser(value: object) -> None:
    text = json.dumps(json_text(value))
    text.encode("ascii")
    json.loads(text.encode().decode("utf-8"))
    assert not re.search(r"(?i)(?<!\\)(\\\\)*\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])", text)
