"""Following hints ends in the tree that a new scan finds; the changes lead from one to it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watching import differences, put

from hyperbox_agent.core.entries import Change, Entry
from hyperbox_agent.core.ignore import IgnoreOptions
from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch.base import Hint, What
from hyperbox_agent.watch.tree import Refresh, SourceTree

OPTIONS = IgnoreOptions(ignore=("*.tmp",), include=("build/kept.txt", "out/*/x"))


def loaded(root: Path, options: IgnoreOptions = OPTIONS) -> SourceTree:
    tree = SourceTree(str(root), options=options)
    tree.load()
    return tree


def hint(path: str, what: What = What.CHANGED, *, is_dir: bool = False) -> Hint:
    return Hint(path, what, 0.0, is_dir)


def brief(found: Refresh) -> dict[str, str]:
    """Path to + (new), - (gone), ~ (changed)."""
    return {c.path: "+" if c.old is None else "-" if c.new is None else "~" for c in found.changes}


def replayed(before: dict[str, Entry], changes: tuple[Change, ...]) -> dict[str, Entry]:
    after = dict(before)
    for change in changes:
        known = after.pop(change.path, None)
        assert (known is None) == (change.old is None)
        assert known is None or change.old is None or known.same(change.old)
        if change.new is not None:
            after[change.path] = change.new
    return after


def counted(tree: SourceTree) -> tuple[int, int, int]:
    return tree.counts.files, tree.counts.bytes, tree.counts.dirs


# -- by generated histories -------------------------------------------------------------------

names = st.sampled_from(["a", "b", "build", "out", "kept.txt", "x", "c.tmp", "node_modules",
                         ".gitignore"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
ignores = st.sampled_from(["", "a\n", "/b/\n", "*\n!b\n", "build/\nout/\n", "x\n!/a/x\n"])
actions = st.lists(st.one_of(
    st.tuples(st.just("write"), paths, st.sampled_from(["", "1", "two", "3" * 100])),
    st.tuples(st.just("ignore"), st.sampled_from(["", "a/", "b/"]), ignores),
    st.tuples(st.just("mkdir"), paths),
    st.tuples(st.just("remove"), paths),
    st.tuples(st.just("rename"), paths, paths),
    st.tuples(st.just("link"), paths, st.sampled_from(["a", "../..", "nowhere", "/etc"])),
    st.tuples(st.just("chmod"), paths, st.sampled_from([0o644, 0o755])),
), min_size=1, max_size=8)


def remove(root: str, path: str) -> Iterator[Hint]:
    full = os.path.join(root, path)
    if os.path.isdir(full) and not os.path.islink(full):
        shutil.rmtree(full)
        yield hint(path, What.DELETED, is_dir=True)
    elif os.path.lexists(full):
        os.unlink(full)
        yield hint(path, What.DELETED)


def clear_way(root: str, path: str) -> Iterator[Hint]:
    """Folders above ``path``, in place of whatever stands there; nothing at ``path``."""
    parts = path.split("/")
    for i in range(1, len(parts)):
        folder = "/".join(parts[:i])
        full = os.path.join(root, folder)
        if os.path.islink(full) or not os.path.isdir(full):
            yield from remove(root, folder)
            os.mkdir(full)
            yield hint(folder, What.CREATED, is_dir=True)


def act(root: str, action: tuple) -> Iterator[Hint]:  # type: ignore[type-arg]
    """Does it, and hints as inotify would."""
    kind, path, *rest = action
    full = os.path.join(root, path)
    if kind == "ignore":
        yield from act(root, ("write", path + ".gitignore", *rest))
    elif kind == "remove":
        if os.path.realpath(os.path.dirname(full)) == os.path.dirname(full):
            yield from remove(root, path)
    elif kind == "chmod":
        if os.path.isfile(full) and os.path.realpath(full) == full:
            os.chmod(full, rest[0])
            yield hint(path, What.ATTRIB)
    elif kind == "rename":
        yield from rename(root, path, rest[0])
    else:
        yield from clear_way(root, path)
        if kind == "write":
            if os.path.islink(full) or os.path.isdir(full):
                yield from remove(root, path)
            Path(full).write_text(rest[0])
            yield hint(path, What.WRITTEN)
        elif kind == "mkdir" and not os.path.lexists(full):
            os.mkdir(full)
            yield hint(path, What.CREATED, is_dir=True)
        elif kind == "link":
            yield from remove(root, path)
            os.symlink(rest[0], full)
            yield hint(path, What.CREATED)


def rename(root: str, old: str, new: str) -> Iterator[Hint]:
    source, dest = os.path.join(root, old), os.path.join(root, new)
    if (os.path.realpath(os.path.dirname(source)) != os.path.dirname(source)
            or not os.path.lexists(source) or f"{new}/".startswith(f"{old}/")
            or f"{old}/".startswith(f"{new}/")):
        return
    yield from clear_way(root, new)
    if not os.path.lexists(source):
        return
    yield from remove(root, new)
    is_dir = os.path.isdir(source) and not os.path.islink(source)
    os.rename(source, dest)
    yield hint(old, What.MOVED_OUT, is_dir=is_dir)
    yield hint(new, What.MOVED_IN, is_dir=is_dir)


@given(batches=st.lists(actions, min_size=1, max_size=4))
def test_hints_lead_to_the_tree_that_a_scan_finds(batches: list) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.realpath(folder)
        tree = loaded(Path(root))
        for batch in batches:
            before = dict(tree.manifest)
            hints = [found for action in batch for found in act(root, action)]
            refreshed = tree.refresh(hints)
            fresh = loaded(Path(root))
            assert not differences(tree.manifest, fresh.manifest)
            assert not differences(replayed(before, refreshed.changes), fresh.manifest)
            assert set(tree.dirs()) == set(fresh.dirs())
            assert tree.problems == fresh.problems
            assert counted(tree) == counted(fresh)


@given(batches=st.lists(actions, min_size=1, max_size=4))
def test_a_rescan_finds_what_no_hint_told(batches: list) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.realpath(folder)
        tree = loaded(Path(root))
        for batch in batches:
            before = dict(tree.manifest)
            for action in batch:
                list(act(root, action))
            refreshed = tree.rescan()
            fresh = loaded(Path(root))
            assert refreshed.rescanned
            assert not differences(tree.manifest, fresh.manifest)
            assert not differences(replayed(before, refreshed.changes), fresh.manifest)
            assert set(refreshed.new_dirs) == set(tree.dirs())
            assert tree.problems == fresh.problems


# -- one by one -------------------------------------------------------------------------------


def test_a_touch_is_no_change_and_a_mode_is_one(tmp_path: Path) -> None:
    put(tmp_path, "run.sh", "x")
    (tmp_path / "run.sh").chmod(0o755)
    tree = loaded(tmp_path)
    os.utime(tmp_path / "run.sh")
    assert not tree.refresh([hint("run.sh", What.ATTRIB)]).changes
    (tmp_path / "run.sh").chmod(0o644)
    (change,) = tree.refresh([hint("run.sh", What.ATTRIB)]).changes
    assert change.old is not None
    assert change.new is not None
    assert (change.old.executable, change.new.executable) == (True, False)
    (tmp_path / "run.sh").chmod(0o600)
    assert not tree.refresh([hint("run.sh", What.ATTRIB)]).changes


def test_writing_the_same_bytes_is_no_change(tmp_path: Path) -> None:
    put(tmp_path, "a", "same")
    tree = loaded(tmp_path)
    put(tmp_path, "a", "same")
    assert not tree.refresh([hint("a", What.WRITTEN)]).changes


def test_only_hinted_paths_are_looked_at(tmp_path: Path) -> None:
    for i in range(5):
        put(tmp_path, f"f{i}", "1")
    tree = loaded(tmp_path)
    for i in range(5):
        put(tmp_path, f"f{i}", "two")
    assert brief(tree.refresh([hint("f1", What.WRITTEN)])) == {"f1": "~"}


def test_a_new_folder_comes_with_all_below_it(tmp_path: Path) -> None:
    tree = loaded(tmp_path)
    put(tmp_path, "a/b/c", "1")
    put(tmp_path, "a/node_modules/x", "1")
    found = tree.refresh([hint("a", What.CREATED, is_dir=True)])
    assert brief(found) == {"a": "+", "a/b": "+", "a/b/c": "+"}
    assert set(found.new_dirs) == {"a", "a/b"}


def test_a_hint_below_an_unknown_folder_finds_the_folder(tmp_path: Path) -> None:
    tree = loaded(tmp_path)
    put(tmp_path, "a/b/c", "1")
    assert brief(tree.refresh([hint("a/b/c")])) == {"a": "+", "a/b": "+", "a/b/c": "+"}


def test_a_deleted_folder_takes_all_below_with_it(tmp_path: Path) -> None:
    put(tmp_path, "a/b/c", "1")
    tree = loaded(tmp_path)
    shutil.rmtree(tmp_path / "a")
    found = tree.refresh([hint("a", What.DELETED, is_dir=True)])
    assert brief(found) == {"a": "-", "a/b": "-", "a/b/c": "-"}
    assert set(found.gone_dirs) == {"a", "a/b"}


def test_a_folder_that_took_anothers_place_is_read_and_watched_anew(tmp_path: Path) -> None:
    put(tmp_path, "a/old", "1")
    put(tmp_path, "b/new", "1")
    tree = loaded(tmp_path)
    (tmp_path / "a").rename(tmp_path / "gone")
    (tmp_path / "b").rename(tmp_path / "a")
    # Only the parent's listing is hinted, as polling does.
    found = tree.refresh([hint("", is_dir=True)])
    assert brief(found)["a/new"] == "+"
    assert brief(found)["a/old"] == "-"
    assert "a" in found.new_dirs


def test_file_and_folder_change_places(tmp_path: Path) -> None:
    put(tmp_path, "a", "1")
    put(tmp_path, "b/c", "1")
    tree = loaded(tmp_path)
    (tmp_path / "a").unlink()
    put(tmp_path, "a/x", "1")
    shutil.rmtree(tmp_path / "b")
    put(tmp_path, "b", "1")
    found = tree.refresh([hint("a"), hint("b")])
    assert brief(found) == {"a": "~", "a/x": "+", "b": "~", "b/c": "-"}
    assert set(found.gone_dirs) == {"b"}


def test_a_case_only_rename_is_one_name_gone_and_one_new(tmp_path: Path) -> None:
    put(tmp_path, "Readme.py", "1")
    tree = loaded(tmp_path)
    (tmp_path / "Readme.py").rename(tmp_path / "readme.py")
    found = tree.refresh([hint("Readme.py", What.MOVED_OUT), hint("readme.py", What.MOVED_IN)])
    assert brief(found) == {"Readme.py": "-", "readme.py": "+"}


def test_a_changed_gitignore_decides_its_folder_anew(tmp_path: Path) -> None:
    for name in ("a/x.log", "a/b/x.log", "x.log"):
        put(tmp_path, name, "1")
    tree = loaded(tmp_path)
    put(tmp_path, "a/.gitignore", "*.log\n")
    found = tree.refresh([hint("a/.gitignore", What.WRITTEN)])
    assert brief(found) == {"a/.gitignore": "+", "a/x.log": "-", "a/b/x.log": "-"}
    (tmp_path / "a/.gitignore").unlink()
    found = tree.refresh([hint("a/.gitignore", What.DELETED)])
    assert brief(found) == {"a/.gitignore": "-", "a/x.log": "+", "a/b/x.log": "+"}


def test_a_folder_that_is_not_ignored_any_more_is_watched(tmp_path: Path) -> None:
    put(tmp_path, "build/deep/x", "1")
    put(tmp_path, ".gitignore", "build/\n")
    tree = loaded(tmp_path, IgnoreOptions())
    put(tmp_path, ".gitignore", "")
    found = tree.refresh([hint(".gitignore", What.WRITTEN)])
    assert {"build", "build/deep"} <= set(found.new_dirs)


def test_a_changed_dockerignore_decides_anew(tmp_path: Path) -> None:
    put(tmp_path, "a/x", "1")
    tree = loaded(tmp_path)
    put(tmp_path, ".dockerignore", "a\n")
    found = tree.refresh([hint(".dockerignore", What.WRITTEN)])
    assert brief(found) == {".dockerignore": "+", "a": "-", "a/x": "-"}


def test_a_folder_that_becomes_a_virtual_environment_leaves_the_tree(tmp_path: Path) -> None:
    put(tmp_path, "env/lib/x", "1")
    tree = loaded(tmp_path)
    put(tmp_path, "env/pyvenv.cfg", "")
    found = tree.refresh([hint("env/pyvenv.cfg", What.WRITTEN)])
    assert brief(found) == {"env": "-", "env/lib": "-", "env/lib/x": "-"}
    assert set(found.gone_dirs) == {"env", "env/lib"}
    assert not tree.refresh([hint("env", is_dir=True), hint("", is_dir=True)]).changes


def test_hints_on_ignored_paths_read_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "node_modules/a/b", "1")
    put(tmp_path, ".a.py.swp", "1")
    tree = loaded(tmp_path)
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail(f"{path} was listed"))
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("a file was opened"))
    found = tree.refresh([hint("node_modules/a/b"), hint(".a.py.swp"), hint("x.tmp"),
                          hint("node_modules", is_dir=True)])
    assert not found.changes
    assert not found.rescanned


def test_a_vanished_root_changes_nothing_and_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "p"
    put(root, "a", "1")
    tree = loaded(root)
    root.rename(tmp_path / "q")
    with pytest.raises(WatchError):
        tree.refresh([hint("a", What.DELETED)])
    assert set(tree.manifest) == {"a"}
    (tmp_path / "q").rename(root)
    put(root, "a", "two")
    assert brief(tree.rescan()) == {"a": "~"}


def test_changes_seen_by_a_look_that_failed_are_told_by_the_next(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "p"
    put(root, "a", "1")
    tree = loaded(root)
    (root / "a").unlink()
    isdir = os.path.isdir
    answers = iter([True, False])
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "isdir", lambda path: next(answers))
        with pytest.raises(WatchError):
            tree.refresh([hint("a", What.DELETED)])
    assert isdir(root)
    assert brief(tree.refresh([])) == {"a": "-"}


def test_mended_problems_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "bad").symlink_to("/etc")
    (tmp_path / "gone").symlink_to("/etc")
    tree = loaded(tmp_path)
    assert set(tree.problems) == {"bad", "gone"}
    (tmp_path / "bad").unlink()
    (tmp_path / "bad").symlink_to("inside")
    (tmp_path / "gone").unlink()
    tree.refresh([hint("", is_dir=True)])
    assert not tree.problems
