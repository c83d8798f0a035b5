"""B10: what changed while the target was down arrives, whatever the files' times say."""

from __future__ import annotations

import os
from pathlib import Path

from trees import Files, blobs_of, look, manifest_of, put, same_tree, whole

from hyperbox_agent.apply import Tree
from hyperbox_agent.core.plan import diff


def bring(tree: Tree, number: int, files: Files) -> None:
    changes = diff(tree.manifest(), manifest_of(files))
    tree.commit(tree.apply(tree.stage(number, changes, blobs_of(files))))


def test_b10_edits_made_while_the_target_was_down(tmp_path: Path) -> None:
    before: Files = {"ver.py": b'V = "v1"\n', "app.py": b"app"}
    after: Files = {"ver.py": b'V = "v2"\n', "app.py": b"app", "old.py": b"back-dated"}
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        bring(tree, 1, before)
    source = tmp_path / "source"
    put(str(source), after)
    os.utime(source / "old.py", (978_307_200, 978_307_200))
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        bring(tree, 2, after)
        assert same_tree(look(tree.root), whole(after))


def test_b10_a_file_of_the_same_size_and_time_that_was_changed_on_the_target_is_mended(
        tmp_path: Path) -> None:
    files: Files = {"ver.py": b"V = 1\n"}
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        bring(tree, 1, files)
    path = tmp_path / "T" / "ver.py"
    facts = path.stat()
    # As an image that was rebuilt has it: another file with the old time and size. The first
    # one stays somewhere, else this one may be given its inode number: nothing tells them apart.
    path.rename(tmp_path / "first")
    path.write_bytes(b"V = 9\n")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        assert [item.path for item in tree.damage()] == ["ver.py"]
        bring(tree, 2, files)
        assert path.read_bytes() == b"V = 1\n"
