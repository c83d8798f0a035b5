"""Readers that know nothing of us, in processes of their own, while batches come."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from trees import Files, blobs_of, manifest_of

from hyperbox_agent.apply import Tree
from hyperbox_agent.apply.batches import Freeze
from hyperbox_agent.core.plan import diff

READER = """
import fcntl, os, sys
root, names, lock = sys.argv[1], sys.argv[2].split(","), os.open(sys.argv[3], os.O_RDWR)
versions = mixed = 0
faults = []
print("ready", flush=True)
while not os.path.exists(root + ".stop"):
    seen = set()
    fcntl.flock(lock, fcntl.LOCK_SH)
    for name in names:
        try:
            with open(f"{root}/{name}", "rb") as file:
                data = file.read()
        except OSError as error:
            faults.append(f"{name}: {error}")
            continue
        version = data[:4]
        if len(data) != 4000 or data != version * 1000:
            faults.append(f"{name}: {len(data)} bytes, {data[:8]!r}")
        seen.add(version)
    fcntl.flock(lock, fcntl.LOCK_UN)
    versions += 1
    mixed += len(seen) > 1
print(versions, mixed, "|", "; ".join(faults[:5]))
"""


def tree_of(version: int, count: int) -> Files:
    return {f"p{n % 3}/f{n}.txt": b"%04d" % version * 1000 for n in range(count)}


@contextlib.contextmanager
def reading(root: str, names: list[str], lock: Path) -> Iterator[list[str]]:
    """A process that reads all of ``names`` again and again; what it says at its end."""
    argv = [sys.executable, "-c", READER, root, ",".join(names), str(lock)]
    lock.touch()
    said: list[str] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        try:
            yield said
        finally:
            Path(root + ".stop").touch()
            said.append(reader.stdout.read())


def verdict(said: list[str]) -> tuple[int, int, str]:
    counts, _, faults = said[0].partition("|")
    versions, mixed = counts.split()
    return int(versions), int(mixed), faults.strip()


def apply_versions(tree: Tree, count: int, freeze: Freeze = contextlib.nullcontext,
                   seconds: float = 1.5) -> None:
    until = time.monotonic() + seconds
    version = 1
    while time.monotonic() < until:
        version += 1
        files = tree_of(version, count)
        staged = tree.stage(version, diff(tree.manifest(verify=False), manifest_of(files)),
                            blobs_of(files))
        applied = tree.apply(staged, freeze=freeze)
        if version % 3 == 0:
            tree.undo(applied, freeze=freeze)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        files = tree_of(1, 60)
        tree.commit(tree.apply(tree.stage(1, diff({}, manifest_of(files)), blobs_of(files))))
        yield tree


def test_any_reader_finds_whole_files_at_every_moment(tree: Tree, tmp_path: Path) -> None:
    with reading(tree.root, list(tree_of(1, 60)), tmp_path / "lock") as said:
        apply_versions(tree, 60)
    versions, _, faults = verdict(said)
    assert faults == ""
    assert versions > 3


def test_a_reader_that_stands_still_while_frozen_never_sees_a_mixed_tree(tree: Tree, tmp_path: Path
                                                                        ) -> None:
    """All that changes in the tree changes inside the freeze, back as well as forward."""
    lock = tmp_path / "lock"

    @contextlib.contextmanager
    def freeze() -> Iterator[None]:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    with reading(tree.root, list(tree_of(1, 60)), lock) as said:
        apply_versions(tree, 60, freeze)
    versions, mixed, faults = verdict(said)
    assert faults == ""
    assert versions > 3
    assert mixed == 0
