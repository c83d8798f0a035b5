"""The plan of a batch: what changed, what is refused, in which order it is done."""

from __future__ import annotations

import pytest
from hypothesis import given
from trees import Exe, Files, Link, entry_of, manifest_of, sha, trees

from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.plan import (
    EXACT,
    Folding,
    Op,
    after,
    diff,
    inverse,
    link_escapes,
    order,
    validate,
    validate_pulled,
)
from hyperbox_agent.errors import ApplyError

FOLDS_CASE = Folding(case=True)
FOLDS_ALL = Folding(case=True, forms=True)


def words(old: Files, new: Files, folding: Folding = EXACT) -> list[str]:
    changes = diff(manifest_of(old), manifest_of(new))
    validate(changes, manifest_of(old), folding=folding)
    return [f"{step.op.value} {step.source + '>' if step.source else ''}{step.path}"
            f"{'/' if step.tree else ''}" for step in order(changes, folding=folding)]


@given(trees(), trees())
def test_the_changes_make_one_tree_of_the_other(old: Files, new: Files) -> None:
    here, there = manifest_of(old), manifest_of(new)
    changes = diff(here, there)
    made = after(here, changes)
    assert made.keys() == there.keys()
    assert all(made[path].same(there[path]) for path in made)
    back = after(there, inverse(changes))
    assert all(back[path].same(here[path]) for path in here)
    validate(changes, here)
    assert diff(here, here) == ()


ORDERS: list[tuple[str, Files, Files, list[str]]] = [
    ("what is new first, what goes last", {"a": b"1", "z": b"1"}, {"a": b"2", "b": b"1"},
     ["place a", "place b", "remove z"]),
    ("a new folder goes in as a whole", {}, {"d/e/f": b"1", "d/g": b"2"}, ["place d/"]),
    ("a folder that goes: children before parents", {"d/e/f": b"1", "d/g": b"2"}, {},
     ["remove d/g", "remove d/e/f", "remove_folder d/e", "remove_folder d"]),
    ("a file becomes a folder", {"x": b"1"}, {"x/y": b"2"}, ["place x/"]),
    ("a folder becomes a file", {"x/y": b"2", "x/z/w": b"1"}, {"x": b"1"}, ["place x"]),
    ("only the executable bit", {"x": b"1"}, {"x": Exe(b"1")}, ["mode x"]),
    ("bit and content", {"x": b"1"}, {"x": Exe(b"2")}, ["place x"]),
    ("a link is placed", {"x": b"1"}, {"x": Link("y"), "y": b"1"}, ["place x", "place y"]),
    ("a renamed folder", {"one/a": b"1"}, {"uno/a": b"1"},
     ["place uno/", "remove one/a", "remove_folder one"]),
]


@pytest.mark.parametrize(("old", "new", "steps"), [row[1:] for row in ORDERS],
                         ids=[row[0] for row in ORDERS])
def test_the_order_of_steps(old: Files, new: Files, steps: list[str]) -> None:
    assert words(old, new) == steps


@given(trees(), trees())
def test_steps_cover_every_change_once(old: Files, new: Files) -> None:
    changes = diff(manifest_of(old), manifest_of(new))
    steps = order(changes)
    paths = [step.path for step in steps]
    assert len(paths) == len(set(paths))
    whole = [step.path + "/" for step in steps if step.op is Op.PLACE]
    for change in changes:
        assert change.path in paths or any(change.path.startswith(top) for top in whole)
    last_new = max((i for i, step in enumerate(steps) if step.entry is not None), default=-1)
    first_gone = min((i for i, step in enumerate(steps) if step.entry is None),
                     default=len(steps))
    assert last_new < first_gone


SPELLINGS: list[tuple[str, Files, Files, list[str]]] = [
    ("a file", {"FOO.txt": b"1"}, {"foo.txt": b"1"}, ["respell FOO.txt>foo.txt"]),
    ("a file with new content", {"FOO.txt": b"1"}, {"foo.txt": b"2"},
     ["respell FOO.txt>foo.txt", "place foo.txt"]),
    ("a folder with its files", {"Sub/a": b"1", "Sub/b": b"2"}, {"sub/a": b"1", "sub/b": b"2"},
     ["respell Sub>sub"]),
    ("a folder, one file of it edited", {"Sub/a": b"1", "Sub/b": b"2"},
     {"sub/a": b"1", "sub/b": b"3", "sub/c": b"4"},
     ["respell Sub>sub", "place sub/b", "place sub/c"]),
    ("a folder and a file in it", {"Sub/A": b"1", "Sub/gone": b"x"}, {"sub/a": b"1"},
     ["respell Sub>sub", "respell sub/A>sub/a", "remove sub/gone"]),
    ("the form of a name", {"caf\u00e9": b"1"}, {"cafe\u0301": b"1"},
     ["respell caf\u00e9>cafe\u0301"]),
]


@pytest.mark.parametrize(("old", "new", "steps"), [row[1:] for row in SPELLINGS],
                         ids=[row[0] for row in SPELLINGS])
def test_a_new_spelling_is_one_step_where_names_fold(old: Files, new: Files, steps: list[str]
                                                     ) -> None:
    assert words(old, new, FOLDS_ALL) == steps
    assert not any(word.startswith("respell") for word in words(old, new))


def test_a_damaged_file_is_placed_again_even_beside_a_respelled_one() -> None:
    same = entry_of("same", b"1")
    changes = (Change("FOO", entry_of("FOO", b"1"), None),
               Change("foo", None, entry_of("foo", b"1")),
               Change("same", same, same))
    steps = order(changes, folding=FOLDS_CASE)
    assert [(step.op, step.path) for step in steps] == [(Op.RESPELL, "foo"), (Op.PLACE, "same")]


def test_two_names_that_the_target_takes_for_one_are_refused_by_both_names() -> None:
    base = manifest_of({"x": b"x"})
    changes = diff(base, manifest_of({"x": b"x", "pkg/A.py": b"1", "pkg/a.py": b"2"}))
    with pytest.raises(ApplyError) as caught:
        validate(changes, base, folding=FOLDS_CASE)
    assert "'pkg/A.py'" in caught.value.message
    assert "'pkg/a.py'" in caught.value.message
    validate(changes, base)


def test_a_name_that_folds_into_one_that_stays_is_refused() -> None:
    base = manifest_of({"Readme": b"1"})
    changes = diff(base, manifest_of({"Readme": b"1", "README": b"2"}))
    with pytest.raises(ApplyError, match="one name"):
        validate(changes, base, folding=FOLDS_CASE)


def test_unicode_forms_are_two_names_unless_the_target_folds_them() -> None:
    both: Files = {"caf\u00e9": b"1", "cafe\u0301": b"2"}
    changes = diff({}, manifest_of(both))
    validate(changes, {})
    validate(changes, {}, folding=FOLDS_CASE)
    with pytest.raises(ApplyError, match="one name"):
        validate(changes, {}, folding=Folding(forms=True))


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a/..", "..", ".", "",
                                  "a//b", "a/./b", "a/", ".git", ".git/hooks/post-checkout",
                                  "sub/.git/config", ".GIT/config", "nul\0x"])
def test_names_that_escape_are_refused_by_name(path: str) -> None:
    change = Change(path, None, Entry(path, Kind.FILE, 0o644, 1, sha(b"x")))
    with pytest.raises(ApplyError) as caught:
        validate([change], {})
    assert caught.value.file == path


@pytest.mark.parametrize("path", ["..a", "a..", "...", ".gitignore", "a/.github/x", "a b", "x\n",
                                  "C:x", "back\\slash", "\udce9"])
def test_odd_names_that_stay_inside_pass(path: str) -> None:
    changes = diff({}, manifest_of({path: b"1"}))
    validate(changes, {})


@pytest.mark.parametrize("path", ["hyperbox.toml", "C:x", "c:\\x", "a\\..\\b", "nul.txt", "a/CON"])
def test_a_target_may_send_less(path: str) -> None:
    with pytest.raises(ApplyError) as caught:
        validate_pulled(diff({}, manifest_of({path: b"1"})), {})
    assert caught.value.file is not None


def test_what_can_not_be_a_tree_is_refused() -> None:
    base = manifest_of({"d/a": b"1", "f": b"1", "l": Link("d")})
    one = entry_of("x", b"1")

    def refused(*changes: Change) -> str:
        with pytest.raises(ApplyError) as caught:
            validate(changes, base)
        return str(caught.value.file)

    def new(path: str) -> Change:
        return Change(path, base.get(path), Entry(path, Kind.FILE, 0o644, 1, one.digest))

    assert refused(new("nowhere/x")) == "nowhere/x"
    assert refused(new("f/x")) == "f/x"
    assert refused(new("l/x")) == "l/x"
    assert refused(Change("l", None, entry_of("l", Link("/tmp"))), new("l/evil")) == "l"
    assert refused(Change("d", base["d"], None)) == "d/a"
    assert refused(new("d")) == "d/a"
    assert refused(new("x"), new("x")) == "x"
    assert refused(Change("x", None, entry_of("y", b"1"))) == "x"
    assert refused(Change("x", None, Entry("x", Kind.FILE, 0o644, 1, b""))) == "x"
    assert refused(new("n" * 256)) == "n" * 256


LINKS = [
    ("a", "b", False), ("a", "d/b", False), ("d/a", "../b", False), ("d/a", ".", False),
    ("d/e/a", "../../b", False), ("a", "nowhere", False), ("a", "d/../b", False),
    ("a", "..", True), ("a", "../b", True), ("d/a", "../../b", True), ("a", "/etc/passwd", True),
    ("a", "d/../../b", True), ("a", "", True), ("a", "l/../b", True), ("a", "l/b", False),
]


@pytest.mark.parametrize(("path", "target", "escapes"), LINKS)
def test_links_that_lead_out(path: str, target: str, escapes: bool) -> None:
    assert link_escapes(path, target, lambda name: name == "l") is escapes


def test_a_link_that_leads_out_is_refused_by_name() -> None:
    changes = diff({}, manifest_of({"d/up": Link("../../outside"), "ok.py": b"1"}))
    with pytest.raises(ApplyError, match="outside") as caught:
        validate(changes, {})
    assert caught.value.file == "d/up"


def test_a_name_of_255_bytes_passes() -> None:
    validate(diff({}, manifest_of({"n" * 255: b"1", "é" * 127: b"1"})), {})
    with pytest.raises(ApplyError, match="255"):
        validate(diff({}, manifest_of({"é" * 128: b"1"})), {})
