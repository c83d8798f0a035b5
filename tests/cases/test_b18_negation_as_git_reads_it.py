"""B18: what a "!" brings back, and what stays ignored since its parent is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from watching import put

from hyperbox_agent.watch.tree import SourceTree

pytestmark = pytest.mark.needs("git")

PATHS = ["dir/a.test", "dir/sub/b.test", "c.test", "foo/bar/x", "foo/z", "foo/baz/y", "q"]

TABLE = {
    "*.test\n!dir/*\n": {"dir/sub/b.test", "c.test"},
    "foo\n!foo/bar\n": {"foo/bar/x", "foo/z", "foo/baz/y"},
    "foo/*\n!foo/bar\n!foo/baz/y\n": {"foo/z", "foo/baz/y"},
    "\ufefffoo/z\n": {"foo/z"},
    "*\n!*/\n!q\n": set(PATHS) - {"q"},
    "*\n!dir/\n!dir/a.test\n": set(PATHS) - {"dir/a.test"},
    "!q\nq\n": {"q"},
    "q\n!q\nq\n!q\n": set(),
    "/*\n!/foo\n/foo/*\n!/foo/bar\n": set(PATHS) - {"foo/bar/x"},
    "\\!q\n!\\q\n": set(),
    "foo/bar/\r\n!foo/bar/x\r\n": {"foo/bar/x"},
    "**/b.test\n!dir/sub\n": {"dir/sub/b.test"},
    "dir/**\n!dir/**/b.test\n": {"dir/a.test", "dir/sub/b.test"},
    "dir/**\n!dir/**/\n!b.test\n": {"dir/a.test"},
}


@pytest.mark.parametrize("text", TABLE)
def test_b18_the_verdict_is_that_of_git(tmp_path: Path, text: str) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for path in PATHS:
        put(tmp_path, path)
    put(tmp_path, ".gitignore", text)
    ran = subprocess.run(["git", "check-ignore", "--no-index", "--stdin", "-z"], cwd=tmp_path,
                         input="\0".join(PATHS).encode(), capture_output=True, check=False)
    tree = SourceTree(str(tmp_path))
    tree.load()
    ours = {path for path in PATHS if path not in tree.manifest}
    assert ours == set(os.fsdecode(ran.stdout).split("\0")) - {""}
    assert ours == TABLE[text]


def test_b18_an_outer_negation_does_not_undo_an_inner_file(tmp_path: Path) -> None:
    put(tmp_path, ".gitignore", "!x\n")
    put(tmp_path, "a/.gitignore", "x\n")
    put(tmp_path, "a/x")
    tree = SourceTree(str(tmp_path))
    tree.load()
    assert "a/x" not in tree.manifest
