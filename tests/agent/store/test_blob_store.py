"""Content by digest: verified on its way in and on its way out."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from trees import FailingOps, WatchedOps, sha

from hyperbox_agent.errors import ApplyError, MissingBlobsError, NoSpaceError, StoreError
from hyperbox_agent.store.blobs import BlobStore


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "store"))


def damage(store: BlobStore, digest: bytes) -> None:
    with open(store.path(digest), "r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 0xFF]))


def files_in(folder: str) -> list[str]:
    return sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)


def test_what_was_put_is_read(store: BlobStore) -> None:
    for data in (b"", b"some bytes", os.urandom(3_000_000)):
        assert not store.has(sha(data))
        assert store.put(sha(data), data) == len(data)
        assert store.has(sha(data))
        assert store.read(sha(data)) == data


def test_it_is_the_owners_alone(store: BlobStore) -> None:
    store.put(sha(b"secret"), b"secret")
    path = store.path(sha(b"secret"))
    assert os.stat(store.folder).st_mode & 0o777 == 0o700
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    assert os.stat(path).st_mode & 0o077 == 0


def test_what_a_killed_process_was_putting_is_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    BlobStore(str(folder))
    gone, unreaped = subprocess.Popen(["true"]), subprocess.Popen(["true"])
    gone.wait()
    os.waitid(os.P_PID, unreaped.pid, os.WEXITED | os.WNOWAIT)
    for pid in (gone.pid, unreaped.pid, os.getpid()):
        (folder / "tmp" / f"{pid}.1").write_bytes(b"half")
    BlobStore(str(folder))
    unreaped.wait()
    assert os.listdir(folder / "tmp") == [f"{os.getpid()}.1"]


def test_a_content_that_is_not_what_its_digest_says_is_refused_and_not_kept(store: BlobStore
                                                                            ) -> None:
    with pytest.raises(StoreError, match="was announced"):
        store.put(sha(b"right"), b"wrong")
    assert not store.has(sha(b"right"))
    assert files_in(store.folder) == []


def test_pieces_that_end_in_an_error_leave_nothing(store: BlobStore) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"first"
        raise RuntimeError("the link is gone")

    with pytest.raises(RuntimeError):
        store.put(sha(b"first second"), pieces())
    assert files_in(store.folder) == []


def test_a_damaged_blob_is_removed_and_reported_missing(store: BlobStore) -> None:
    data = os.urandom(2_500_000)
    store.put(sha(data), data)
    damage(store, sha(data))
    got = b""
    with pytest.raises(MissingBlobsError) as caught:
        for piece in store.chunks(sha(data)):
            got += piece
    assert caught.value.digests == (sha(data),)
    assert len(got) < len(data), "the last piece never comes"
    assert not store.has(sha(data))
    with pytest.raises(MissingBlobsError):
        store.read(sha(data))


def test_a_copy_is_a_file_of_its_own(store: BlobStore, tmp_path: Path) -> None:
    store.put(sha(b"data"), b"data")
    copy = tmp_path / "copy"
    store.copy_to(sha(b"data"), str(copy), 0o755)
    assert os.stat(copy).st_nlink == 1
    assert os.stat(copy).st_mode & 0o700 == 0o700
    copy.write_bytes(b"the program writes")
    assert store.read(sha(b"data")) == b"data"
    with pytest.raises(FileExistsError):
        store.copy_to(sha(b"data"), str(copy))


def test_blocks_are_shared_where_the_filesystem_can(tmp_path: Path) -> None:
    class Sharing(WatchedOps):
        shared = 0

        def clone(self, source: int, target: int) -> bool:
            os.write(target, os.pread(source, 10_000_000, 0))
            Sharing.shared += 1
            return True

    store = BlobStore(str(tmp_path / "store"), Sharing())
    for name, data in (("small", b"small"), ("large", os.urandom(1_000_000))):
        store.put(sha(data), data)
        store.copy_to(sha(data), str(tmp_path / name))
        assert (tmp_path / name).read_bytes() == data
    assert Sharing.shared == 1
    damage(store, sha(data))
    with pytest.raises(MissingBlobsError):
        store.copy_to(sha(data), str(tmp_path / "damaged"))
    assert not (tmp_path / "damaged").exists()


def test_a_damaged_blob_is_not_copied(store: BlobStore, tmp_path: Path) -> None:
    store.put(sha(b"data"), b"data")
    damage(store, sha(b"data"))
    with pytest.raises(MissingBlobsError):
        store.copy_to(sha(b"data"), str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_a_link_in_the_place_of_a_blob_is_not_followed(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"data")
    store.put(sha(b"data"), b"data")
    os.unlink(store.path(sha(b"data")))
    os.symlink(tmp_path / "outside", store.path(sha(b"data")))
    with pytest.raises(MissingBlobsError):
        store.read(sha(b"data"))


def test_a_file_of_the_same_filesystem_can_be_adopted(store: BlobStore, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"data")
        store.adopt(sha(b"data"), str(tmp_path / name))
        assert not (tmp_path / name).exists()
    assert store.read(sha(b"data")) == b"data"
    assert store.usage() == (1, 4)


def test_count_and_size_are_kept(store: BlobStore) -> None:
    assert store.usage() == (0, 0)
    for data in (b"1", b"22", b"22", b"333"):
        store.put(sha(data), data)
    assert store.usage() == (3, 6)
    store.remove(sha(b"22"))
    store.remove(sha(b"22"))
    assert store.usage() == (2, 4)
    assert BlobStore(store.folder).usage() == (2, 4)
    assert store.which([sha(b"1"), sha(b"22")]) == {sha(b"1")}


def test_pruning_keeps_what_is_named_and_the_newest_of_it(store: BlobStore) -> None:
    for number in range(6):
        store.put(sha(b"%d" % number * 100), b"%d" % number * 100)
    assert store.prune({sha(b"%d" % number * 100) for number in (2, 3, 4)}) == 300
    assert store.usage() == (3, 300)
    store.prune({sha(b"%d" % number * 100) for number in (2, 3, 4)}, max_bytes=150)
    assert store.usage() == (1, 100)


def test_many_are_looked_up_by_listing_once(store: BlobStore) -> None:
    digests = [sha(b"%d" % number) for number in range(1500)]
    for number in range(0, 1500, 100):
        store.put(digests[number], b"%d" % number)
    assert store.which(digests) == set(digests[::100])


@pytest.mark.parametrize(("code", "kind"), [
    (errno.ENOSPC, NoSpaceError), (errno.EDQUOT, NoSpaceError), (errno.EROFS, NoSpaceError),
    (errno.EMFILE, NoSpaceError), (errno.EIO, ApplyError)])
def test_a_disk_that_fails_gives_one_typed_error_and_leaves_nothing(tmp_path: Path, code: int,
                                                                    kind: type[ApplyError]) -> None:
    for fail_at in range(1, 5):
        ops = FailingOps(code)
        store = BlobStore(str(tmp_path / str(fail_at)), ops)
        ops.fail_in(fail_at)
        try:
            store.put(sha(b"data"), b"data")
        except kind:
            assert files_in(store.folder) == []
            ops.fail_in(-1)
            store.put(sha(b"data"), b"data")
            assert store.usage() == (1, 4)
        else:
            assert not ops.failed or store.read(sha(b"data")) == b"data"


def test_short_writes_are_continued(tmp_path: Path) -> None:
    ops = WatchedOps()
    real = os.write
    ops.write = lambda fd, data: real(fd, bytes(data)[:7])  # type: ignore[method-assign, assignment]
    store = BlobStore(str(tmp_path / "store"), ops)
    data = os.urandom(1000)
    store.put(sha(data), data)
    assert store.read(sha(data)) == data
