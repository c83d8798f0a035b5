"""Which ignore files count, and where they are found; git is asked what it thinks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from watching import Watching, put

from hyperbox_agent.core.entries import Kind
from hyperbox_agent.watch.base import Hint, What
from hyperbox_agent.watch.tree import SourceTree

pytestmark = pytest.mark.needs("git")


def git(root: Path, *argv: str) -> str:
    ran = subprocess.run(["git", *argv], cwd=root, check=True, capture_output=True, text=True)
    return ran.stdout


def kept(root: Path) -> set[str]:
    tree = SourceTree(str(root))
    tree.load()
    return {p for p, e in tree.manifest.items() if e.kind is not Kind.DIR} - {".git"}


def git_keeps(root: Path) -> set[str]:
    listed = git(root, "ls-files", "-z", "--others", "--cached", "--exclude-standard", ".")
    return set(listed.split("\0")) - {""}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    for name in ("a.log", "b.txt", "sub/a.log", "sub/deep/c.txt", "sub/build/x", "build/y",
                 "secret", "sub/secret"):
        put(root, name, name)
    return root


def test_nested_files_excludes_and_the_users_own_file_count(repo: Path, own_home: Path) -> None:
    put(own_home, ".config/git/ignore", "*.log\n")
    put(repo, ".git/info/exclude", "/secret\n!sub/a.log\n")
    put(repo, "sub/.gitignore", "/build\n")
    assert kept(repo) == git_keeps(repo)
    assert "sub/a.log" in kept(repo)
    assert "sub/secret" in kept(repo)
    assert not {"a.log", "secret", "sub/build/x"} & kept(repo)


def test_core_excludesfile_takes_the_place_of_the_default(repo: Path, own_home: Path) -> None:
    put(own_home, ".config/git/ignore", "*.txt\n")
    put(own_home, "mine", "*.log\n")
    git(repo, "config", "--global", "core.excludesFile", "~/mine")
    assert kept(repo) == git_keeps(repo)
    assert "b.txt" in kept(repo)
    assert "a.log" not in kept(repo)


def test_case_is_folded_where_git_folds_it(repo: Path) -> None:
    put(repo, "B.LOG")
    put(repo, ".gitignore", "*.log\nSUB/Deep\n")
    assert "B.LOG" in kept(repo)
    git(repo, "config", "core.ignorecase", "true")
    assert kept(repo) == git_keeps(repo)
    assert not {"B.LOG", "sub/deep/c.txt"} & kept(repo)


def test_without_a_git_program_the_files_are_read_plainly(
        repo: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(own_home, "mine", "*.log\n")
    put(own_home, ".gitconfig", "[user]\n\tname = x\n[core]\n\texcludesFile = ~/mine\n")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "a.log" not in kept(repo)


def test_a_folder_of_a_repository_follows_the_files_above_it(repo: Path) -> None:
    put(repo, ".gitignore", "*.log\n/sub/build/\n/deep/\n")
    put(repo, ".git/info/exclude", "secret\n")
    assert kept(repo / "sub") == git_keeps(repo / "sub") == {"deep/c.txt"}


def test_a_root_that_is_itself_ignored_from_above_is_wanted_nevertheless(repo: Path) -> None:
    put(repo, ".gitignore", "sub/\n*.txt\n")
    assert kept(repo / "sub") == {"a.log", "deep/c.txt", "build/x", "secret"}


def test_a_worktree_follows_the_common_excludes(repo: Path) -> None:
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "all")
    put(repo, ".git/info/exclude", "*.tmp\n")
    git(repo, "worktree", "add", "-q", "../tree")
    tree = repo.parent / "tree"
    put(tree, "x.tmp")
    put(tree, "y")
    assert "y" in kept(tree)
    assert "x.tmp" not in kept(tree)
    assert kept(tree) == git_keeps(tree)


def test_a_repository_inside_follows_its_own_files_only(repo: Path) -> None:
    put(repo, ".gitignore", "*.log\nwanted\n")
    inner = repo / "vendor/inner"
    inner.mkdir(parents=True)
    git(inner, "init", "-q")
    for name in ("x.log", "wanted", "own", "hidden"):
        put(inner, name)
    put(inner, ".gitignore", "own\n")
    put(inner, ".git/info/exclude", "hidden\n")
    inside = {p.removeprefix("vendor/inner/") for p in kept(repo) if p.startswith("vendor/")}
    assert inside - {".git"} == git_keeps(inner) == {"x.log", "wanted", ".gitignore"}
    tree = SourceTree(str(repo))
    tree.load()
    assert tree.reason("vendor/inner/x.log") is None
    assert str(tree.reason("vendor/inner/own")) == "vendor/inner/.gitignore:1: own"


def test_a_linked_ignore_file_is_not_followed(repo: Path) -> None:
    put(repo.parent, "rules", "*.txt\n")
    (repo / "sub/.gitignore").symlink_to("../../rules")
    assert "sub/deep/c.txt" in kept(repo)


def test_an_edit_of_info_exclude_is_noticed_and_decides_anew(repo: Path) -> None:
    tree = SourceTree(str(repo))
    tree.load()
    assert ".git/info" in set(tree.dirs())
    put(repo, ".git/info/exclude", "*.log\n")
    found = tree.refresh([Hint(".git/info/exclude", What.WRITTEN, 0.0)])
    assert {c.path for c in found.changes} == {"a.log", "sub/a.log"}


@pytest.mark.needs("inotify")
async def test_an_edit_of_info_exclude_wakes_the_watcher(repo: Path) -> None:
    async with Watching(repo) as w:
        put(repo, ".git/info/exclude", "*.log\n")
        await w.until(lambda: "a.log" not in w.tree.manifest)


@pytest.mark.needs("inotify")
async def test_excludes_outside_of_the_root_wake_the_watcher_too(repo: Path) -> None:
    async with Watching(repo / "sub") as w:
        put(repo, ".git/info/exclude", "*.log\n")
        await w.until(lambda: "a.log" not in w.tree.manifest)


@pytest.mark.needs("inotify")
async def test_a_repository_that_is_made_later_brings_its_excludes(tmp_path: Path) -> None:
    root = tmp_path / "later"
    put(root, "a.log")
    async with Watching(root) as w:
        git(root, "init", "-q")
        put(root, ".git/info/exclude", "*.log\n")
        put(root, "b", "1")
        await w.until(lambda: "b" in w.tree.manifest and "a.log" not in w.tree.manifest)
        put(root, ".git/info/exclude", "")
        await w.until(lambda: "a.log" in w.tree.manifest)


@pytest.mark.needs("inotify")
async def test_excludes_are_watched_again_after_the_root_came_back(repo: Path) -> None:
    async with Watching(repo) as w:
        repo.rename(repo.parent / "away")
        await w.hinted("", What.ROOT_GONE)
        (repo.parent / "away").rename(repo)
        await w.hinted("", What.ROOT_BACK)
        await w.equal()
        put(repo, ".git/info/exclude", "*.log\n")
        await w.until(lambda: "a.log" not in w.tree.manifest)


def test_rules_hold_without_any_repository(tmp_path: Path) -> None:
    put(tmp_path, ".gitignore", "*.log\n")
    put(tmp_path, "a.log")
    put(tmp_path, "b")
    assert kept(tmp_path) == {".gitignore", "b"}


def test_an_empty_git_folder_is_no_repository(repo: Path) -> None:
    put(repo, ".gitignore", "*.log\n")
    (repo / "sub/.git").mkdir()
    assert "a.log" not in kept(repo / "sub")


def test_a_reason_names_file_line_and_pattern(repo: Path) -> None:
    put(repo, "sub/.gitignore", "# first\n\nbuild/\n")
    tree = SourceTree(str(repo))
    tree.load()
    assert str(tree.reason("sub/build/x")) == "sub/.gitignore:3: build/"
    assert str(tree.reason(".git/config")) == "built in: .git"
    assert tree.reason("b.txt") is None


def test_ignored_folders_are_counted_but_not_entered(repo: Path) -> None:
    for i in range(200):
        put(repo, f"build/d{i}/x")
    put(repo, ".gitignore", "build/\n")
    tree = SourceTree(str(repo))
    tree.load()
    assert tree.counts.ignored_dirs == len([".git", "build", "sub/build"])
    assert not any(path.startswith("build") for path in tree.manifest)
