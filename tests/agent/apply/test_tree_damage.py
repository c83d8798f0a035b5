"""What the program does to the tree is found, mended and never lost."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from trees import Exe, Files, Link, blobs_of, look, manifest_of, same_tree, whole

import hyperbox_agent.apply.boot
from hyperbox_agent.apply import Applied, Tree, TreeState
from hyperbox_agent.apply.damage import find_damage
from hyperbox_agent.apply.folders import Folders
from hyperbox_agent.core.entries import Change, Manifest
from hyperbox_agent.core.plan import diff
from hyperbox_agent.errors import ApplyError
from hyperbox_agent.store.born import birth

FILES: Files = {"a.py": b"1", "b.py": b"2", "run": Exe(b"#!"), "pkg/c.py": b"3", "pkg/d.py": b"4",
                "link": Link("a.py")}


def bring(tree: Tree, number: int, files: Files) -> Applied:
    changes = diff(tree.manifest(), manifest_of(files))
    contents = blobs_of(files)
    sent = {digest: contents[digest] for digest in tree.missing(changes)}
    return tree.apply(tree.stage(number, changes, sent))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(str(tmp_path / "T"), session="s")
    tree.recover()
    tree.commit(bring(tree, 1, FILES))
    return tree


def test_a_tree_that_nobody_touched_has_no_damage(tree: Tree) -> None:
    assert tree.damage() == ()
    assert tree.manifest() == manifest_of(FILES)


def test_each_kind_of_damage_is_found_and_mended(tree: Tree) -> None:
    root = Path(tree.root)
    (root / "a.py").write_bytes(b"program wrote")
    (root / "b.py").unlink()
    os.chmod(root / "run", 0o644)
    shutil.rmtree(root / "pkg")
    (root / "link").unlink()
    os.symlink("b.py", root / "link")
    found = {item.path: item.now for item in tree.damage()}
    assert sorted(found) == ["a.py", "b.py", "link", "pkg", "pkg/c.py", "pkg/d.py", "run"]
    assert found["b.py"] is found["pkg"] is None
    applied = bring(tree, 2, FILES)
    assert same_tree(look(tree.root), whole(FILES))
    assert tree.damage() == ()
    assert sorted(kept.path for kept in applied.kept) == ["a.py", "link"]
    tree.commit(applied)
    assert all(os.path.lexists(kept.where) for kept in applied.kept)


def test_content_counts_not_time(tree: Tree) -> None:
    os.utime(os.path.join(tree.root, "a.py"), (1, 1))
    assert tree.damage() == ()
    facts = os.stat(os.path.join(tree.root, "b.py"))
    with open(os.path.join(tree.root, "b.py"), "wb") as file:
        file.write(b"X")
    os.utime(os.path.join(tree.root, "b.py"), ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert [item.path for item in tree.damage()] == ["b.py"]


def test_what_the_program_wrote_is_kept_before_it_is_overwritten(tree: Tree) -> None:
    Path(tree.root, "a.py").write_bytes(b"program wrote")
    applied = bring(tree, 2, {**FILES, "a.py": b"edited"})
    assert look(tree.root)["a.py"] == b"edited"
    (kept,) = applied.kept
    tree.commit(applied)
    assert Path(kept.where).read_bytes() == b"program wrote"


def test_another_file_with_the_number_the_size_and_the_time_of_ours_is_found(
        tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which number a file system gives again, and when, is its own affair: all but the birth is
    made the same here."""
    path = os.path.join(tree.root, "a.py")
    facts = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    def later(name: str, folder: int) -> int:
        return birth(name, folder) + (name == "a.py")

    monkeypatch.setattr("hyperbox_agent.apply.damage.birth", later)
    assert [item.path for item in tree.damage()] == ["a.py"]


def test_what_a_power_cut_left_empty_is_found_and_mended(
        tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root, number = Path(tree.root), 2
    assert tree.damage() == ()
    for boot in ("the next start", "and one more", None, None):
        before = (root / "a.py").stat()
        (root / "a.py").write_bytes(b"\0")
        os.utime(root / "a.py", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert tree.damage() == () or boot is None, "no stamp tells"
        monkeypatch.setattr(hyperbox_agent.apply.boot, "boot_id", lambda boot=boot: boot)
        for _ in range(2):  # and that it was found is not enough
            tree.close()
            tree = Tree(str(root), session="s")
            tree.recover()
            assert [item.path for item in tree.damage()] == ["a.py"]
        tree.commit(bring(tree, number, FILES))
        number += 1
        assert (root / "a.py").read_bytes() == b"1"
        assert tree.damage() == ()


@pytest.mark.parametrize("again", [b"1", b"edited"])
def test_only_what_a_batch_touches_is_looked_at_for_it(tree: Tree, again: bytes,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """A save costs what it touches, however big the tree is."""
    looked: list[str] = []

    def counting(root: Folders, manifest: Manifest, *rest: Any, **more: Any) -> Any:
        looked.extend(manifest)
        return find_damage(root, manifest, *rest, **more)

    monkeypatch.setattr("hyperbox_agent.apply.tree.find_damage", counting)
    Path(tree.root, "a.py").write_bytes(b"program wrote")
    new = manifest_of({"a.py": again})["a.py"]
    changes = (Change("a.py", tree.recorded["a.py"], new),)
    applied = tree.apply(tree.stage(2, changes, {new.digest: again}))
    tree.commit(applied)
    assert set(looked) == {"a.py"}
    assert look(tree.root)["a.py"] == again
    assert [Path(kept.where).read_bytes() for kept in applied.kept] == [b"program wrote"]
    assert tree.damage() == ()


def test_what_the_program_removed_can_be_removed(tree: Tree) -> None:
    Path(tree.root, "b.py").unlink()
    shutil.rmtree(os.path.join(tree.root, "pkg"))
    gone = ("b.py", "pkg", "pkg/c.py", "pkg/d.py")
    changes = tuple(Change(path, tree.recorded[path], None) for path in gone)
    applied = tree.apply(tree.stage(2, changes, {}))
    assert set(tree.recorded) == {"a.py", "run", "link"}
    assert tree.damage() == ()
    tree.undo(applied)
    assert {item.path for item in tree.damage()} >= {"b.py", "pkg/c.py", "pkg/d.py"}
    assert {item.path for item in tree.damage()} <= set(gone)


def test_what_the_program_wrote_comes_back_with_an_undo(tree: Tree) -> None:
    Path(tree.root, "a.py").write_bytes(b"program wrote")
    applied = bring(tree, 2, {**FILES, "a.py": b"edited"})
    tree.undo(applied)
    assert look(tree.root)["a.py"] == b"program wrote"
    assert [item.path for item in tree.damage()] == ["a.py"]


def test_a_write_after_the_look_and_before_the_batch_is_kept_too(tree: Tree) -> None:
    changes = diff(tree.manifest(), manifest_of({**FILES, "a.py": b"edited"}))
    staged = tree.stage(2, changes, {change.new.digest: b"edited" for change in changes
                                     if change.new})
    Path(tree.root, "a.py").unlink()
    Path(tree.root, "a.py").write_bytes(b"in between")
    applied = tree.apply(staged)
    tree.commit(applied)
    assert [Path(kept.where).read_bytes() for kept in applied.kept] == [b"in between"]


def test_a_write_at_the_last_moment_is_kept_too(tree: Tree) -> None:
    """The program is stopped, not asked: it may have replaced a file just before."""

    @contextmanager
    def freeze() -> Iterator[None]:
        for name in ("a.py", "new.py"):
            Path(tree.root, "tmp").write_bytes(b"last moment " + name.encode())
            os.replace(os.path.join(tree.root, "tmp"), os.path.join(tree.root, name))
        yield

    files: Files = {**FILES, "a.py": b"edited", "new.py": b"new"}
    changes = diff(tree.manifest(), manifest_of(files))
    applied = tree.apply(tree.stage(2, changes, blobs_of(files)), freeze=freeze)
    assert same_tree(look(tree.root), whole(files))
    tree.commit(applied)
    assert {kept.path: Path(kept.where).read_bytes() for kept in applied.kept} \
        == {"a.py": b"last moment a.py", "new.py": b"last moment new.py"}


def test_a_folder_that_goes_at_the_last_moment_is_made_again(tree: Tree) -> None:
    @contextmanager
    def freeze() -> Iterator[None]:
        shutil.rmtree(os.path.join(tree.root, "pkg"))
        yield

    files: Files = {**FILES, "pkg/c.py": b"33", "pkg/e.py": b"5"}
    changes = diff(tree.manifest(), manifest_of(files))
    tree.apply(tree.stage(2, changes, blobs_of(files)), freeze=freeze)
    assert look(tree.root)["pkg/c.py"] == b"33"
    assert look(tree.root)["pkg/e.py"] == b"5"
    assert [item.path for item in tree.damage()] == ["pkg/d.py"]


def test_a_removed_file_that_the_program_had_written_is_kept(tree: Tree) -> None:
    Path(tree.root, "a.py").write_bytes(b"program wrote")
    files = {path: what for path, what in FILES.items() if path != "a.py"}
    applied = bring(tree, 2, files)
    assert "a.py" not in look(tree.root)
    tree.commit(applied)
    assert [Path(kept.where).read_bytes() for kept in applied.kept] == [b"program wrote"]


def test_a_folder_with_files_of_others_stays_and_is_named(tree: Tree) -> None:
    Path(tree.root, "pkg", "data.db").write_bytes(b"theirs")
    files = {path: what for path, what in FILES.items() if not path.startswith("pkg")}
    applied = bring(tree, 2, files)
    assert applied.left == ("pkg",)
    assert look(tree.root)["pkg/data.db"] == b"theirs"
    assert "pkg/c.py" not in look(tree.root)
    tree.commit(applied)
    assert tree.damage() == ()


def test_a_module_that_goes_takes_its_compiled_code_along(tree: Tree) -> None:
    cache = Path(tree.root, "pkg", "__pycache__")
    cache.mkdir()
    for name in ("c.cpython-311.pyc", "c.cpython-311.opt-1.pyc", "d.cpython-311.pyc",
                 "cc.cpython-311.pyc", "c.d.cpython-311.pyc", "c.txt"):
        (cache / name).write_bytes(b"x")
    files = {path: what for path, what in FILES.items() if path != "pkg/c.py"}
    tree.commit(bring(tree, 2, files))
    assert sorted(os.listdir(cache)) == ["c.d.cpython-311.pyc", "c.txt", "cc.cpython-311.pyc",
                                         "d.cpython-311.pyc"]


def test_a_package_that_goes_takes_its_cache_folder_along(tree: Tree) -> None:
    cache = Path(tree.root, "pkg", "__pycache__")
    cache.mkdir()
    (cache / "c.cpython-311.pyc").write_bytes(b"x")
    (cache / "old.cpython-310.pyc").write_bytes(b"x")
    files = {path: what for path, what in FILES.items() if not path.startswith("pkg")}
    applied = bring(tree, 2, files)
    assert applied.left == ()
    assert not os.path.exists(os.path.join(tree.root, "pkg"))


def test_a_folder_that_becomes_a_file_keeps_what_others_had_in_it(tree: Tree) -> None:
    Path(tree.root, "pkg", "data.db").write_bytes(b"theirs")
    files = {path: what for path, what in FILES.items() if not path.startswith("pkg")}
    applied = bring(tree, 2, {**files, "pkg": b"a file now"})
    assert look(tree.root)["pkg"] == b"a file now"
    tree.commit(applied)
    assert [(kept.path, Path(kept.where).read_bytes()) for kept in applied.kept] \
        == [("pkg/data.db", b"theirs")]


def test_undoing_keeps_what_the_program_put_beside_new_files(tree: Tree) -> None:
    applied = bring(tree, 2, {**FILES, "fresh/x.py": b"x"})
    Path(tree.root, "fresh", "log.txt").write_bytes(b"written meanwhile")
    undone = tree.undo(applied)
    assert undone.left == ("fresh",)
    assert look(tree.root)["fresh/log.txt"] == b"written meanwhile"
    assert "fresh/x.py" not in look(tree.root)


# --------------------------------------------------------------------------- links and swaps


def test_a_planted_link_is_not_followed(tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(os.path.join(tree.root, "pkg"))
    os.symlink(outside, os.path.join(tree.root, "pkg"))
    applied = bring(tree, 2, {**FILES, "pkg/c.py": b"33", "pkg/new.py": b"n"})
    assert os.listdir(outside) == []
    assert same_tree(look(tree.root), whole({**FILES, "pkg/c.py": b"33", "pkg/new.py": b"n"}))
    tree.commit(applied)
    assert applied.kept, "the link is kept and named"


def test_a_link_in_the_place_of_a_file_is_replaced_not_written_through(tree: Tree,
                                                                       tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    os.unlink(os.path.join(tree.root, "a.py"))
    os.symlink(outside, os.path.join(tree.root, "a.py"))
    bring(tree, 2, {**FILES, "a.py": b"edited", "run": b"#!"})
    assert outside.read_bytes() == b"precious"
    assert look(tree.root)["a.py"] == b"edited"


def test_the_bit_of_a_file_behind_a_planted_link_is_not_changed(tree: Tree, tmp_path: Path
                                                                ) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    outside.chmod(0o600)
    changes = diff(tree.manifest(), manifest_of({**FILES, "run": b"#!"}))
    staged = tree.stage(2, changes, {})
    os.unlink(os.path.join(tree.root, "run"))
    os.symlink(outside, os.path.join(tree.root, "run"))
    tree.apply(staged)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600


def test_a_folder_that_is_swapped_for_a_link_again_and_again_lets_nothing_out(
        tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    pkg, aside = os.path.join(tree.root, "pkg"), os.path.join(tree.root, "aside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                os.rename(pkg, aside)
                os.symlink(outside, pkg)
                os.unlink(pkg)
                os.rename(aside, pkg)
            except OSError:
                continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(2, 25):
            files = {**FILES, **{f"pkg/n{index}.py": b"%d" % number for index in range(10)}}
            try:
                tree.commit(bring(tree, number, files))
            except ApplyError:
                tree.recover()
            assert os.listdir(outside) == []
    finally:
        stop.set()
        thread.join()
    assert os.listdir(outside) == []


# ------------------------------------------------------------------------------ whose tree is it


def test_a_tree_of_another_session_gets_everything_anew(tree: Tree) -> None:
    tree.close()
    Path(tree.root, "other.txt").write_bytes(b"theirs")
    Path(tree.root, ".venv/lib").mkdir(parents=True)
    Path(tree.root, ".venv/pyvenv.cfg").write_bytes(b"made here")
    Path(tree.root, ".venv/lib/x.py").write_bytes(b"made here")
    with Tree(tree.root, session="another") as again:
        recovered = again.recover()
        assert (recovered.state, recovered.number) == (TreeState.RECREATED, 0)
        assert again.manifest() == {}
        changes = diff({}, manifest_of(FILES))
        assert again.missing(changes) == (), "what lies there already need not be sent"
        again.apply(again.stage(1, changes, {}))
        assert again.state() is TreeState.KNOWN
        assert again.foreign() == ("other.txt",)


def make_again(root: str) -> None:
    """Another folder at ``root``, with the same inode number where the filesystem gives it."""
    number = os.stat(root).st_ino
    for _ in range(50):
        shutil.rmtree(root)
        os.mkdir(root)
        if os.stat(root).st_ino == number:
            return


@pytest.mark.parametrize("how", ["removed", "emptied", "replaced", "made again"])
def test_a_tree_that_was_recreated_is_recognised(tree: Tree, how: str) -> None:
    tree.close()
    aside = tree.root + ".aside"
    if how == "replaced":
        os.rename(tree.root, aside)
        os.mkdir(tree.root)
        Path(tree.root, "other.txt").write_bytes(b"theirs")
    elif how == "made again":
        make_again(tree.root)
        Path(tree.root, "other.txt").write_bytes(b"theirs")
    else:
        shutil.rmtree(tree.root)
        if how == "emptied":
            os.mkdir(tree.root)
    with Tree(tree.root, session="s") as again:
        recovered = again.recover()
        assert (recovered.state, recovered.number) == (TreeState.RECREATED, 0)
        again.commit(bring(again, 2, FILES))
        expected = dict(whole(FILES))
        if how in ("replaced", "made again"):
            expected["other.txt"] = b"theirs"
        assert same_tree(look(again.root), expected)


def test_a_tree_that_is_replaced_while_it_is_used_is_not_written_into(tree: Tree) -> None:
    files: Files = {"a.py": b"9"}
    staged = tree.stage(2, diff(tree.manifest(), manifest_of(files)), blobs_of(files))
    os.rename(tree.root, tree.root + ".aside")
    with pytest.raises(ApplyError, match="is gone"):
        tree.apply(staged)
    os.mkdir(tree.root)
    with pytest.raises(ApplyError, match="replaced"):
        tree.apply(staged)
    assert os.listdir(tree.root) == []
    assert tree.recover().state is TreeState.RECREATED
    tree.commit(bring(tree, 3, FILES))
    assert same_tree(look(tree.root), whole(FILES))
