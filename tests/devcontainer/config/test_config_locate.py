"""Every key's place is found in any TOML that tomllib takes."""

from __future__ import annotations

from typing import Any

import pytest
import tomli_w
import tomllib
from hypothesis import given
from hypothesis import strategies as st

from hyperbox_devcontainer.config.locate import Path, Place, locate

KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
SCALARS = st.one_of(st.integers(-10**6, 10**6), st.booleans(), TEXTS, st.floats(), st.dates(),
                    st.datetimes(), st.times())
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)), max_leaves=12)


def paths_of(value: Any, path: Path = ()) -> set[Path]:
    found = {path} if path else set()
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) \
        if isinstance(value, list) else ()
    for key, item in items:
        found |= paths_of(item, (*path, key))
    return found


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.booleans())
def test_every_path_of_the_data_has_a_place_and_no_other_has(data: dict[str, Any],
                                                             multiline: bool) -> None:
    text = tomli_w.dumps(data, multiline_strings=multiline)
    assert set(locate(text)) == paths_of(tomllib.loads(text))


HAND_WRITTEN = '''\
# comment with [brackets] and = signs
top = 1   # [no.table]
"quoted \\" key" = 2
[a.b] # header
c.d = [ 1, # one
  "two # not a comment", [3, { x = 4 }],
]
e = { f = "}", g.h = \'\'\' , ] } \'\'\', i = 1979-05-27 07:32:00 }
long = """
[not.a.table]
key = "no" \\"""
"""
raw = \'\'\'
x = 1\'\'\'\'
[[list]]
n = 1
[list.sub]
m = 2
[[list]]
n = 3
'''


@pytest.mark.parametrize(("path", "place"), [
    (("top",), (2, 1)), (('quoted " key',), (3, 1)), (("a",), (4, 2)), (("a", "b"), (4, 4)),
    (("a", "b", "c"), (5, 1)), (("a", "b", "c", "d"), (5, 3)), (("a", "b", "c", "d", 0), (5, 9)),
    (("a", "b", "c", "d", 1), (6, 3)), (("a", "b", "c", "d", 2, 1, "x"), (6, 32)),
    (("a", "b", "e", "f"), (8, 7)), (("a", "b", "e", "g", "h"), (8, 18)),
    (("a", "b", "e", "i"), (8, 37)), (("a", "b", "long"), (9, 1)), (("a", "b", "raw"), (13, 1)),
    (("list",), (15, 3)), (("list", 0), (15, 1)), (("list", 0, "n"), (16, 1)),
    (("list", 0, "sub", "m"), (18, 1)), (("list", 1), (19, 1)), (("list", 1, "n"), (20, 1)),
])
def test_places_are_those_that_an_editor_shows(path: Path, place: tuple[int, int]) -> None:
    assert locate(HAND_WRITTEN)[path] == Place(*place)


def test_the_hand_written_file_is_followed_to_its_end() -> None:
    assert set(locate(HAND_WRITTEN)) == paths_of(tomllib.loads(HAND_WRITTEN))
