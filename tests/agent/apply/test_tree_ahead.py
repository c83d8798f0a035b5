"""Files that come before the first batch is known: what it has just so is used, nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import (
    Crash,
    DyingOps,
    Exe,
    Files,
    Link,
    blobs_of,
    look,
    manifest_of,
    quick_folder,
    same_tree,
    sha,
    trees,
    whole,
)

from hyperbox_agent.apply import Tree
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.plan import diff
from hyperbox_agent.errors import ApplyError, MissingBlobsError, NoSpaceError, StoreError
from hyperbox_agent.store.ops import Ops

SENT: Files = {"a.py": b"1", "run.sh": Exe(b"#!"), "pkg/b.py": b"2", "pkg/deep/c.py": b"3",
               "gone/d.py": b"4", "swap": b"a file", "flip/z": b"in a folder", "nothing": b""}
NOW: Files = {"a.py": b"1", "run.sh": Exe(b"#!"), "pkg/b.py": b"22", "pkg/deep/c.py": b"3",
              "swap/q": b"in a folder now", "flip": b"a file now", "nothing": b"",
              "link": Link("a.py"), "late/e.py": b"5", "empty": None}


def opened(base: Path | str, ops: Ops | None = None) -> Tree:
    tree = Tree(os.path.join(base, "T"), session="s", ops=ops)
    tree.recover()
    return tree


def send(tree: Tree, files: Files) -> None:
    """All files of a tree, in two calls."""
    entries = [entry for entry in manifest_of(files).values() if entry.kind is Kind.FILE]
    contents = blobs_of(files)
    pairs = [(entry, contents[entry.digest]) for entry in entries]
    tree.ahead(pairs[::2])
    tree.ahead(pairs[1::2])


def otherwise(sent: Files, now: Files) -> Iterable[Change]:
    """What a session lists: the rest of the batch, and what is gone."""
    before, after = manifest_of(sent), manifest_of(now)
    for path, entry in after.items():
        if entry.kind is not Kind.FILE or path not in before or not before[path].same(entry):
            yield Change(path, None, entry)
    for path, entry in before.items():
        if entry.kind is Kind.FILE and path not in after:
            yield Change(path, entry, None)


def count(files: Files) -> int:
    return sum(entry.kind is Kind.FILE for entry in manifest_of(files).values())


def finish(tree: Tree, sent: Files, now: Files) -> None:
    stager = tree.begin(1, tree.early.complete(count(sent), otherwise(sent, now)))
    there = {path for path, entry in manifest_of(sent).items() if entry.kind is Kind.FILE
             and path in manifest_of(now) and manifest_of(now)[path].same(entry)}
    rest = [entry.digest for path, entry in manifest_of(now).items()
            if entry.kind is Kind.FILE and path not in there]
    assert set(stager.needs) == set(rest), "what came ahead is not asked for again"
    for digest in stager.needs:
        stager.add(digest, blobs_of(now)[digest])
    tree.commit(tree.apply(stager.finish()))


def check(tree: Tree, now: Files) -> None:
    assert same_tree(look(tree.root), whole(now))
    assert tree.manifest() == manifest_of(now)
    assert tree.damage() == (), "the stamps are those of the files that stand there"
    assert os.listdir(os.path.join(tree.home, "stage")) == []


def test_what_came_ahead_is_the_tree_without_being_sent_again(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        send(tree, SENT)
        assert os.listdir(tree.root) == [], "nothing is in the tree before there is a batch"
        finish(tree, SENT, SENT)
        check(tree, SENT)


def test_what_is_otherwise_or_gone_by_then_is_not_used(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        send(tree, SENT)
        finish(tree, SENT, NOW)
        check(tree, NOW)


@given(sent=trees(), now=trees(), keep=st.data())
@settings(max_examples=40)
def test_whatever_came_ahead_the_tree_is_what_the_batch_says(
        sent: Files, now: Files, keep: st.DataObject) -> None:
    common = {path: what for path, what in now.items() if keep.draw(st.booleans())}
    sent = common if keep.draw(st.booleans()) else sent
    with quick_folder() as base, opened(base) as tree:
        send(tree, sent)
        finish(tree, sent, now)
        check(tree, now)


def test_a_batch_that_knows_nothing_of_it_is_whole_too(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        send(tree, SENT)
        tree.commit(tree.apply(tree.stage(1, diff({}, manifest_of(NOW)), blobs_of(NOW))))
        check(tree, NOW)


def test_another_content_than_announced_spoils_all_that_came(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        send(tree, {"a.py": b"1"})
        with pytest.raises(StoreError, match=r"b\.py"):
            tree.ahead([(Entry("b.py", Kind.FILE, 0o644, 1, sha(b"2")), b"3")])
        with pytest.raises(MissingBlobsError):
            tree.early.complete(1, ())
        tree.commit(tree.apply(tree.stage(1, diff({}, manifest_of(NOW)), blobs_of(NOW))))
        check(tree, NOW)


def test_a_folder_or_a_link_is_no_file_that_comes_ahead(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        for entry in manifest_of({"d": None, "l": Link("a")}).values():
            with pytest.raises(StoreError):
                tree.ahead([(entry, b"")])


def test_another_number_of_files_than_was_sent_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        send(tree, SENT)
        with pytest.raises(MissingBlobsError, match="9 files were sent ahead, and 8 are here"):
            tree.early.complete(9, ())


def test_a_tree_that_holds_something_takes_nothing_ahead(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        finish(tree, {}, NOW)
        with pytest.raises(ApplyError, match="only an empty tree"):
            send(tree, SENT)
        check(tree, NOW)


def test_a_disk_that_fills_meanwhile_leaves_room_for_the_batch(tmp_path: Path) -> None:
    class Full(Ops):
        def __init__(self) -> None:
            self.left = 3

        def write(self, fd: int, data: bytes) -> int:  # type: ignore[override]
            self.left -= 1
            if self.left == 0:
                raise OSError(28, "No space left on device")
            return os.write(fd, data)

    with opened(tmp_path, Full()) as tree:
        with pytest.raises(NoSpaceError):
            send(tree, SENT)
        stager = tree.begin(1, diff({}, manifest_of(NOW)))
        assert os.listdir(os.path.join(tree.home, "stage")) == ["1"]
        stager.abandon()


@given(dies=st.integers(0, 40))
@settings(max_examples=30)
def test_killed_at_any_point_nothing_of_it_stays(dies: int) -> None:
    with quick_folder() as base:
        try:
            with opened(base, DyingOps(dies)) as tree:
                send(tree, SENT)
                finish(tree, SENT, NOW)
        except Crash:
            pass
        with opened(base) as tree:
            assert not os.path.exists(os.path.join(tree.home, "stage", "ahead"))
            if tree.number:
                check(tree, NOW)
            else:
                assert os.listdir(tree.root) == []
                send(tree, SENT)
                finish(tree, SENT, NOW)
                check(tree, NOW)
