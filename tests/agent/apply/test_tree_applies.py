"""A mirrored tree on a real disk: what is staged, applied, undone, rolled back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from trees import (
    Exe,
    FailingOps,
    Files,
    Link,
    WatchedOps,
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

from hyperbox_agent.apply import Applied, Outcome, Staged, Tree, TreeState
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.plan import diff
from hyperbox_agent.errors import ApplyError, MissingBlobsError, PortError, StoreError
from hyperbox_agent.store.ops import Ops
from hyperbox_agent.store.pruning import Keep

OLD: Files = {"a.py": b"1", "run.sh": Exe(b"#!"), "pkg/b.py": b"2", "pkg/c.py": b"2",
              "link": Link("a.py"), "swap": b"a file", "flip/z": b"in a folder", "empty": None}
NEW: Files = {"a.py": b"11", "run.sh": b"#!", "pkg/b.py": b"2", "n/m/o.py": b"new",
              "link": Link("pkg/b.py"), "swap/q": b"in a folder now", "flip": b"a file now"}


@contextmanager
def opened(base: Path | str, ops: Ops | None = None, session: str = "s") -> Iterator[Tree]:
    with Tree(os.path.join(base, "T"), session=session, ops=ops) as tree:
        tree.recover()
        yield tree


def bring(tree: Tree, number: int, files: Files) -> Applied:
    """The whole way of one generation, sending only what is missing."""
    changes = diff(tree.manifest(), manifest_of(files))
    contents = blobs_of(files)
    sent = {digest: contents[digest] for digest in tree.missing(changes)}
    return tree.apply(tree.stage(number, changes, sent))


def test_a_batch_makes_the_tree_what_it_says(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        tree.commit(bring(tree, 1, OLD))
        assert same_tree(look(tree.root), whole(OLD))
        tree.commit(bring(tree, 2, NEW))
        assert same_tree(look(tree.root), whole(NEW))
        assert tree.manifest() == manifest_of(NEW)
        assert tree.damage() == ()


def test_nothing_in_the_tree_moves_while_staging(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        bring(tree, 1, OLD)
        staged = tree.stage(2, diff(tree.manifest(), manifest_of(NEW)), blobs_of(NEW))
        assert same_tree(look(tree.root), whole(OLD))
        place = staged.file("n/m/o.py")
        assert place is not None
        assert Path(place).read_bytes() == b"new"
        assert staged.file("pkg/b.py") is None
        tree.discard(staged)
        assert same_tree(look(tree.root), whole(OLD))
        assert os.listdir(os.path.join(tree.home, "stage")) == []


def test_what_was_sent_for_a_superseded_batch_need_not_be_sent_again(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        bring(tree, 1, OLD)
        changes = diff(tree.manifest(), manifest_of(NEW))
        tree.discard(tree.stage(2, changes, blobs_of(NEW)))
        assert tree.missing(changes) == ()


def test_what_is_nowhere_is_told_by_digest(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        bring(tree, 1, OLD)
        assert tree.lacks([sha(b"new"), sha(b"1"), sha(b"2")]) == (sha(b"new"),)
        tree.commit(bring(tree, 2, NEW))
        assert tree.lacks([sha(b"1"), sha(b"new")]) == (), "kept in the store, stands in the tree"


def test_undo_brings_back_the_very_files(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        tree.commit(bring(tree, 1, OLD))
        before = os.stat(os.path.join(tree.root, "a.py"))
        undone = tree.undo(bring(tree, 2, NEW))
        assert (undone.number, tree.number) == (1, 1)
        assert same_tree(look(tree.root), whole(OLD))
        assert os.stat(os.path.join(tree.root, "a.py")).st_ino == before.st_ino
        assert tree.damage() == ()
        assert tree.missing(diff(tree.manifest(), manifest_of(NEW))) == ()


def test_a_batch_can_be_undone_once_and_not_after_its_commit(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        bring(tree, 1, OLD)
        second = bring(tree, 2, NEW)
        tree.undo(second)
        with pytest.raises(ApplyError, match="can't be undone"):
            tree.undo(second)
        third = bring(tree, 3, NEW)
        tree.commit(third)
        with pytest.raises(ApplyError, match="can't be undone"):
            tree.undo(third)


def test_rolling_back_moves_no_bytes(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        for number, files in enumerate((OLD, NEW, {"a.py": b"3"}), start=1):
            tree.commit(bring(tree, number, files))
        changes = tree.rollback(1)
        assert tree.missing(changes) == ()
        tree.commit(tree.apply(tree.stage(4, changes, {})))
        assert same_tree(look(tree.root), whole(OLD))
        assert tree.generations() == (1, 2, 3, 4)
        assert tree.missing(tree.rollback(2)) == ()
    with opened(tmp_path) as tree:
        assert tree.generations() == (1, 2, 3, 4)
        tree.apply(tree.stage(5, tree.rollback(3), {}))
        assert look(tree.root) == {"a.py": b"3"}


def test_a_renamed_folder_is_copied_from_where_it_was(tmp_path: Path) -> None:
    old = {f"one/f{number}.py": b"%d" % number for number in range(50)}
    new = {path.replace("one", "uno"): data for path, data in old.items()}
    with opened(tmp_path) as tree:
        bring(tree, 1, old)
        changes = diff(tree.manifest(), manifest_of(new))
        assert tree.missing(changes) == ()
        tree.apply(tree.stage(2, changes, {}))
        assert same_tree(look(tree.root), whole(new))


def test_a_content_that_is_not_what_was_announced_is_refused_and_leaves_nothing(
        tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        bring(tree, 1, OLD)
        changes = diff(tree.manifest(), manifest_of(NEW))
        wrong = dict(blobs_of(NEW))
        wrong[sha(b"new")] = b"other"
        with pytest.raises(StoreError, match=r"n/m/o\.py") as caught:
            tree.stage(2, changes, wrong)
        assert caught.value.file == "n/m/o.py"
        assert os.listdir(os.path.join(tree.home, "stage")) == []
        assert same_tree(look(tree.root), whole(OLD))


def test_contents_that_are_nowhere_are_all_named(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        changes = diff({}, manifest_of(OLD))
        with pytest.raises(MissingBlobsError) as caught:
            tree.stage(1, changes, {sha(b"1"): b"1"})
        assert set(caught.value.digests) == set(blobs_of(OLD)) - {sha(b"1")}
        assert os.listdir(os.path.join(tree.home, "stage")) == []


def test_a_content_may_come_in_pieces_and_serve_several_paths(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    files = {"big": data, "twice/big": data}
    with opened(tmp_path) as tree:
        stager = tree.begin(1, diff({}, manifest_of(files)))
        assert stager.needs == (sha(data),)
        stager.add(sha(data), (data[at : at + 70_000] for at in range(0, len(data), 70_000)))
        assert stager.needs == ()
        tree.apply(stager.finish())
        assert same_tree(look(tree.root), whole(files))


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a//b", "", ".", "a/",
                                  ".git/hooks/post-checkout", "sub/.GIT/config", "nul\0x"])
def test_a_name_that_could_leave_the_root_is_refused_by_name(tmp_path: Path, path: str) -> None:
    with opened(tmp_path) as tree, pytest.raises(ApplyError) as caught:
        tree.begin(1, [Change(path, None, Entry(path, Kind.FILE, 0o644, 1, sha(b"x")))])
    assert caught.value.file == path
    assert sorted(os.listdir(tmp_path)) == [".hyperbox-T", "T"]


def test_modes_are_the_targets(tmp_path: Path) -> None:
    with Tree(str(tmp_path / "T"), session="s") as tree:
        tree.recover()
        umask = os.umask(0o022)
        try:
            bring(tree, 1, OLD)
        finally:
            os.umask(umask)
        modes = {path: os.stat(os.path.join(tree.root, path)).st_mode & 0o7777
                 for path in ("a.py", "run.sh", "pkg")}
        assert modes == {"a.py": 0o644, "run.sh": 0o755, "pkg": 0o755}


def test_the_executable_bit_alone_is_a_change_that_can_be_undone(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        bring(tree, 1, {"run": b"#!"})
        applied = bring(tree, 2, {"run": Exe(b"#!")})
        assert isinstance(look(tree.root)["run"], Exe)
        tree.undo(applied)
        assert not isinstance(look(tree.root)["run"], Exe)
        assert tree.damage() == ()


def test_another_filesystem_for_the_home_is_refused_with_what_to_set(tmp_path: Path) -> None:
    other = "/dev/shm" if os.stat("/dev/shm").st_dev != os.stat(tmp_path).st_dev else "/proc"
    with quick_folder() as home:
        if os.stat(home).st_dev == os.stat(tmp_path).st_dev:
            pytest.skip(f"{other} is no other filesystem here")
        with pytest.raises(ApplyError, match="different filesystems") as caught:
            Tree(str(tmp_path / "T"), home)
        assert caught.value.key == "home"
        assert caught.value.hint


def test_a_home_inside_the_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ApplyError, match="inside the tree"):
        Tree(str(tmp_path / "T"), str(tmp_path / "T" / "home"))


def test_a_home_serves_one_agent_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(ApplyError, match="another agent"):
        Tree(str(tmp_path / "T"))
    with opened(tmp_path):
        pass


def test_the_home_is_the_owners_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        tree.commit(bring(tree, 1, OLD))
        tree.commit(bring(tree, 2, NEW))
        for folder in (tree.home, os.path.join(tree.home, "store")):
            assert os.stat(folder).st_mode & 0o777 == 0o700


def test_the_home_holds_nothing_in_the_way_after_a_commit(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        tree.commit(bring(tree, 1, OLD))
        tree.commit(bring(tree, 2, NEW))
        assert os.listdir(os.path.join(tree.home, "stage")) == []
        assert os.listdir(os.path.join(tree.home, "trash")) == []
        assert not os.path.exists(os.path.join(tree.home, "journal"))


def test_a_batch_that_was_staged_against_another_version_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        bring(tree, 1, OLD)
        staged = tree.stage(2, diff(tree.manifest(), manifest_of(NEW)), blobs_of(NEW))
        bring(tree, 3, {"a.py": b"3"})
        with pytest.raises(ApplyError, match="another version"):
            tree.apply(staged)


def test_the_program_is_frozen_for_the_renames_alone(tmp_path: Path) -> None:
    seen: list[str] = []

    def before(number: int, name: str) -> None:
        seen.append(name)

    @contextmanager
    def freeze() -> Iterator[None]:
        seen.append("freeze")
        yield
        seen.append("thaw")

    with opened(tmp_path, WatchedOps(before)) as tree:
        bring(tree, 1, {"a": b"1", "b": b"1"})
        changes = diff(tree.manifest(), manifest_of({"a": b"2", "c": b"1"}))
        staged = tree.stage(2, changes, {sha(b"2"): b"2"})
        seen.clear()
        tree.apply(staged, freeze=freeze)
    inside = seen[seen.index("freeze") + 1 : seen.index("thaw")]
    # The signal to go, a and c put in place, b taken out.
    assert inside == ["rename"] * 4
    assert "link" in seen[: seen.index("freeze")]


def test_a_failing_call_leads_the_whole_batch_back(tmp_path: Path) -> None:
    for fail_at in range(1, 60):
        base = tmp_path / str(fail_at)
        base.mkdir()
        ops = FailingOps()
        with opened(base, ops) as tree:
            tree.commit(bring(tree, 1, OLD))
            staged = tree.stage(2, diff(tree.manifest(), manifest_of(NEW)), blobs_of(NEW))
            ops.fail_in(fail_at)
            if _applies(tree, staged):
                assert not ops.failed, "the fault was swallowed"
                return
            assert ops.failed
            if os.path.exists(os.path.join(tree.home, "journal")):
                # All moves were done, the bookkeeping after them failed: that is recovered.
                assert tree.recover().outcome is Outcome.FORWARD
                assert same_tree(look(tree.root), whole(NEW))
                continue
            assert same_tree(look(tree.root), whole(OLD)), fail_at
            assert (tree.number, tree.damage()) == (1, ())
            bring(tree, 2, NEW)
            assert same_tree(look(tree.root), whole(NEW))
    raise AssertionError("the batch never succeeded")


def _applies(tree: Tree, staged: Staged) -> bool:
    try:
        tree.apply(staged)
    except ApplyError:
        return False
    return True


def test_generations_are_pruned_by_count(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        for number in range(1, 30):
            tree.commit(bring(tree, number, {"a": b"%d" % number, "same": b"s"}))
            tree.keep = Keep(5)
            tree.prune()
        kept = tree.generations()
        assert kept[-1] == 29
        assert 5 <= len(kept) <= 11
        for number in kept:
            assert tree.missing(tree.rollback(number)) == ()
        with pytest.raises(ApplyError, match="not kept"):
            tree.rollback(1)
    with opened(tmp_path) as tree:
        assert tree.generations() == kept
        assert tree.manifest() == manifest_of({"a": b"29", "same": b"s"})


def test_every_batch_forgets_by_what_was_asked_for(tmp_path: Path) -> None:
    with Tree(str(tmp_path / "tree"), keep=Keep(2)) as tree:
        tree.recover()
        for number in range(1, 9):
            bring(tree, number, {"a": b"%d" % number})
            assert len(tree.generations()) <= 5
        assert tree.generations()[-1] == 8


def test_generations_are_pruned_by_size(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        for number in range(1, 7):
            tree.commit(bring(tree, number, {"a": bytes([number]) * 100_000}))
        tree.keep = Keep(20, 250_000)
        tree.prune()
        assert tree.store.usage()[1] <= 250_000
        assert tree.generations() == (4, 5, 6)
        assert tree.missing(tree.rollback(4)) == ()


def test_recover_must_come_first(tmp_path: Path) -> None:
    with Tree(str(tmp_path / "T")) as tree, pytest.raises(ApplyError, match="recovered first"):
        tree.begin(1, [])


def test_a_damaged_history_makes_the_tree_an_unknown_one(tmp_path: Path) -> None:
    with opened(tmp_path) as tree:
        tree.commit(bring(tree, 1, OLD))
        generations = os.path.join(tree.home, "generations")
    record = os.path.join(generations, os.listdir(generations)[0])
    with open(record, "r+b") as file:
        file.seek(60)
        file.write(b"\xff\xff")
    with Tree(str(tmp_path / "T"), session="s") as tree:
        recovered = tree.recover()
        assert recovered.outcome is Outcome.LOST
        assert recovered.number == 0
        assert tree.manifest() == {}
        bring(tree, 2, NEW)
        # Of what was there nothing is known, so nothing of it is removed.
        assert set(look(tree.root)) >= set(whole(NEW)) | {"pkg/c.py", "empty"}
        assert tree.state() is TreeState.KNOWN


@settings(max_examples=30)
@given(old=trees(), new=trees())
def test_any_tree_becomes_any_other_and_back(old: Files, new: Files) -> None:
    with quick_folder() as base, opened(base, WatchedOps()) as tree:
        tree.commit(bring(tree, 1, old))
        assert same_tree(look(tree.root), whole(old))
        applied = bring(tree, 2, new)
        assert same_tree(look(tree.root), whole(new))
        assert applied.kept == applied.left == ()
        undone = tree.undo(applied)
        assert same_tree(look(tree.root), whole(old))
        assert undone.kept == undone.left == ()
        assert tree.damage() == ()
        tree.commit(bring(tree, 3, new))
        tree.commit(tree.apply(tree.stage(4, tree.rollback(1), {})))
        assert same_tree(look(tree.root), whole(old))


@settings(max_examples=15)
@given(old=trees(), new=trees())
def test_at_every_moment_a_reader_finds_what_stands_in_both_versions(old: Files, new: Files
                                                                      ) -> None:
    with quick_folder() as base:
        both = [path for path in old if path in new and isinstance(old[path], bytes)
                and isinstance(new[path], bytes)]
        names = set(whole(old)) | set(whole(new))
        root = os.path.join(base, "T")
        watching = [False]

        def reader() -> None:
            if watching[0]:
                now = look(root)
                assert set(now) <= names, "a stray name"
                for path in both:
                    assert now.get(path) in (old[path], new[path]), path

        with opened(base, WatchedOps(after=reader)) as tree:
            tree.commit(bring(tree, 1, old))
            watching[0] = True
            applied = bring(tree, 2, new)
            tree.undo(applied)


def test_a_tree_that_was_filled_by_others_keeps_what_they_put_there(tmp_path: Path) -> None:
    put(str(tmp_path / "T"), {"other.txt": b"theirs", "a.py": b"their a", "pkg/x": b"their x"})
    with Tree(str(tmp_path / "T"), session="s") as tree:
        assert tree.recover().state is TreeState.NEW
        applied = bring(tree, 1, OLD)
        now = look(tree.root)
        assert now["other.txt"] == b"theirs"
        assert now["pkg/x"] == b"their x"
        assert now["a.py"] == b"1"
        assert [kept.path for kept in applied.kept] == ["a.py"]
        assert tree.foreign() == ("other.txt", "pkg/x")
        tree.commit(applied)
        assert Path(applied.kept[0].where).read_bytes() == b"their a"
        tree.commit(bring(tree, 2, {}))
        assert look(tree.root) == {"other.txt": b"theirs", "pkg": None, "pkg/x": b"their x"}


def test_what_an_unknown_tree_holds_already_is_not_sent(tmp_path: Path) -> None:
    put(str(tmp_path / "T"), OLD)
    with opened(tmp_path) as tree:
        changes = diff({}, manifest_of(OLD))
        assert tree.missing(changes) == ()
        applied = tree.apply(tree.stage(1, changes, {}))
        assert applied.kept == ()
        assert same_tree(look(tree.root), whole(OLD))


def test_a_program_that_can_not_be_stopped_for_it_leaves_no_stage(tmp_path: Path) -> None:
    @contextmanager
    def refuses() -> Iterator[None]:
        raise PortError("the port holder is gone")
        yield

    with opened(tmp_path) as tree:
        tree.commit(bring(tree, 1, OLD))
        changes = diff(tree.manifest(), manifest_of(NEW))
        staged = tree.stage(2, changes, blobs_of(NEW))
        with pytest.raises(PortError, match="holder is gone"):
            tree.apply(staged, freeze=refuses)
        assert same_tree(look(tree.root), whole(OLD))
        assert not os.listdir(os.path.join(tree.home, "stage"))
        assert not os.listdir(os.path.join(tree.home, "trash"))
        # Its contents are here for its next try.
        assert not tree.missing(changes)
        tree.commit(bring(tree, 2, NEW))
        assert same_tree(look(tree.root), whole(NEW))
