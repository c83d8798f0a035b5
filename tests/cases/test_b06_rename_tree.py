"""B06: after a rename the old name is gone, from the tree and from what Python cached of it."""

from __future__ import annotations

import os
import py_compile
import sys
from pathlib import Path

from trees import Files, blobs_of, look, manifest_of, same_tree, whole

from hyperbox_agent.apply import Applied, Tree
from hyperbox_agent.core.plan import diff


def bring(tree: Tree, number: int, files: Files) -> Applied:
    changes = diff(tree.manifest(), manifest_of(files))
    contents = blobs_of(files)
    sent = {digest: contents[digest] for digest in tree.missing(changes)}
    return tree.apply(tree.stage(number, changes, sent))


def compiled(root: str) -> list[str]:
    return sorted(os.path.relpath(os.path.join(folder, name), root)
                  for folder, _, names in os.walk(root) for name in names if name.endswith(".pyc"))


def test_b06_a_renamed_module_leaves_nothing_behind(tmp_path: Path) -> None:
    old: Files = {"h/__init__.py": b"", "h/one.py": b"N = 1\n", "h/two.py": b"N = 2\n"}
    new: Files = {"h/__init__.py": b"", "h/uno.py": b"N = 1\n", "h/two.py": b"N = 2\n"}
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        tree.commit(bring(tree, 1, old))
        for name in ("one", "two"):
            py_compile.compile(os.path.join(tree.root, "h", f"{name}.py"), doraise=True)
        tag = sys.implementation.cache_tag
        assert compiled(tree.root) == [f"h/__pycache__/{name}.{tag}.pyc" for name in ("one", "two")]
        changes = diff(tree.manifest(), manifest_of(new))
        assert tree.missing(changes) == (), "the content is there under the old name"
        tree.commit(tree.apply(tree.stage(2, changes, {})))
        assert compiled(tree.root) == [f"h/__pycache__/two.{tag}.pyc"]
        assert not os.path.exists(os.path.join(tree.root, "h/one.py"))


def test_b06_a_folder_renamed_while_nobody_watched(tmp_path: Path) -> None:
    old: Files = {f"lib/sub{n % 7}/m{n}.py": b"%d" % n for n in range(500)}
    new: Files = {path.replace("lib/", "core/"): data for path, data in old.items()}
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        tree.commit(bring(tree, 1, old))
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        changes = diff(tree.manifest(), manifest_of(new))
        assert tree.missing(changes) == ()
        applied = tree.apply(tree.stage(2, changes, {}))
        assert same_tree(look(tree.root), whole(new))
        assert applied.left == applied.kept == ()
