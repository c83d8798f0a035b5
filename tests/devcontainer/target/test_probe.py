from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from hyperbox_agent.link.stream import ByteStream
from hyperbox_devcontainer.errors import TargetError, TargetTimeoutError
from hyperbox_devcontainer.target.memory import Call, MemoryTarget
from hyperbox_devcontainer.target.probe import SCRIPT, between, libc_name, parse, probe
from hyperbox_devcontainer.target.process import ProcessTarget


def here(**env: str) -> ProcessTarget:
    """This machine, without the version managers on its PATH: their shims take half a second."""
    return ProcessTarget("here", {**os.environ, "PATH": "/usr/local/bin:/usr/bin:/bin", **env})


@pytest.mark.needs("linux")
async def test_this_machine_says_what_it_is(tmp_path: Path) -> None:
    target = here()
    facts = await probe(target, str(tmp_path))
    assert (facts.system, facts.arch, facts.kernel) == (
        platform.system(), platform.machine(), platform.release())
    assert facts.uid == os.getuid()
    assert facts.home == os.environ["HOME"]
    umask = os.umask(0)
    os.umask(umask)
    assert facts.umask == umask
    assert facts.memory is not None
    assert facts.memory > facts.memory_free > 0  # type: ignore[operator]
    space = os.statvfs(tmp_path)
    assert facts.disk_free == pytest.approx(space.f_bavail * space.f_frsize, rel=0.2)
    assert facts.writable
    assert not facts.folds_case
    assert facts.inotify
    assert facts.pythons
    assert all(one.version >= (3, 10) and os.access(one.path, os.X_OK) for one in facts.pythons)
    assert [one.version for one in facts.pythons] == sorted(
        (one.version for one in facts.pythons), reverse=True)
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_not_there_yet_is_judged_by_the_nearest(tmp_path: Path) -> None:
    target = here()
    facts = await probe(target, str(tmp_path / "not/yet/there"))
    assert facts.writable
    assert facts.disk_free
    with pytest.raises(TargetError, match="not an absolute path"):
        await probe(target, "relative")


@pytest.fixture
def shells() -> list[tuple[str, ...]]:
    found = [("dash",), ("bash", "--posix"), ("busybox", "sh"), ("zsh", "--emulate", "sh")]
    return [argv for argv in found
            if any(os.access(f"{folder}/{argv[0]}", os.X_OK) for folder in ("/bin", "/usr/bin"))]


async def test_every_shell_of_this_machine_says_the_same(shells: list[tuple[str, ...]],
                                                        tmp_path: Path) -> None:
    target = here()
    said = []
    for shell in shells:
        ran = await target.run((*shell, "-c", SCRIPT, "sh", "mark", str(tmp_path), sys.executable),
                               timeout=30)
        pairs = between(ran.out, b"mark")
        assert pairs is not None, ran
        facts = parse(pairs)
        said.append((facts.arch, facts.user, facts.pythons, facts.inotify, facts.writable))
        assert ran.err == b""
    assert len(set(said)) == 1


async def test_noise_around_the_answer_is_thrown_away(tmp_path: Path) -> None:
    target = here(HOME="/a\nb c")
    real = target.run

    async def noisy(argv: tuple[str, ...], *, timeout: float) -> object:
        script = f"echo 'Welcome!'; echo {argv[4]}x; {argv[2]}\necho bye"
        return await real((*argv[:2], script, *argv[3:]), timeout=timeout)

    target.run = noisy  # type: ignore[assignment, method-assign]
    facts = await probe(target, str(tmp_path))
    assert facts.home == "/a\nb c"


async def test_what_is_no_shell_is_quoted_and_what_hangs_is_given_up() -> None:
    async def menu(call: Call, stream: ByteStream) -> None:
        await stream.write(b"1) reboot\n2) logout\n")

    async def hang(call: Call, stream: ByteStream) -> None:
        await stream.read()
        await stream.read()

    target = MemoryTarget(programs={"sh": menu})
    with pytest.raises(TargetError, match=r"not answer as a POSIX shell does: '1\) reboot"):
        await probe(target, "/")
    target.stall()
    with pytest.raises(TargetTimeoutError):
        await probe(target, "/", timeout=0.05)
    await target.close()


@pytest.mark.parametrize(("said", "name"), [
    ("glibc 2.36", "glibc 2.36"),
    ("ldd (Debian GLIBC 2.36-9+deb12u10) 2.36 Copyright (C)", "glibc 2.36"),
    ("ldd (GNU libc) 2.17 ", "glibc 2.17"),
    ("musl libc (x86_64) Version 1.2.4 ", "musl 1.2.4"),
    ("musl libc", "musl"), ("", None), ("sh: ldd: not found", None),
])
def test_the_libc_is_recognised(said: str, name: str | None) -> None:
    assert libc_name(said) == name


BOARD = [
    ("system", "Linux"), ("arch", "armv7l"), ("kernel", "6.1"), ("user", "pi"), ("uid", "1000"),
    ("umask", "022"), ("home", "/home/pi"), ("shell", "/usr/bin/fish"), ("libc", ""),
    ("python", "3.9.2 /usr/bin/python3"), ("python", "3.11.4 /opt/py/bin/python3.11"),
    ("python", "3.12.0 /opt/py/bin/python3.12"), ("python", "3.11.4 /opt/py/bin/python3.11"),
    ("MemTotal:", "948000"), ("disk", "my disk 100 60 40 60% /data"),
    ("inodes", "tmpfs 9 1 8 12% /"),
    ("folds", "yes"), ("inotify", "8192"), ("tool", "git"), ("future", "whatever"),
]


def test_a_board_is_read_and_old_pythons_are_left_out() -> None:
    facts = parse(BOARD)
    assert [(one.path, one.version) for one in facts.pythons] == [
        ("/opt/py/bin/python3.12", (3, 12, 0)), ("/opt/py/bin/python3.11", (3, 11, 4))]
    assert (facts.memory, facts.memory_free) == (948000 * 1024, None)
    assert (facts.disk_free, facts.inodes_free) == (40 * 1024, 8)
    assert facts.folds_case
    assert not facts.writable
    assert not facts.psi
    assert facts.tools == {"git"}


def test_an_answer_without_its_end_is_none() -> None:
    assert between(b"noise mark\na\0b\0", b"mark") is None
    assert between(b"mark\na\0b\0\nmark\n", b"mark") == [("a", "b")]
    assert between(b"mark\na\0b\0c\0\nmark\n", b"mark") is None
