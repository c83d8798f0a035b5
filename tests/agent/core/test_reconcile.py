"""What goes down, what comes up, and what is kept on both ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from trees import Files, manifest_of, sha, trees

from hyperbox_agent.core.entries import Change, Entry, Kind, Manifest
from hyperbox_agent.core.plan import after, validate
from hyperbox_agent.core.reconcile import Reconciled, reconcile, resolved
from hyperbox_agent.errors import ApplyError


def both_ways(path: str) -> bool:
    return True


def only_lock(path: str) -> bool:
    return path == "uv.lock" or path.startswith("migrations")


def words(changes: tuple[Change, ...]) -> list[str]:
    return [("-" if change.new is None else "+" if change.old is None else "~") + change.path
            for change in changes]


TABLE: list[tuple[str, Files, Files, Files, list[str], list[str], list[str]]] = [
    # what, base, source, target, down, up, conflicts
    ("nothing happened", {"a": b"1"}, {"a": b"1"}, {"a": b"1"}, [], [], []),
    ("both did the same", {"a": b"1"}, {"a": b"2"}, {"a": b"2"}, [], [], []),
    ("the source edits", {"a": b"1"}, {"a": b"2"}, {"a": b"1"}, ["~a"], [], []),
    ("the target edits", {"a": b"1"}, {"a": b"1"}, {"a": b"2"}, [], ["~a"], []),
    ("both edit", {"a": b"1"}, {"a": b"2"}, {"a": b"3"}, [], [], ["a"]),
    ("both create", {"x": b"x"}, {"x": b"x", "a": b"1"}, {"x": b"x", "a": b"2"}, [], [], ["a"]),
    ("the source adds", {"x": b"x"}, {"x": b"x", "d/a": b"1"}, {"x": b"x"}, ["+d", "+d/a"], [], []),
    ("the target adds", {"x": b"x"}, {"x": b"x"}, {"x": b"x", "d/a": b"1"}, [], ["+d", "+d/a"], []),
    ("the source removes", {"x": b"x", "a": b"1"}, {"x": b"x"}, {"x": b"x", "a": b"1"},
     ["-a"], [], []),
    ("the target removes", {"x": b"x", "a": b"1"}, {"x": b"x", "a": b"1"}, {"x": b"x"},
     [], ["-a"], []),
    ("an edit outlives a removal", {"x": b"x", "a": b"1"}, {"x": b"x"}, {"x": b"x", "a": b"2"},
     [], ["+a"], []),
    ("and the other way round", {"x": b"x", "a": b"1"}, {"x": b"x", "a": b"2"}, {"x": b"x"},
     ["+a"], [], []),
    ("a folder stays for what was put into it",
     {"x": b"x", "d/a": b"1"}, {"x": b"x"}, {"x": b"x", "d/a": b"1", "d/b": b"2"},
     ["-d/a"], ["+d", "+d/b"], []),
    ("a file where the other end works in the folder",
     {"d/a": b"1", "d/b": b"b"}, {"d": b"file"}, {"d/a": b"2", "d/b": b"b"}, [], [], ["d"]),
    ("a folder became a file, the other end did nothing",
     {"x": b"x", "d/a": b"1"}, {"x": b"x", "d": b"file"}, {"x": b"x", "d/a": b"1"},
     ["~d", "-d/a"], [], []),
    ("a new target gets everything", {"a": b"1"}, {"a": b"1", "b": b"2"}, {}, ["+a", "+b"], [], []),
]


@pytest.mark.parametrize(("base", "source", "target", "down", "up", "conflicts"),
                         [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_two_way(base: Files, source: Files, target: Files, down: list[str], up: list[str],
                 conflicts: list[str]) -> None:
    got = reconcile(manifest_of(base), manifest_of(source), manifest_of(target), both_ways)
    assert words(got.down) == down
    assert words(got.up) == up
    assert [conflict.path for conflict in got.conflicts] == conflicts


def test_a_conflict_names_both_digests() -> None:
    got = reconcile(manifest_of({"a": b"1"}), manifest_of({"a": b"2"}), manifest_of({"a": b"3"}),
                    both_ways)
    (conflict,) = got.conflicts
    assert conflict.source is not None
    assert conflict.target is not None
    assert (conflict.source.digest, conflict.target.digest) == (sha(b"2"), sha(b"3"))


def test_only_what_is_pulled_comes_up() -> None:
    base = manifest_of({"a.py": b"1", "uv.lock": b"1"})
    target = manifest_of({"a.py": b"program wrote", "uv.lock": b"2", "migrations/0001.py": b"m"})
    got = reconcile(base, base, target, only_lock)
    assert words(got.up) == ["+migrations", "+migrations/0001.py", "~uv.lock"]
    assert words(got.down) == ["~a.py"]


def test_three_hundred_one_sided_edits_after_an_outage_are_no_conflict() -> None:
    base = {f"f{number}": b"1" for number in range(300)} | {"x.py": b"1"}
    source = dict.fromkeys(base, b"2")
    got = reconcile(manifest_of(base), manifest_of(source), manifest_of(base), both_ways)
    assert len(got.down) == 301
    assert got.conflicts == got.up == ()
    target = base | {"x.py": b"3"}
    got = reconcile(manifest_of(base), manifest_of(source), manifest_of(target), both_ways)
    assert [conflict.path for conflict in got.conflicts] == ["x.py"]
    assert len(got.down) == 300


def test_one_choice_resolves_many_conflicts() -> None:
    base = manifest_of({"a": b"1", "d/b": b"1", "x": b"x"})
    source = manifest_of({"a": b"2", "d": b"file", "x": b"x"})
    target = manifest_of({"a": b"3", "d/b": b"3", "x": b"x"})
    first = reconcile(base, source, target, both_ways)
    paths = [conflict.path for conflict in first.conflicts]
    assert paths == ["a", "d"]
    mine = reconcile(resolved(first.base, target, paths), source, target, both_ways)
    assert (words(mine.down), mine.up, mine.conflicts) == (["~a", "~d", "-d/b"], (), ())
    theirs = reconcile(resolved(first.base, source, paths), source, target, both_ways)
    assert (theirs.down, words(theirs.up), theirs.conflicts) == ((), ["~a", "~d", "+d/b"], ())


def test_a_source_that_vanished_stops_everything() -> None:
    tree = manifest_of({"a": b"1"})
    with pytest.raises(ApplyError, match="source is empty"):
        reconcile(tree, {}, tree, both_ways)


def versions(tree: Manifest) -> set[tuple[str, bytes]]:
    return {(path, entry.digest) for path, entry in tree.items() if entry.kind is not Kind.DIR}


def ends(got: Reconciled, source: Manifest, target: Manifest) -> tuple[Manifest, Manifest]:
    validate(got.up, source)
    validate(got.down, target)
    return after(source, got.up), after(target, got.down)


def equal(one: Manifest, other: Manifest) -> bool:
    return one.keys() == other.keys() and all(one[path].same(other[path]) for path in one)


@given(base=trees(8), source=trees(8), target=trees(8))
def test_nothing_is_lost_and_both_ends_meet(base: Files, source: Files, target: Files) -> None:
    old, here, there = (manifest_of(tree) for tree in (base, source, target))
    if old and not here:
        return
    got = reconcile(old, here, there, both_ways)
    new_here, new_there = ends(got, here, there)
    # What one end wrote since the last agreement is still on an end.
    written = (versions(here) | versions(there)) - versions(old)
    assert written <= versions(new_here) | versions(new_there)
    # They agree but for the conflicts, and those were not touched.
    roots = tuple(conflict.path for conflict in got.conflicts)

    def outside(tree: Manifest) -> dict[str, Entry]:
        return {path: entry for path, entry in tree.items()
                if not any(path == root or path.startswith(root + "/") for root in roots)}

    assert equal(outside(new_here), outside(new_there))
    assert {path: here[path] for path in here if path not in outside(here)}.items() \
        <= dict(new_here).items()
    # Once done, there is nothing to do but the same conflicts.
    again = reconcile(got.base, new_here, new_there, both_ways) if new_here or not got.base else got
    if new_there:
        assert (again.down, again.up) == ((), ())
        assert [conflict.path for conflict in again.conflicts] == list(roots)


@given(base=trees(8), source=trees(8), target=trees(8))
def test_without_pulling_the_source_alone_decides(base: Files, source: Files, target: Files
                                                  ) -> None:
    old, here, there = (manifest_of(tree) for tree in (base, source, target))
    if old and not here:
        return
    got = reconcile(old, here, there, lambda path: False)
    assert got.up == got.conflicts == ()
    assert equal(after(there, got.down), here)


@given(base=trees(8), source=trees(8), target=trees(8))
def test_the_two_ends_are_treated_alike(base: Files, source: Files, target: Files) -> None:
    old, here, there = (manifest_of(tree) for tree in (base, source, target))
    if not here or not there:
        return
    one = reconcile(old, here, there, both_ways)
    other = reconcile(old, there, here, both_ways)
    assert words(one.up) == words(other.down)
    assert words(one.down) == words(other.up)
    assert [c.path for c in one.conflicts] == [c.path for c in other.conflicts]


