"""What the program wrote can become the tree's own, across a crash and a rollback."""

from __future__ import annotations

from pathlib import Path

from trees import Files, blobs_of, manifest_of

from hyperbox_agent.apply import Tree
from hyperbox_agent.apply.written import Written
from hyperbox_agent.core.plan import diff
from hyperbox_agent.core.pulls import PullRules

BASE: Files = {"app.py": b"v1", "uv.lock": b"1", "m/0001.py": b"1"}


def bring(tree: Tree, number: int, files: Files) -> None:
    changes = diff(tree.manifest(), manifest_of(files))
    tree.commit(tree.apply(tree.stage(number, changes, blobs_of(files))))


def test_adopted_entries_are_no_damage_any_more(tmp_path: Path) -> None:
    look = Written(PullRules(["uv.lock", "m/"]))
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        bring(tree, 1, BASE)
        (tmp_path / "T/uv.lock").write_bytes(b"2")
        (tmp_path / "T/m/sub").mkdir()
        (tmp_path / "T/m/sub/0002.py").write_bytes(b"2")
        (tmp_path / "T/other").write_bytes(b"not pulled")
        recorded, found = tree.written(look)
        assert set(recorded) == {"uv.lock", "m", "m/0001.py"}
        assert set(found) == {"uv.lock", "m", "m/0001.py", "m/sub", "m/sub/0002.py"}
        news = [entry for path, entry in found.items()
                if path not in recorded or not recorded[path].same(entry)]
        tree.adopt(news)
        assert tree.damage() == ()
        assert tree.written(look)[0] == tree.written(look)[1]
        assert tree.number == 1
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        assert "m/sub/0002.py" in tree.manifest()
        # From here on it is changed and removed as any other file.
        bring(tree, 2, {**BASE, "uv.lock": b"3"})
        assert not (tmp_path / "T/m/sub").exists()
        assert tree.generations()[-2:] == (1, 2)
        back = tree.rollback(1)
        assert {change.path for change in back} == {"uv.lock", "m/sub", "m/sub/0002.py"}
        assert (tmp_path / "T/other").read_bytes() == b"not pulled"


def test_what_is_gone_again_is_passed_over(tmp_path: Path) -> None:
    look = Written(PullRules(["uv.lock"]))
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        bring(tree, 1, BASE)
        (tmp_path / "T/uv.lock").write_bytes(b"2")
        _, found = tree.written(look)
        (tmp_path / "T/uv.lock").write_bytes(b"3")
        tree.adopt(list(found.values()))
        assert [damage.path for damage in tree.damage()] == ["uv.lock"]
