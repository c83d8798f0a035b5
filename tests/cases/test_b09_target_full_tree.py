"""B09: a target without room refuses the batch before anything moved, and says what is missing."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
from filesystems import remount, tmpfs
from trees import FailingOps, Files, blobs_of, look, manifest_of, same_tree, whole

from hyperbox_agent.apply import Applied, Staged, Tree
from hyperbox_agent.core.plan import diff
from hyperbox_agent.errors import NoSpaceError

BASE: Files = {"app.py": b"v1", "ver.py": b"V = 1"}


def bring(tree: Tree, number: int, files: Files) -> Applied:
    changes = diff(tree.manifest(), manifest_of(files))
    return tree.apply(tree.stage(number, changes, blobs_of(files)))


def stage_is_clean(tree: Tree) -> bool:
    return os.listdir(os.path.join(tree.home, "stage")) == []


@pytest.mark.needs("root", "mount")
def test_b09_too_many_bytes(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mnt", "size=8m") as mounted, \
            Tree(os.path.join(mounted, "T"), session="s") as tree:
        tree.recover()
        tree.commit(bring(tree, 1, BASE))
        with pytest.raises(NoSpaceError) as caught:
            bring(tree, 2, {**BASE, "model.bin": bytes(20 << 20)})
        error = caught.value
        assert error.filesystem == mounted
        assert error.need > 20 << 20
        assert 0 < error.have < 8 << 20
        assert mounted in error.message
        assert f"{error.need:,}" in error.message
        assert f"{error.have:,}" in error.message
        assert same_tree(look(tree.root), whole(BASE))
        assert stage_is_clean(tree)
        # The edit alone goes through, and so does everything once the big file is gone.
        tree.commit(bring(tree, 3, {**BASE, "ver.py": b"V = 2"}))
        assert look(tree.root)["ver.py"] == b"V = 2"


@pytest.mark.needs("root", "mount")
def test_b09_too_many_files(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mnt", "size=8m,nr_inodes=200") as mounted, \
            Tree(os.path.join(mounted, "T"), session="s") as tree:
        tree.recover()
        tree.commit(bring(tree, 1, BASE))
        with pytest.raises(NoSpaceError, match="inodes") as caught:
            bring(tree, 2, {**BASE, **{f"f{n}": b"%d" % n for n in range(300)}})
        assert caught.value.need >= 300
        assert 0 < caught.value.have < 200
        assert same_tree(look(tree.root), whole(BASE))
        tree.commit(bring(tree, 3, {**BASE, "ver.py": b"V = 2"}))


@pytest.mark.needs("root", "mount")
def test_b09_read_only(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mnt", "size=8m") as mounted, \
            Tree(os.path.join(mounted, "T"), session="s") as tree:
        tree.recover()
        tree.commit(bring(tree, 1, BASE))
        # That an agent is at work does not keep an administrator from remounting.
        remount(mounted, "ro")
        with pytest.raises(NoSpaceError, match="read-only") as caught:
            bring(tree, 2, {**BASE, "ver.py": b"V = 2"})
        assert caught.value.filesystem == mounted
        assert same_tree(look(tree.root), whole(BASE))
        remount(mounted, "rw")
        tree.commit(bring(tree, 3, {**BASE, "ver.py": b"V = 2"}))
        assert look(tree.root)["ver.py"] == b"V = 2"


@pytest.mark.needs("root", "mount")
def test_b09_full_although_the_plan_fitted(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mnt", "size=8m") as mounted, \
            Tree(os.path.join(mounted, "T"), session="s") as tree:
        tree.recover()
        tree.commit(bring(tree, 1, BASE))
        files: Files = {**BASE, "ver.py": b"V = 2", "data": bytes(range(256)) * 8192}
        stager = tree.begin(2, diff(tree.manifest(), manifest_of(files)))
        # Somebody else fills it meanwhile.
        with open(os.path.join(mounted, "log"), "wb") as log, pytest.raises(OSError, match="space"):
            while True:
                os.write(log.fileno(), bytes(100_000))
        with pytest.raises(NoSpaceError, match="is full"):
            for digest, data in blobs_of(files).items():
                stager.add(digest, data)
        assert same_tree(look(tree.root), whole(BASE))
        assert stage_is_clean(tree)
        os.unlink(os.path.join(mounted, "log"))
        tree.commit(bring(tree, 3, files))
        assert same_tree(look(tree.root), whole(files))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE])
def test_b09_every_call_of_staging_that_fails_leaves_the_tree_and_a_clean_stage(
        tmp_path: Path, code: int) -> None:
    files: Files = {**BASE, "ver.py": b"V = 2", "n/a.py": b"a"}
    ops = FailingOps(code)
    with Tree(str(tmp_path / "T"), session="s", ops=ops) as tree:
        tree.recover()
        tree.commit(bring(tree, 1, BASE))
        for fail_at in range(1, 40):
            ops.failed = False
            ops.fail_in(fail_at)
            staged = try_to_stage(tree, files)
            ops.fail_in(-1000)
            if staged is not None:
                assert not ops.failed
                tree.apply(staged)
                assert same_tree(look(tree.root), whole(files))
                return
            assert stage_is_clean(tree)
            assert same_tree(look(tree.root), whole(BASE))
    raise AssertionError("staging never succeeded")


def try_to_stage(tree: Tree, files: Files) -> Staged | None:
    try:
        return tree.stage(2, diff(tree.manifest(), manifest_of(files)), blobs_of(files))
    except NoSpaceError:
        return None


def test_b09_a_process_without_free_descriptors_says_so(tmp_path: Path) -> None:
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        tree.commit(bring(tree, 1, BASE))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        held = []
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            pass
        try:
            with pytest.raises(NoSpaceError, match="too many files open"):
                bring(tree, 2, {**BASE, "ver.py": b"V = 2"})
        finally:
            for fd in held:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert same_tree(look(tree.root), whole(BASE))
        tree.commit(bring(tree, 3, {**BASE, "ver.py": b"V = 2"}))
