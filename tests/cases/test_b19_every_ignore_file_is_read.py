"""B19: nested files, info/exclude and the user's own file hide what nobody needs to ship."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from watching import put

from hyperbox_agent.watch.tree import SourceTree

pytestmark = [pytest.mark.needs("git"), pytest.mark.needs("inotify")]

PROGRAM = textwrap.dedent("""
    import asyncio, sys
    from hyperbox_agent.watch.inotify import InotifyWatcher
    from hyperbox_agent.watch.tree import SourceTree

    async def main(root):
        tree = SourceTree(root)
        tree.load()
        watcher = InotifyWatcher(root, lambda hints: None)
        watcher.start(tree.dirs())
        watcher.close()

    asyncio.run(main(sys.argv[1]))
""")


@pytest.fixture
def root(tmp_path: Path, own_home: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    put(root, "k8s/.gitignore", ".terraform/\n")
    put(root, "k8s/.terraform/x")
    os.truncate(root / "k8s/.terraform/x", 700 << 20)
    put(root, ".git/info/exclude", ".claude/worktrees/\n")
    for i in range(20):
        put(root, f".claude/worktrees/w{i}/src/a.py", "x" * 1000)
    put(own_home, ".config/git/ignore", "*.log\n")
    put(root, "big.log", "x" * 100_000)
    for i in range(5):
        put(root, f"src/m{i}/a.py", "x" * 100)
    return root


def test_b19_what_is_hidden_is_neither_counted_nor_listed(root: Path) -> None:
    tree = SourceTree(str(root))
    report = tree.load()
    hidden = ("k8s/.terraform", ".claude/worktrees", "big.log", ".git/")
    assert not any(path.startswith(hidden) for path in tree.manifest)
    assert report.counts.files == 6
    assert report.counts.bytes < (700 << 20) / 100
    assert {str(tree.reason(p)) for p in ("k8s/.terraform/x", ".claude/worktrees/w1/src/a.py")} == {
        "k8s/.gitignore:1: .terraform/", ".git/info/exclude:1: .claude/worktrees/"}


@pytest.mark.needs("strace")
def test_b19_hidden_folders_are_neither_scanned_nor_watched(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "strace"
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(["strace", "-f", "-e", "trace=inotify_add_watch,openat", "-o", log,
                    sys.executable, "-c", PROGRAM, root], env=environ, check=True, timeout=60)
    lines = [line for line in log.read_text().splitlines() if str(root) in line]
    watched = {found[1] for line in lines
               if (found := re.search(r'inotify_add_watch\(\d+, "([^"]*)"', line))}
    wanted = ["", "/.claude", "/k8s", "/src", *(f"/src/m{i}" for i in range(5)), "/.git/info"]
    assert watched == {f"{root}{folder}" for folder in wanted}
    assert not any("worktrees/" in line or ".terraform" in line for line in lines)
