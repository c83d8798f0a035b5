"""What a full scan takes, what it leaves out, what it says."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from watching import on_disk, put

from hyperbox_agent.core.entries import Kind
from hyperbox_agent.core.ignore import IgnoreOptions
from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch.base import Hint, What
from hyperbox_agent.watch.tree import SourceTree


def scan(root: Path, **options: tuple[str, ...]) -> SourceTree:
    tree = SourceTree(str(root), options=IgnoreOptions(**options))  # type: ignore[arg-type]
    tree.load()
    return tree


def test_a_tree_is_files_folders_and_links_with_their_content(tmp_path: Path) -> None:
    put(tmp_path, "pkg/sub/a.py", "print(1)\n")
    put(tmp_path, "run.sh", "#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("pkg/sub")
    tree = scan(tmp_path)
    assert {path: entry.kind for path, entry in tree.manifest.items()} == on_disk(tmp_path)
    entry = tree.manifest["pkg/sub/a.py"]
    assert (entry.size, entry.digest) == (9, hashlib.sha256(b"print(1)\n").digest())
    assert tree.manifest["run.sh"].executable
    assert not entry.executable
    assert tree.manifest["link"].target == "pkg/sub"
    assert tree.read(tree.manifest["link"]) == b"pkg/sub"
    assert not tree.problems


def test_sockets_fifos_and_devices_are_counted_and_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
        put(tmp_path, "a")
        tree = scan(tmp_path)
    assert set(tree.manifest) == {"a"}
    assert tree.counts.special == 2
    assert not tree.problems


def test_strange_names_are_kept_byte_by_byte(tmp_path: Path) -> None:
    names = [b"bad\xff.py", "é".encode(), "e\u0301".encode(), b"new\nline", b"x" * 255, b" ", b"\\",
             b"-rf", b"\x1b]0;pwned\x07"]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as handle:
            handle.write(name)
    tree = scan(tmp_path)
    assert {os.fsencode(path) for path in tree.manifest} == set(names)
    assert all(tree.read(e) == os.fsencode(path) for path, e in tree.manifest.items())


def test_a_path_that_is_too_long_for_the_kernel_is_one_problem(tmp_path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        for _ in range(20):
            os.mkdir("x" * 250)
            os.chdir("x" * 250)
    finally:
        os.fchdir(here)
        os.close(here)
    put(tmp_path, "ok")
    tree = scan(tmp_path)
    assert "ok" in tree.manifest
    assert len(tree.problems) == 1
    shutil.rmtree(tmp_path / ("x" * 250))


def test_hard_links_are_plain_files(tmp_path: Path) -> None:
    put(tmp_path, "a", "same")
    os.link(tmp_path / "a", tmp_path / "b")
    tree = scan(tmp_path)
    assert tree.manifest["a"].digest == tree.manifest["b"].digest
    assert tree.manifest["b"].kind is Kind.FILE


def test_links_that_leave_the_root_are_problems_and_others_are_carried(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name, target in {"a/loop": "..", "a/dangling": "nowhere", "a/b/root": "../..",
                         "a/abs": "/etc/passwd", "a/out": "../../x", "out2": "a/../../y"}.items():
        (tmp_path / name).symlink_to(target)
    tree = scan(tmp_path)
    assert {p for p, e in tree.manifest.items() if e.kind is Kind.LINK} == {
        "a/loop", "a/dangling", "a/b/root"}
    assert set(tree.problems) == {"a/abs", "a/out", "out2"}
    assert "/etc/passwd" in tree.problems["a/abs"].message


def test_a_missing_root_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(WatchError, match="gone"):
        SourceTree(str(tmp_path / "none")).load()


# -- ignoring ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    ".git/HEAD", ".hg/x", ".svn/x", "a/__pycache__/b.txt", "a/b.pyc", ".venv/x", "node_modules/x/y",
    "shop.egg-info/PKG-INFO", "a/node_modules/x", ".mypy_cache/x", ".pytest_cache/x",
    ".ruff_cache/x", ".tox/x", ".nox/x",
    ".hypothesis/x", "#a#", "a~", ".a.py.swp", "4913", "a___jb_tmp___", "a___jb_old___",
    ".goutputstream-AB", ".a.py.kate-swp"])
def test_what_tools_leave_behind_is_never_content(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    put(tmp_path, "kept")
    kept = set(scan(tmp_path).manifest)
    assert name not in kept
    assert "kept" in kept


def test_a_lock_of_emacs_is_no_content(tmp_path: Path) -> None:
    (tmp_path / ".#a.py").symlink_to("me@host.1:2")
    tree = scan(tmp_path)
    assert not tree.manifest
    assert not tree.problems


def test_a_virtual_environment_is_known_by_its_mark_under_any_name(tmp_path: Path) -> None:
    put(tmp_path, "tools/env311/pyvenv.cfg")
    put(tmp_path, "tools/env311/lib/x.py")
    put(tmp_path, "pyvenv.cfg")
    tree = scan(tmp_path)
    assert set(tree.manifest) == {"tools", "pyvenv.cfg"}
    reason = tree.reason("tools/env311/lib/x.py")
    assert reason is not None
    assert "pyvenv.cfg" in str(reason)


def test_ignored_folders_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "node_modules/a/b/c.js")
    put(tmp_path, "build/x")
    put(tmp_path, ".gitignore", "build/\n")
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or real(path))
    scan(tmp_path)
    assert listed == [str(tmp_path)]


def test_included_paths_come_back_from_ignored_folders_along_their_names_only(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("node_modules/mylib/dist/a.js", "node_modules/mylib/dist/__pycache__/x",
                 "node_modules/mylib/src/b.js", "node_modules/other/c.js", ".env", "sub/.env",
                 "out/app.css", "out/app.js", "out/deep/app.css", "build/x"):
        put(tmp_path, name)
    put(tmp_path, ".gitignore", ".env\nout/\nbuild/\n")
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or real(path))
    tree = scan(tmp_path, include=(".env", "node_modules/mylib/dist", "out/*.css", ".git"))
    assert {p for p, e in tree.manifest.items() if e.kind is Kind.FILE} == {
        ".gitignore", ".env", "sub/.env", "node_modules/mylib/dist/a.js", "out/app.css"}
    assert {p for p, e in tree.manifest.items() if e.kind is Kind.DIR} == {
        "sub", "node_modules", "node_modules/mylib", "node_modules/mylib/dist", "out"}
    assert str(tmp_path / "node_modules") not in listed


def test_user_patterns_are_written_as_in_a_gitignore(tmp_path: Path) -> None:
    for name in ("data/a", "data/keep/b", "x.bin", "keep.bin"):
        put(tmp_path, name)
    tree = scan(tmp_path, ignore=("/data/*", "!/data/keep", "*.bin", "!keep.bin"))
    assert set(tree.manifest) == {"data", "data/keep", "data/keep/b", "keep.bin"}
    assert str(tree.reason("x.bin")) == "ignore: *.bin"


def test_a_dockerignore_is_read_as_docker_does(tmp_path: Path) -> None:
    for name in ("Dockerfile", "README.md", "src/app.py", "src/README.md", "src/x.log", "docs/a",
                 "tests/t.py", "a/b/c.tmp", "c.tmp"):
        put(tmp_path, name)
    put(tmp_path, ".dockerignore", "# comment\n*\n!src\nsrc/*.log\n!README.md\n"
        "  !/docs/../c.tmp \n")
    tree = scan(tmp_path)
    assert {p for p, e in tree.manifest.items() if e.kind is Kind.FILE} == {
        "src/app.py", "src/README.md", "README.md", "c.tmp"}
    assert str(tree.reason("tests/t.py")) == ".dockerignore:2: *"


def test_a_dockerignore_pattern_is_anchored_at_the_root(tmp_path: Path) -> None:
    for name in ("tmp/x", "a/tmp/x", "a/b.log", "b.log", "deep/er/x.md", "x.md"):
        put(tmp_path, name)
    put(tmp_path, ".dockerignore", "tmp\n*.log\n**/*.md\n")
    kept = {p for p, e in scan(tmp_path).manifest.items() if e.kind is Kind.FILE}
    assert kept == {"a/tmp/x", "a/b.log", ".dockerignore"}


# -- the cache --------------------------------------------------------------------------------


def age(root: Path, seconds: int = 100) -> None:
    """Nothing here was written just now. The change time can't be set, so wait its tick out."""
    for folder, _, names in os.walk(root):
        for name in names:
            full = os.path.join(folder, name)
            found = os.stat(full)
            os.utime(full, (found.st_atime - seconds, found.st_mtime - seconds))
    os.utime(root)
    limit = max((os.stat(os.path.join(f, n)).st_ctime_ns for f, _, ns in os.walk(root) for n in ns),
                default=0) + 30_000_000
    probe = root.parent / "clock"
    while True:
        probe.write_text("x")
        if probe.stat().st_mtime_ns > limit:
            return


def cached(root: Path) -> SourceTree:
    return SourceTree(str(root), cache_file=str(root.parent / "state" / "scan.cache"))


def test_a_second_scan_reads_only_what_changed(tmp_path: Path) -> None:
    root = tmp_path / "p"
    for i in range(20):
        put(root, f"d{i % 3}/f{i}", str(i))
    age(root)
    first = cached(root)
    assert first.load().hashed == 20
    first.save_cache()
    put(root, "d0/f0", "other")
    put(root, "new", "n")
    second = cached(root)
    assert second.load().hashed == 2
    fresh = scan(root)
    assert second.manifest == fresh.manifest


def test_the_cache_is_its_owners_alone(tmp_path: Path) -> None:
    root = tmp_path / "p"
    put(root, "a")
    tree = cached(root)
    tree.load()
    tree.save_cache()
    folder = tmp_path / "state"
    assert stat.S_IMODE((folder / "scan.cache").stat().st_mode) == 0o600
    assert os.listdir(folder) == ["scan.cache"]


def test_same_size_and_same_times_do_not_hide_an_edit(tmp_path: Path) -> None:
    root = tmp_path / "p"
    put(root, "a", "one")
    age(root)
    tree = cached(root)
    tree.load()
    tree.save_cache()
    before = (root / "a").stat()
    (root / "a").write_text("two")
    os.utime(root / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    again = cached(root)
    again.load()
    assert again.read(again.manifest["a"]) == b"two"


def test_what_was_written_just_before_the_scan_is_read_again_by_the_next(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "p"
    put(root, "old", "o")
    age(root)
    put(root, "young", "y")
    written = (root / "young").stat().st_ctime_ns
    monkeypatch.setattr("hyperbox_agent.watch.scan.time.time_ns", lambda: written + 1_000_000)
    tree = cached(root)
    tree.load()
    tree.save_cache()
    assert cached(root).load().hashed == 1


@pytest.mark.parametrize("damage", [
    lambda d: d[:-3], lambda d: b"", lambda d: d[:50] + b"?" + d[51:], lambda d: b"junk" * 100,
    lambda d: d + b"x"])
def test_a_damaged_cache_is_not_used_and_that_is_said(
        tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    root = tmp_path / "p"
    put(root, "a", "one")
    age(root)
    tree = cached(root)
    tree.load()
    tree.save_cache()
    file = tmp_path / "state" / "scan.cache"
    file.write_bytes(damage(file.read_bytes()))
    again = cached(root)
    report = again.load()
    assert report.hashed == 1
    assert report.note is not None
    assert "damaged" in report.note


# -- reading ----------------------------------------------------------------------------------


def test_reading_an_entry_that_changed_is_an_error_naming_it(tmp_path: Path) -> None:
    put(tmp_path, "a", "one")
    tree = scan(tmp_path)
    entry = tree.manifest["a"]
    assert tree.read(entry) == b"one"
    put(tmp_path, "a", "two")
    with pytest.raises(WatchError, match="a changed"):
        tree.read(entry)
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to("/etc/passwd")
    with pytest.raises(WatchError, match="a changed"):
        tree.read(entry)


def test_a_file_that_changes_while_it_is_hashed_is_unstable_and_stays_as_it_was(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "big", "a" * 100)
    tree = scan(tmp_path)
    before = tree.manifest["big"]
    put(tmp_path, "big", "b" * 100)
    real = os.read

    def read_and_write(fd: int, size: int) -> bytes:
        data = real(fd, size)
        with open(tmp_path / "big", "a") as handle:
            handle.write("c")
        return data

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", read_and_write)
        found = tree.refresh([Hint("big", What.WRITTEN, 0.0)])
    assert found.unstable == {"big"}
    assert not found.changes
    assert tree.manifest["big"] == before
    found = tree.refresh([Hint("big", What.CHANGED, 0.0)])
    assert [change.path for change in found.changes] == ["big"]


def test_a_new_file_that_changes_while_it_is_hashed_is_in_no_manifest_yet(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "big", "a" * 100)
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: real(fd, size)[:50])
    tree = SourceTree(str(tmp_path))
    assert tree.load().unstable == {"big"}
    assert not tree.manifest
