"""In place: every generation can be built elsewhere, and the source is never written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import (
    Files,
    blobs_of,
    look,
    manifest_of,
    put,
    quick_folder,
    same_tree,
    sha,
    trees,
    whole,
)

from hyperbox_agent.apply import Archive
from hyperbox_agent.core.entries import Entry
from hyperbox_agent.core.plan import diff
from hyperbox_agent.errors import ApplyError, MissingBlobsError, WatchError
from hyperbox_agent.store.pruning import Keep

ONE: Files = {"app.py": b"v1", "pkg/a.py": b"a", "data.bin": b"x" * 50}
TWO: Files = {"app.py": b"v2", "pkg/a.py": b"a", "data.bin": b"x" * 50}


class Source:
    """A folder that is edited."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.reads: list[str] = []

    def save(self, files: Files) -> None:
        put(self.root, files)

    def read(self, entry: Entry) -> bytes:
        self.reads.append(entry.path)
        data = Path(self.root, entry.path).read_bytes()
        if sha(data) != entry.digest:
            raise WatchError("another file by now", file=entry.path)
        return data


@pytest.fixture
def source(tmp_path: Path) -> Source:
    source = Source(tmp_path / "src")
    source.save(ONE)
    return source


@pytest.fixture
def archive(tmp_path: Path, source: Source) -> Archive:
    return Archive(str(tmp_path / "home"), source.root, big=40)


def record_all(archive: Archive, source: Source) -> None:
    while archive.record_some(source.read):
        pass


def test_an_older_generation_is_built_with_what_the_program_needs(archive: Archive, source: Source,
                                                                 tmp_path: Path) -> None:
    archive.begin(1, manifest_of(ONE))
    record_all(archive, source)
    source.save(TWO)
    archive.record(2, diff(manifest_of(ONE), manifest_of(TWO)))
    record_all(archive, source)
    source.save({".env": b"SECRET=1", "node_modules/m/index.js": b"m"})
    dest = str(tmp_path / "old")
    links = {".env": f"{source.root}/.env", "node_modules": f"{source.root}/node_modules",
             "pkg/a.py": "/nowhere"}
    built = archive.checkout(1, dest, links)
    assert (built.number, built.files) == (1, 2)
    assert built.linked == ("data.bin", ".env", "node_modules")
    assert built.differ == ()
    assert Path(dest, "app.py").read_bytes() == b"v1"
    assert Path(dest, "pkg/a.py").read_bytes() == b"a"
    assert Path(dest, ".env").read_bytes() == b"SECRET=1"
    assert os.path.realpath(os.path.join(dest, "data.bin")) == os.path.join(source.root, "data.bin")
    assert Path(source.root, "app.py").read_bytes() == b"v2"


def test_a_save_copies_what_changed_and_nothing_else(archive: Archive, source: Source) -> None:
    archive.begin(1, manifest_of(ONE))
    record_all(archive, source)
    assert sorted(source.reads) == ["app.py", "pkg/a.py"], "big files are not copied"
    source.reads.clear()
    source.save(TWO)
    archive.record(2, diff(manifest_of(ONE), manifest_of(TWO)))
    record_all(archive, source)
    assert source.reads == ["app.py"]


def test_a_program_that_writes_into_the_built_tree_changes_nothing_that_is_kept(
        archive: Archive, source: Source, tmp_path: Path) -> None:
    archive.begin(1, manifest_of(ONE))
    record_all(archive, source)
    for name in ("one", "two"):
        archive.checkout(1, str(tmp_path / name), {})
        assert Path(tmp_path, name, "app.py").read_bytes() == b"v1"
        Path(tmp_path, name, "app.py").write_bytes(b"the program wrote")


def test_recording_goes_in_slices(tmp_path: Path) -> None:
    files = {f"f{number}": b"%d" % number for number in range(40)}
    source = Source(tmp_path / "src")
    source.save(files)
    archive = Archive(str(tmp_path / "home"), source.root)
    archive.begin(1, manifest_of(files))
    assert archive.pending == 40

    def slow(entry: Entry) -> bytes:
        time.sleep(0.002)
        return source.read(entry)

    left = archive.record_some(slow, budget=0.01)
    assert 0 < left < 40
    assert archive.pending == left
    assert archive.record_some(source.read, budget=10) == 0


def test_what_changed_before_it_was_copied_is_named_when_it_is_wanted(
        archive: Archive, source: Source, tmp_path: Path) -> None:
    archive.begin(1, manifest_of(ONE))
    source.save(TWO)
    archive.record(2, diff(manifest_of(ONE), manifest_of(TWO)))
    record_all(archive, source)
    with pytest.raises(MissingBlobsError) as caught:
        archive.checkout(1, str(tmp_path / "old"), {})
    assert caught.value.file == "app.py"
    assert not os.path.lexists(tmp_path / "old")
    assert sorted(os.listdir(tmp_path)) == ["home", "src"]
    archive.checkout(2, str(tmp_path / "new"), {})


def test_what_was_not_copied_yet_is_taken_from_the_source_while_it_is_there(
        archive: Archive, tmp_path: Path) -> None:
    archive.begin(1, manifest_of(ONE))
    built = archive.checkout(1, str(tmp_path / "now"), {})
    assert built.files == 2
    assert Path(tmp_path, "now", "app.py").read_bytes() == b"v1"


def test_a_damaged_blob_is_found_and_fetched_anew_from_the_source(
        archive: Archive, source: Source, tmp_path: Path) -> None:
    archive.begin(1, manifest_of(ONE))
    record_all(archive, source)
    Path(archive.store.path(sha(b"v1"))).write_bytes(b"XX")
    assert archive.checkout(1, str(tmp_path / "a"), {}).files == 2
    Path(archive.store.path(sha(b"v1"))).write_bytes(b"XX")
    source.save(TWO)
    with pytest.raises(MissingBlobsError, match=r"app\.py"):
        archive.checkout(1, str(tmp_path / "b"), {})


def test_a_big_file_that_changed_since_is_named(archive: Archive, source: Source, tmp_path: Path
                                                ) -> None:
    archive.begin(1, manifest_of(ONE))
    record_all(archive, source)
    source.save({"data.bin": b"y" * 60})
    assert archive.checkout(1, str(tmp_path / "old"), {}).differ == ("data.bin",)


def test_a_place_that_is_taken_is_refused(archive: Archive, source: Source, tmp_path: Path) -> None:
    archive.begin(1, manifest_of(ONE))
    with pytest.raises(ApplyError, match="already"):
        archive.checkout(1, source.root, {})
    with pytest.raises(ApplyError, match="not kept"):
        archive.checkout(7, str(tmp_path / "x"), {})


def test_a_second_start_copies_only_what_is_new(archive: Archive, source: Source, tmp_path: Path
                                                ) -> None:
    archive.begin(1, manifest_of(ONE))
    record_all(archive, source)
    source.save(TWO)
    source.reads.clear()
    again = Archive(str(tmp_path / "home"), source.root, big=40)
    assert again.number == 1
    again.begin(2, manifest_of(TWO))
    record_all(again, source)
    assert source.reads == ["app.py"]
    assert again.generations() == (1, 2)


def test_pruning_keeps_the_newest_tree_whole(archive: Archive, source: Source, tmp_path: Path
                                             ) -> None:
    files = dict(ONE)
    archive.begin(1, manifest_of(ONE))
    record_all(archive, source)
    for number in range(2, 20):
        before = manifest_of(files)
        files["app.py"] = b"v%d" % number
        source.save(files)
        archive.record(number, diff(before, manifest_of(files)))
        record_all(archive, source)
        archive.prune(Keep(3))
    assert len(archive.generations()) <= 7
    source.save({"app.py": b"gone on", "pkg/a.py": b"gone on"})
    for number in archive.generations():
        built = archive.checkout(number, str(tmp_path / f"g{number}"), {})
        assert built.files == 2
    with pytest.raises(ApplyError, match="not kept"):
        archive.checkout(1, str(tmp_path / "x"), {})


@settings(max_examples=20)
@given(steps=st.lists(trees(8), min_size=1, max_size=4))
def test_every_generation_can_be_built(steps: list[Files]) -> None:
    with quick_folder() as base:
        contents = blobs_of(*steps)
        archive = Archive(os.path.join(base, "home"), os.path.join(base, "nowhere"))
        tree: dict[str, Entry] = {}
        for number, files in enumerate(steps, start=1):
            archive.record(number, diff(tree, manifest_of(files)))
            tree = manifest_of(files)
            archive.record_some(lambda entry: contents[entry.digest], budget=10)
        for number in archive.generations():
            dest = os.path.join(base, str(number))
            archive.checkout(number, dest, {})
            assert same_tree(look(dest), whole(steps[number - 1]))
