"""B17: nested files and slashes at the end; forty patterns have the verdict of git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from watching import put

from hyperbox_agent.watch.tree import SourceTree

pytestmark = pytest.mark.needs("git")

PATHS = ["a.log", "b/a.log", "b/c/a.log", "build/keep", "pkg/build/o", "pkg/tools/build/o", "foo",
         "d/foo", "foo2/bar", "d/foo2/bar/x", "doc/a.txt", "doc/x/a.txt", "doc/x/y/a.txt", "a b",
         "trail ", "#x", "!x", "x[1]", "x1", "X1", "é", "ab", "a-b", "tab\t", "back\\slash", ".env",
         "b/.env", "deep/er/than/that", "z/z/z", "new\nline"]

PATTERNS = ["*.log", "/*.log", "b/*.log", "b/**/a.log", "**/a.log", "build", "build/", "/build/",
            "pkg/build/", "**/build/", "foo", "/foo", "foo/", "d/foo", "foo*", "foo?/", "doc/*.txt",
            "doc/**", "doc/**/a.txt", "doc/*/a.txt", "**/y", "a b", "trail ", "trail\\ ", "\\#x",
            "#x", "\\!x", "x[1]", "x\\[1\\]", "x[0-9]", "[xX]1", "?", "??", "[[:alpha:]]?",
            "a[!-]b", "a?b", "tab\t", "back\\\\slash", ".e*", "deep/*/than", "z/z", "*", "**",
            "new\nline", "foo**/bar", "*/", "/**/foo", "er/"]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repo")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for path in PATHS:
        put(root, path)
    return root


def git_ignores(repo: Path) -> set[str]:
    ran = subprocess.run(["git", "check-ignore", "--no-index", "--stdin", "-z"], cwd=repo,
                         input="\0".join(PATHS).encode(), capture_output=True, check=False)
    assert ran.returncode in (0, 1)
    return set(os.fsdecode(ran.stdout).split("\0")) - {""}


def we_ignore(repo: Path) -> set[str]:
    tree = SourceTree(str(repo))
    tree.load()
    return {path for path in PATHS if path not in tree.manifest}


def test_b17_the_table_has_at_least_forty_patterns() -> None:
    assert len(set(PATTERNS)) >= 40


@pytest.mark.parametrize("pattern", PATTERNS)
def test_b17_the_verdict_is_that_of_git(repo: Path, pattern: str) -> None:
    put(repo, ".gitignore", pattern + "\n")
    assert we_ignore(repo) == git_ignores(repo)


def test_b17_a_slash_at_the_end_anchors_nothing(repo: Path) -> None:
    put(repo, ".gitignore", "")
    put(repo, "pkg/.gitignore", "build/\n")
    try:
        assert we_ignore(repo) == git_ignores(repo) == {"pkg/build/o", "pkg/tools/build/o"}
    finally:
        (repo / "pkg/.gitignore").unlink()
