"""B15: too few watches is no full disk, no crash and no silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from watching import put

pytestmark = [pytest.mark.needs("inotify"), pytest.mark.needs("userns")]

PROGRAM = textwrap.dedent("""
    import asyncio, json, sys
    from pathlib import Path
    from watching import Watching, put
    from hyperbox_agent.watch.inotify import InotifyWatcher

    for name, value in json.loads(sys.argv[2]).items():
        Path("/proc/sys/user", name).write_text(str(value))

    def make(root, sink):
        return InotifyWatcher(root, sink, poll_period=0.05)

    async def main(root):
        async with Watching(root, make) as w:
            problems = [[p.message, p.hint] for p in w.watcher.problems.values()]
            files = sorted(p for p in w.tree.manifest if p.endswith("/f.py"))
            for path in files:
                put(root, path, "edited")
            await w.equal()
            print(json.dumps({"files": len(files), "problems": problems}))

    asyncio.run(main(Path(sys.argv[1])))
""")


def run(root: Path, **limits: int) -> dict:  # type: ignore[type-arg]
    """The program above in a user namespace of its own, which has limits of its own."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(["unshare", "-Ur", sys.executable, "-c", PROGRAM, str(root),
                          json.dumps(limits)], capture_output=True, text=True, env=environ,
                         timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(400):
        put(tmp_path, f"node_modules/m{i}/x.js")
    return tmp_path


def test_b15_ignored_folders_need_no_watch(root: Path) -> None:
    for i in range(150):
        put(root, f"src{i}/f.py", "1")
    assert run(root, max_inotify_watches=200) == {"files": 150, "problems": []}


def test_b15_beyond_the_limit_it_is_said_and_no_edit_is_lost(root: Path) -> None:
    for i in range(300):
        put(root, f"src{i}/f.py", "1")
    found = run(root, max_inotify_watches=200)
    assert found["files"] == 300
    ((message, hint),) = found["problems"]
    assert "301 folders need a watch, have 200" in message
    assert "sudo sysctl fs.inotify.max_user_watches=" in hint
    assert "disk" not in message


def test_b15_without_an_instance_it_is_said_and_no_edit_is_lost(root: Path) -> None:
    for i in range(20):
        put(root, f"src{i}/f.py", "1")
    found = run(root, max_inotify_instances=0)
    assert found["files"] == 20
    ((message, hint),) = found["problems"]
    assert "inotify instances" in message
    assert "sudo sysctl fs.inotify.max_user_instances=" in hint
