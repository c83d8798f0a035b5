"""B16: lock files, vanishing files and a folder of somebody else stop nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from watching import put

pytestmark = [pytest.mark.needs("inotify"), pytest.mark.needs("root")]

NOBODY = 65534

PRELUDE = textwrap.dedent("""
    import asyncio, os, sys
    from pathlib import Path
    from watching import Watching, put, text

    # All that is needed is imported: the interpreter may lie where only root can read.
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    root = Path(sys.argv[1])
""")


def as_nobody(root: Path, program: str) -> None:
    """Run ``async def main()`` in a process that has no right but its user's."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    code = PRELUDE + textwrap.dedent(program) + "\nasyncio.run(main())\n"
    ran = subprocess.run([sys.executable, "-c", code, root], env=environ, capture_output=True,
                         text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture
def root() -> Iterator[Path]:
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


def give(root: Path, *paths: str) -> None:
    for path in paths:
        os.chown(root / path, NOBODY, NOBODY)


def test_b16_editor_files_make_no_change_and_an_unreadable_folder_is_one_problem(
        root: Path) -> None:
    for name in ("ver.py", "app.py", "seen/x", "pgdata/base", "secret.py"):
        put(root, name, "1")
    give(root, "ver.py", "app.py", "seen", "seen/x")
    (root / "pgdata").chmod(0o700)
    (root / "secret.py").chmod(0o600)
    as_nobody(root, """
        async def main():
            async with Watching(root) as w:
                assert set(w.tree.problems) == {"pgdata", "secret.py"}, w.tree.problems
                assert "permission denied" in w.tree.problems["pgdata"].message
                before = set(w.tree.manifest)
                (root / ".#app.py").symlink_to("user@host.123:45")
                put(root, "4913")
                (root / "4913").unlink()
                for name in (".app.py.swp", "app.py~", "#app.py#"):
                    put(root, name)
                for i in range(1000):
                    put(root, f"f{i}")
                    (root / f"f{i}").unlink()
                put(root, "ver.py", "2")
                await w.until(lambda: text(w.tree, "ver.py") == "2")
                await w.equal()
                changed = {change.path for change in w.changes}
                assert changed == {"ver.py"}, changed
                assert set(w.tree.manifest) == before
                assert set(w.tree.problems) == {"pgdata", "secret.py"}
    """)


def test_b16_a_folder_that_becomes_unreadable_keeps_its_entries_and_comes_back(
        root: Path) -> None:
    put(root, "data/deep/x", "1")
    give(root, "data", "data/deep", "data/deep/x")
    as_nobody(root, """
        async def main():
            async with Watching(root) as w:
                (root / "data").chmod(0)
                await w.until(lambda: "data" in w.tree.problems)
                assert "data/deep/x" in w.tree.manifest
                assert not w.changes
                (root / "data").chmod(0o755)
                await w.until(lambda: not w.tree.problems)
                put(root, "data/deep/x", "two")
                put(root, "data/new", "1")
                await w.equal()
    """)
