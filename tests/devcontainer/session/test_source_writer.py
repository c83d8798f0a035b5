"""What a program wrote comes into the source whole, as private as before, never over an edit."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.store.ops import Ops
from hyperbox_devcontainer.session.sourcewriter import SourceWriter


def entry(path: str, content: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, Kind.FILE, mode, len(content), hashlib.sha256(content).digest())


def replaced(path: str, old: bytes, new: bytes, mode: int = 0o644) -> Change:
    return Change(path, entry(path, old), entry(path, new, mode))


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


class Plain(Ops):
    """A filesystem that can't exchange names."""

    def exchange(self, source: str, target: str, *, source_dir: int = -100,
                 target_dir: int = -100) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class Edited(Ops):
    """Somebody edits the file in the moment before the exchange."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times = 0

    def exchange(self, source: str, target: str, *, source_dir: int = -100,
                 target_dir: int = -100) -> None:
        self.times += 1
        if self.times == 1:
            self.path.write_bytes(b"an edit")
        super().exchange(source, target, source_dir=source_dir, target_dir=target_dir)


@pytest.mark.parametrize("ops", [Ops(), Plain()])
def test_a_private_file_stays_private(tmp_path: Path, ops: Ops) -> None:
    file = tmp_path / "secret.lock"
    file.write_bytes(b"old")
    for mode, wanted, result in ((0o600, 0o644, 0o600), (0o664, 0o644, 0o664),
                                 (0o640, 0o755, 0o750)):
        file.chmod(mode)
        with SourceWriter(str(tmp_path), ops) as writer:
            old = file.read_bytes()
            assert writer.write(replaced("secret.lock", old, old + b"+", wanted), old + b"+")
        assert (file.read_bytes(), mode_of(file)) == (old + b"+", result)
    file.chmod(0o600)
    with SourceWriter(str(tmp_path), ops) as writer:
        beside = writer.keep_beside("secret.lock", "box", entry("secret.lock", b"theirs"),
                                    b"theirs")
    assert (tmp_path / beside).read_bytes() == b"theirs"
    assert mode_of(tmp_path / beside) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["secret.lock", beside]


@pytest.mark.needs("linux")
def test_an_edit_between_the_look_and_the_write_stays(tmp_path: Path) -> None:
    file = tmp_path / "uv.lock"
    file.write_bytes(b"old")
    with SourceWriter(str(tmp_path), Edited(file)) as writer:
        assert not writer.write(replaced("uv.lock", b"old", b"new"), b"new")
    assert file.read_bytes() == b"an edit"
    assert os.listdir(tmp_path) == ["uv.lock"]
