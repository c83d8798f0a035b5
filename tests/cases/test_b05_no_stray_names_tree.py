"""B05: a second watcher inside the target's tree sees the final names and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filesystems import tmpfs
from spying import spying
from trees import Exe, Files, Link, blobs_of, manifest_of

from hyperbox_agent.apply import Applied, Tree
from hyperbox_agent.core.plan import diff
from hyperbox_agent.errors import ApplyError
from hyperbox_agent.store.pruning import Keep

pytestmark = pytest.mark.needs("inotify")


def bring(tree: Tree, number: int, files: Files) -> Applied:
    changes = diff(tree.manifest(), manifest_of(files))
    return tree.apply(tree.stage(number, changes, blobs_of(files)))


BEFORE: Files = {**{f"pkg{n % 5}/m{n}.py": b"1" for n in range(50)}, "run": b"#!", "old.py": b"x",
                 "link": Link("run")}
AFTER: Files = {**{f"pkg{n % 5}/m{n}.py": b"2" for n in range(50)}, "run": Exe(b"#!"),
                "fresh.py": b"y", "newdir/a.py": b"a", "newdir/b.py": b"b",
                "link": Link("fresh.py")}


def test_b05_fifty_edits_are_fifty_final_renames(tmp_path: Path) -> None:
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        tree.commit(bring(tree, 1, BEFORE))
        with spying(tree.root) as spy:
            applied = bring(tree, 2, AFTER)
            changed = {f"pkg{n % 5}/m{n}.py" for n in range(50)}
            assert sorted(spy.read()) == sorted(
                [("moved_to", path) for path in changed | {"fresh.py", "newdir", "link"}]
                + [("moved_from", "old.py")])
            tree.undo(applied)
            names = {path for _, path in spy.read()}
            assert names == changed | {"fresh.py", "newdir", "link", "old.py"}
            tree.commit(bring(tree, 3, AFTER))
            names = {path for _, path in spy.read()}
            assert names <= set(manifest_of(AFTER)) | set(manifest_of(BEFORE))


def test_b05_nothing_is_seen_while_staging_and_opening(tmp_path: Path) -> None:
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        tree.commit(bring(tree, 1, BEFORE))
    with spying(str(tmp_path / "T")) as spy:
        with Tree(str(tmp_path / "T"), session="s") as tree:
            tree.recover()
            changes = diff(tree.manifest(), manifest_of(AFTER))
            tree.discard(tree.stage(2, changes, blobs_of(AFTER)))
            tree.keep = Keep(1)
            tree.prune()
        assert spy.read() == []


@pytest.mark.needs("root", "mount")
def test_b05_a_tree_on_another_filesystem_has_its_home_beside_it(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mnt", "size=16m") as mounted:
        root = os.path.join(mounted, "T")
        with Tree(root, session="s") as tree:
            assert os.stat(tree.home).st_dev == os.stat(root).st_dev
            tree.recover()
            tree.commit(bring(tree, 1, BEFORE))
            with spying(root) as spy:
                bring(tree, 2, AFTER)
                assert {word for word, _ in spy.read()} == {"moved_to", "moved_from"}
        with pytest.raises(ApplyError, match="different filesystems"):
            Tree(root, str(tmp_path / "home"))
        with pytest.raises(ApplyError, match="different filesystems") as caught:
            Tree(mounted, session="s")
        assert "below the mount point" in str(caught.value.hint)
