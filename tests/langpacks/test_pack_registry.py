"""Packs are listed by name and loaded when they are looked for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hyperbox_langpacks.base import Command, Pack, PackError
from hyperbox_langpacks.python import PACK
from hyperbox_langpacks.registry import find_pack, load_pack, pack_names
from hyperbox_langpacks.view import FolderView, MemoryView

PATH = {"PATH": "/usr/bin"}
SYSTEM = {"/usr/bin/python3": ""}


def test_listing_imports_no_pack() -> None:
    code = ("import sys; from hyperbox_langpacks.registry import pack_names; "
            "assert 'python' in pack_names(); "
            "assert 'hyperbox_langpacks.python' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_the_python_pack_fulfils_the_protocol() -> None:
    assert isinstance(load_pack("python"), Pack)
    assert load_pack("python") is PACK


def test_an_unknown_pack_names_the_known() -> None:
    with pytest.raises(PackError, match="no language pack 'cobol'") as caught:
        load_pack("cobol")
    assert "python" in str(caught.value.hint)


def test_a_third_partys_pack_comes_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_module_here:PACK", "hyperbox.packs")
    useless = EntryPoint("useless", "json:dumps", "hyperbox.packs")
    monkeypatch.setattr("hyperbox_langpacks.registry._others_are_installed", lambda: True)
    monkeypatch.setattr("importlib.metadata.entry_points",
                        lambda group: [broken, useless] if group == "hyperbox.packs" else [])
    assert pack_names() == ("broken", "python", "useless")
    with pytest.raises(PackError, match="'broken' can't be loaded"):
        load_pack("broken")
    with pytest.raises(PackError, match="lacks parts"):
        load_pack("useless")
    # A pack that can't be loaded does not keep the others from their work.
    pack, found = find_pack(MemoryView({"app.py": "print(1)\n", **SYSTEM}), PATH)
    assert pack is PACK
    assert any("'broken' can't be loaded" in note for note in found.notes)
    assert found.command.argv == ("/usr/bin/python3", "app.py")


def test_a_third_partys_distribution_is_seen_where_it_is_installed(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path), str(tmp_path / "gone")])
    assert pack_names() == ("python",)
    info = tmp_path / "cobolpack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: cobolpack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hyperbox.packs]\ncobol = cobolpack:PACK\n")
    assert pack_names() == ("cobol", "python")


def test_nothing_found_says_what_to_do() -> None:
    with pytest.raises(PackError, match="found no program") as caught:
        find_pack(MemoryView({"README.md": ""}), PATH)
    assert "[app] command" in str(caught.value.hint)


def test_a_command_that_no_pack_knows_runs_as_it_is() -> None:
    pack, found = find_pack(MemoryView(SYSTEM), PATH, Command(("make", "serve")))
    assert pack is None
    assert found.command.argv == ("make", "serve")


def test_a_folder_view_and_a_memory_view_see_the_same(tmp_path: Path) -> None:
    files = {"a/b.txt": "text", "c.txt": "ä", "a/d/e.txt": ""}
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    for view in (FolderView(str(tmp_path)), MemoryView(files)):
        assert [view.exists(one) for one in ("a", "a/b.txt", "x", "c.txt")] == [
            True, True, False, True]
        assert [view.is_dir(one) for one in ("a", "a/b.txt", "", "x")] == [True, False, True, False]
        assert [view.read_text(one) for one in ("c.txt", "x", "a")] == ["ä", None, None]
        assert [list(view.list_dir(one)) for one in ("", "a", "x")] == [
            ["a", "c.txt"], ["b.txt", "d"], []]
        assert view.read_text("a/b.txt", 2) == "te"


def test_a_folder_view_never_waits_for_a_fifo(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    view = FolderView(str(tmp_path))
    assert view.read_text("pipe") is None
    assert view.read_text("/dev/zero") is None
