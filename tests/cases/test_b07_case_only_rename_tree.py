"""B07: a rename that changes only the case, on a target that folds names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filesystems import exfat
from trees import Files, blobs_of, look, manifest_of, same_tree, whole

from hyperbox_agent.apply import Applied, Tree
from hyperbox_agent.core.plan import diff
from hyperbox_agent.errors import ApplyError

pytestmark = pytest.mark.needs("root", "mount", "exfat")

OLD: Files = {"Readme.py": b"1", **{f"Sub/m{n}.py": b"%d" % n for n in range(20)}}
NEW: Files = {"readme.py": b"1", **{f"sub/m{n}.py": b"%d" % n for n in range(20)}}


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    with exfat(tmp_path / "mnt", tmp_path / "image") as mounted, \
            Tree(os.path.join(mounted, "T"), session="s") as tree:
        tree.recover()
        assert tree.traits.folding.case
        tree.commit(bring(tree, 1, OLD))
        yield tree


def bring(tree: Tree, number: int, files: Files) -> Applied:
    changes = diff(tree.manifest(), manifest_of(files))
    contents = blobs_of(files)
    return tree.apply(tree.stage(number, changes, {digest: contents[digest]
                                                   for digest in tree.missing(changes)}))


def holds(tree: Tree, files: Files) -> bool:
    return same_tree(look(tree.root), whole(files), modes=False)


def test_b07_exactly_one_file_with_the_new_spelling(tree: Tree) -> None:
    applied = bring(tree, 2, NEW)
    assert holds(tree, NEW)
    assert applied.kept == applied.left == ()
    tree.undo(applied)
    assert holds(tree, OLD)
    tree.commit(bring(tree, 3, NEW))
    assert holds(tree, NEW)
    assert tree.damage() == ()
    tree.commit(tree.apply(tree.stage(4, tree.rollback(1), {})))
    assert holds(tree, OLD)


def test_b07_a_new_spelling_and_new_bytes_at_once(tree: Tree) -> None:
    edited: Files = {**NEW, "readme.py": b"22", "sub/m3.py": b"edited"}
    applied = bring(tree, 2, edited)
    assert holds(tree, edited)
    assert applied.kept == ()


def test_b07_what_others_have_in_the_folder_moves_along(tree: Tree) -> None:
    Path(tree.root, "Sub", "data.db").write_bytes(b"theirs")
    tree.commit(bring(tree, 2, NEW))
    assert Path(tree.root, "sub", "data.db").read_bytes() == b"theirs"
    assert "sub" in os.listdir(tree.root)
    assert "Sub" not in os.listdir(tree.root)


def test_b07_two_names_that_are_one_are_named_and_nothing_is_overwritten(tree: Tree) -> None:
    both: Files = {**OLD, "A.py": b"big", "a.py": b"small"}
    with pytest.raises(ApplyError, match="one name") as caught:
        bring(tree, 2, both)
    assert "'A.py'" in caught.value.message
    assert "'a.py'" in caught.value.message
    assert holds(tree, OLD)
