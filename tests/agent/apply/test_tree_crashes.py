"""Killed at any point, the tree is all-old or all-new once the next agent has looked at it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import (
    Crash,
    DyingOps,
    Exe,
    Files,
    Link,
    WatchedOps,
    blobs_of,
    look,
    manifest_of,
    quick_folder,
    same_tree,
    trees,
    whole,
)

from hyperbox_agent.apply import Outcome, Tree, TreeState
from hyperbox_agent.core.plan import diff
from hyperbox_agent.store.ops import Ops

OLD: Files = {"a.py": b"1", "run.sh": Exe(b"#!"), "pkg/b.py": b"2", "pkg/c.py": b"2",
              "link": Link("a.py"), "swap": b"a file", "flip/z": b"in a folder", "empty": None}
NEW: Files = {"a.py": b"11", "run.sh": b"#!", "pkg/b.py": b"2", "n/m/o.py": b"new",
              "link": Link("pkg/b.py"), "swap/q": b"in a folder now", "flip": b"a file now"}


def bring(tree: Tree, number: int, files: Files) -> None:
    changes = diff(tree.manifest(), manifest_of(files))
    tree.commit(tree.apply(tree.stage(number, changes, blobs_of(files))))


def live_a_life(base: str, old: Files, new: Files, ops: Ops, *, undo: bool) -> None:
    """What an agent does with one edit, up to where ``ops`` dies."""
    with Tree(os.path.join(base, "T"), session="s", ops=ops) as tree:
        tree.recover()
        changes = diff(tree.manifest(), manifest_of(new))
        applied = tree.apply(tree.stage(2, changes, blobs_of(new)))
        if undo:
            tree.undo(applied)
        else:
            tree.commit(applied)


def check_after_a_crash(base: str, old: Files, new: Files) -> None:
    with Tree(os.path.join(base, "T"), session="s", ops=WatchedOps()) as tree:
        recovered = tree.recover()
        assert recovered.state is TreeState.KNOWN
        assert recovered.outcome is not Outcome.LOST
        expected = {1: old, 2: new}[recovered.number]
        assert same_tree(look(tree.root), whole(expected))
        assert tree.manifest() == manifest_of(expected)
        assert tree.damage() == ()
        for name in ("stage", "trash"):
            assert os.listdir(os.path.join(tree.home, name)) == []
        assert not os.path.exists(os.path.join(tree.home, "journal"))
        assert not os.path.exists(os.path.join(tree.home, "kept")), "nobody else wrote anything"
        bring(tree, 3, new)
        assert same_tree(look(tree.root), whole(new))
        assert tree.missing(tree.rollback(1)) == ()
        tree.commit(tree.apply(tree.stage(4, tree.rollback(1), {})))
        assert same_tree(look(tree.root), whole(old))


def begin_at(base: str, old: Files) -> None:
    with Tree(os.path.join(base, "T"), session="s", ops=WatchedOps()) as tree:
        tree.recover()
        bring(tree, 1, old)


def count_calls(old: Files, new: Files, *, undo: bool) -> int:
    with quick_folder() as base:
        begin_at(base, old)
        ops = WatchedOps()
        live_a_life(base, old, new, ops, undo=undo)
        return ops.calls


@pytest.mark.parametrize("undo", [False, True])
def test_a_crash_at_every_single_call(undo: bool) -> None:
    calls = count_calls(OLD, NEW, undo=undo)
    assert calls > 40
    for at in range(1, calls + 1):
        with quick_folder() as base:
            begin_at(base, OLD)
            with pytest.raises(Crash):
                live_a_life(base, OLD, NEW, DyingOps(at), undo=undo)
            check_after_a_crash(base, OLD, NEW)


@settings(max_examples=25)
@given(old=trees(8), new=trees(8), point=st.floats(0, 1), undo=st.booleans())
def test_a_crash_anywhere_in_any_change(old: Files, new: Files, point: float, undo: bool) -> None:
    at = 1 + int(point * (count_calls(old, new, undo=undo) - 1))
    with quick_folder() as base:
        begin_at(base, old)
        with pytest.raises(Crash):
            live_a_life(base, old, new, DyingOps(at), undo=undo)
        check_after_a_crash(base, old, new)


@settings(max_examples=12)
@given(old=trees(8), new=trees(8), points=st.lists(st.integers(1, 60), min_size=2, max_size=5))
def test_crashes_during_recovery_too(old: Files, new: Files, points: list[int]) -> None:
    with quick_folder() as base:
        begin_at(base, old)
        for at in points:
            try:
                live_a_life(base, old, new, DyingOps(at), undo=False)
            except Crash:
                continue
            break
        check_after_a_crash(base, old, new)


def test_a_crash_in_the_first_batch_of_all_leaves_a_tree_that_converges() -> None:
    with quick_folder() as base:
        ops = WatchedOps()
        live_a_life(base, {}, NEW, ops, undo=False)
    for at in range(1, ops.calls + 1):
        with quick_folder() as base:
            with pytest.raises(Crash):
                live_a_life(base, {}, NEW, DyingOps(at), undo=False)
            with Tree(os.path.join(base, "T"), session="s", ops=WatchedOps()) as tree:
                tree.recover()
                assert look(tree.root) == {} or same_tree(look(tree.root), whole(NEW))
                bring(tree, 3, NEW)
                assert same_tree(look(tree.root), whole(NEW))
                assert not os.path.exists(os.path.join(tree.home, "kept"))


KILLER = textwrap.dedent("""
    import os, signal, sys
    sys.path[:0] = sys.argv[3].split(os.pathsep)
    from test_tree_crashes import *

    class KillingOps(WatchedOps):
        def __init__(self, at):
            super().__init__(lambda number, name: number == at and os.kill(os.getpid(), 9))

    base, stride = sys.argv[1], int(sys.argv[2])
    last, at, numbers = False, 1, set()
    while not last:
        place = os.path.join(base, str(at))
        os.mkdir(place)
        begin_at(place, OLD)
        child = os.fork()
        if child == 0:
            live_a_life(place, OLD, NEW, KillingOps(at), undo=at % 2 == 0)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        last = status == 0
        assert last or os.WTERMSIG(status) == signal.SIGKILL
        with Tree(os.path.join(place, "T"), session="s") as tree:
            numbers.add(tree.recover().number)
        check_after_a_crash(place, OLD, NEW)
        at += stride
    print(at, sorted(numbers))
""")


def walk_with_kill(stride: int) -> None:
    """A real process, really killed at each ``stride``-th call."""
    with quick_folder() as base:
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run([sys.executable, "-c", KILLER, base, str(stride), path],
                              capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split(maxsplit=1)[1].strip() == "[1, 2]"


def test_a_process_that_is_killed_at_points_of_all_phases() -> None:
    walk_with_kill(7)


@pytest.mark.slow
def test_a_process_that_is_killed_at_every_call() -> None:
    walk_with_kill(1)
