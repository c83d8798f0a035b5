"""Which watcher is taken where."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch import choose
from hyperbox_agent.watch.base import Hint
from hyperbox_agent.watch.choose import choose_watcher, file_system, has_no_events


def sink(hints: list[Hint]) -> None:
    raise AssertionError(hints)


@pytest.mark.needs("inotify")
def test_inotify_is_taken_where_it_works(tmp_path: Path) -> None:
    watcher = choose_watcher(str(tmp_path), sink, environ={})
    assert (watcher.name, dict(watcher.problems)) == ("inotify", {})


def test_the_environment_names_another_one(tmp_path: Path) -> None:
    watcher = choose_watcher(str(tmp_path), sink, environ={"HYPERBOX_WATCHER": "polling"})
    assert watcher.name == "polling"
    assert choose_watcher(str(tmp_path), sink, prefer="polling", environ={}).name == "polling"


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(WatchError, match="unknown watcher 'fsevents'") as caught:
        choose_watcher(str(tmp_path), sink, prefer="fsevents", environ={})
    assert "inotify, watchfiles, pyinotify, polling" in str(caught.value.hint)


def test_file_systems_without_events_are_polled_and_that_is_said(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "file_system", lambda path: "nfs4")
    watcher = choose_watcher(str(tmp_path), sink, environ={})
    assert watcher.name == "polling"
    assert "(nfs4)" in watcher.problems["filesystem"].message


def test_where_nothing_tells_events_all_is_polled_and_the_reasons_are_said(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *_: object) -> None:
        raise WatchError(f"{name} is out of order")

    monkeypatch.setattr(choose, "_probed", refuse)
    watcher = choose_watcher(str(tmp_path), sink, environ={})
    assert watcher.name == "polling"
    assert "watchfiles is out of order" in watcher.problems["events"].message


def test_an_inotify_that_tells_nothing_is_not_taken(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose.os, "chmod", lambda *_: None)
    monkeypatch.setattr(choose, "WatchfilesWatcher", choose.PollingWatcher)
    assert choose_watcher(str(tmp_path), sink, environ={}).name == "polling"


@pytest.mark.parametrize(("kind", "expected"), [
    ("ext4", False), ("btrfs", False), ("overlay", False), ("tmpfs", False), ("fuseblk", False),
    ("nfs4", True), ("cifs", True), ("9p", True), ("fuse.sshfs", True), ("fuse", True)])
def test_network_and_fuse_file_systems_tell_no_events(kind: str, expected: bool) -> None:
    assert has_no_events(kind) is expected


@pytest.mark.needs("linux")
def test_the_file_system_of_a_path_is_found() -> None:
    assert file_system("/proc") == "proc"
    assert file_system("/proc/self") == "proc"
    assert file_system("/") != ""


def test_pyinotify_without_pyasyncore_is_said_in_one_sentence(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **more: object) -> object:
        if name == "pyinotify":
            raise ModuleNotFoundError("No module named 'asyncore'", name="asyncore")
        return real(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WatchError, match="needs the package pyasyncore") as caught:
        choose_watcher(str(tmp_path), sink, prefer="pyinotify", environ={})
    assert caught.value.hint == "pip install pyasyncore"
