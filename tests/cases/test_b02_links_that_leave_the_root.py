"""B02: one bad link must not stop the rest. (Scan and watch; the session has its own part.)"""

from __future__ import annotations

from pathlib import Path

import pytest
from watching import Watching, put, text

from hyperbox_agent.core.entries import Kind

pytestmark = pytest.mark.needs("inotify")


async def test_b02_bad_links_are_named_once_and_everything_else_arrives(tmp_path: Path) -> None:
    for folder in ("env/lib", "a"):
        (tmp_path / folder).mkdir(parents=True)
    for name, target in {"env/lib/abs": "/usr/lib/python3/abc.py", "env/up": "../../../outside",
                         "env/dangling": "nowhere", "a/loop": ".."}.items():
        (tmp_path / name).symlink_to(target)
    put(tmp_path, "ok.py", "1")
    async with Watching(tmp_path) as w:
        links = {p: e.target for p, e in w.tree.manifest.items() if e.kind is Kind.LINK}
        assert links == {"env/dangling": "nowhere", "a/loop": ".."}
        assert set(w.tree.problems) == {"env/lib/abs", "env/up"}
        assert "/usr/lib/python3/abc.py" in w.tree.problems["env/lib/abs"].message
        assert set(w.tree.dirs()) == {"", "env", "env/lib", "a"}
        put(tmp_path, "ok.py", "2")
        await w.until(lambda: text(w.tree, "ok.py") == "2")
        assert [change.path for change in w.changes] == ["ok.py"]
        assert not any("loop/" in hint.path for hint in w.history)
