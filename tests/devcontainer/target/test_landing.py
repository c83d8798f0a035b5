from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import pytest

import hyperbox_agent
import hyperbox_langpacks
from hyperbox_agent.clock import SystemClock
from hyperbox_agent.errors import LinkTimeoutError, VersionError
from hyperbox_agent.home import run_folder
from hyperbox_agent.link.connection import Link
from hyperbox_agent.link.hello import Hello
from hyperbox_agent.link.stream import ByteStream
from hyperbox_agent.link.version import VERSION
from hyperbox_devcontainer.errors import TargetError, TargetTimeoutError, WorkstationError
from hyperbox_devcontainer.target import bootstrap, landing
from hyperbox_devcontainer.target.archive import build_archive, pack
from hyperbox_devcontainer.target.base import Ran
from hyperbox_devcontainer.target.landing import (
    attach_agent,
    land_agent,
    start_agent,
    start_installed,
)
from hyperbox_devcontainer.target.memory import Call, MemoryTarget
from hyperbox_devcontainer.target.process import DirectForward, ProcessStream, ProcessTarget

CLOCK = SystemClock()
TIME = 30.0


class PlainTarget:
    """The process target as a remote one is: no socket, no known Python; counts what is asked."""

    kind = "plain"

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._target = ProcessTarget("far", environ)
        self.name = "far"
        self.python: str | None = None
        self.calls: list[str] = []

    async def open(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None,
                   survives: bool = False, timeout: float) -> ProcessStream:
        self.calls.append("open")
        return await self._target.open(argv, env=env, survives=survives, timeout=timeout)

    async def run(self, argv: Sequence[str], *, input: bytes = b"",  # noqa: A002
                  env: Mapping[str, str] | None = None, timeout: float) -> Ran:
        self.calls.append("run")
        return await self._target.run(argv, input=input, env=env, timeout=timeout)

    async def put(self, path: str, data: bytes, *, mode: int = 0o644, timeout: float) -> None:
        self.calls.append("put")
        await self._target.put(path, data, mode=mode, timeout=timeout)

    async def forward(self, port: int, *, timeout: float) -> DirectForward:
        return await self._target.forward(port, timeout=timeout)

    async def close(self) -> None:
        await self._target.close()


@pytest.fixture
async def target() -> AsyncIterator[PlainTarget]:
    made = PlainTarget()
    yield made
    await made.close()


@pytest.fixture(scope="session")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the agent has been put and unpacked: the first start compiles, which takes a second."""
    folder = tmp_path_factory.mktemp("landed")
    path = folder / build_archive().name
    path.write_bytes(build_archive().data)
    run_archive(sys.executable, path)
    return folder


@pytest.fixture
def home(tmp_path: Path, landed: Path) -> str:
    """A home in which the agent has landed before."""
    path = tmp_path / "a home"
    path.mkdir(mode=0o700)
    (path / "agent").symlink_to(landed)
    return str(path)


async def stop(link: Link) -> None:
    await link.call("stop", timeout=TIME)
    await asyncio.wait_for(link.closed, TIME)
    await link.close()


def pid_of(link: Link) -> int:
    assert link.peer is not None
    return int(link.peer.facts["pid"])


async def gone(pid: int) -> None:
    """Wait until a process that is nobody's child of ours any more has ended."""
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{pid} is still there")


# -- the archive ------------------------------------------------------------------------------


def test_equal_sources_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    for package in (hyperbox_agent, hyperbox_langpacks):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, tmp_path / source.name)
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "from hyperbox_devcontainer.target.archive import build_archive\n"
            "print(build_archive().digest)")
    said = {subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True,
                           capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout
            for seed in ("1", "2")}
    assert len(said) == 1


def test_the_order_of_members_and_the_day_do_not_count() -> None:
    members = [("b.py", b"2"), ("a/x.py", b"1"), ("__main__.py", b"3")]
    assert pack(members) == pack(reversed(members))
    with zipfile.ZipFile(BytesIO(pack(members).data)) as packed:
        assert [one.filename for one in packed.infolist()] == ["__main__.py", "a/x.py", "b.py"]
        assert {one.date_time for one in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_archive_holds_our_two_lower_rooms_and_nothing_compiled() -> None:
    archive = build_archive()
    assert archive.digest == hashlib.sha256(archive.data).hexdigest()
    assert archive.name == f"hyperbox-agent-{archive.digest[:12]}.pyz"
    with zipfile.ZipFile(BytesIO(archive.data)) as packed:
        names = packed.namelist()
    assert {name.split("/")[0] for name in names} == {
        "__main__.py", "hyperbox_agent", "hyperbox_langpacks"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_a_pack_of_somebody_else_travels_along(tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_pack").mkdir()
    (tmp_path / "their_pack" / "__init__.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with zipfile.ZipFile(BytesIO(build_archive(("their_pack",)).data)) as packed:
        assert packed.read("their_pack/__init__.py") == b"x = 1\n"
    with pytest.raises(WorkstationError, match="no package 'not_there'"):
        build_archive(("not_there",))
    (tmp_path / "their_pack" / "fast.so").write_bytes(b"")
    (tmp_path / "their_pack").rename(tmp_path / "fast_pack")
    with pytest.raises(WorkstationError, match=r"fast\.so: compiled code"):
        build_archive(("fast_pack",))


def run_archive(python: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-I", str(path), "--version"], capture_output=True, text=True,
                          check=False, timeout=60)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An archive that unpacks as ours does, without much in it."""
    main = b"def main():\n    print(__file__, __cached__)\n    return 0\n"
    path = tmp_path / "hyperbox-agent-123456789abc.pyz"
    path.write_bytes(pack({"__main__.py": Path(bootstrap.__file__).read_bytes(),
                           "hyperbox_agent/__init__.py": b"", "hyperbox_agent/new.py": b"match 1:",
                           "hyperbox_agent/__main__.py": main}.items()).data)
    return path


def folder_for(path: Path) -> Path:
    return path.with_name(f"{path.stem}-{sys.implementation.cache_tag}")


def test_the_archive_unpacks_itself_once_with_bytecode_that_is_never_stale(small: Path) -> None:
    first = run_archive(sys.executable, small)
    folder = folder_for(small)
    source, cached = first.stdout.split()
    assert source == str(folder / "hyperbox_agent" / "__main__.py"), first.stderr
    compiled = Path(cached)
    assert compiled.parent == folder / "hyperbox_agent" / "__pycache__"
    assert compiled.read_bytes()[4:8] == b"\x01\0\0\0"  # by hash, and not checked
    before = folder.stat().st_mtime_ns, compiled.stat().st_mtime_ns
    assert run_archive(sys.executable, small).stdout == first.stdout
    assert (folder.stat().st_mtime_ns, compiled.stat().st_mtime_ns) == before
    assert {one.name for one in small.parent.iterdir()} == {folder.name, small.name}


@pytest.mark.needs("python3.10")
def test_the_oldest_python_runs_the_archive(tmp_path: Path,
                                            other_python: Callable[[str], str]) -> None:
    path = tmp_path / build_archive().name
    path.write_bytes(build_archive().data)
    said = run_archive(other_python("3.10"), path)
    assert said.stdout == f"hyperbox-agent {VERSION}\n", said.stderr


def test_starts_at_the_same_time_do_not_hinder_each_other(small: Path) -> None:
    starts = [subprocess.Popen([sys.executable, "-I", str(small)], stdout=subprocess.PIPE)
              for _ in range(4)]
    said = {start.communicate(timeout=60)[0] for start in starts}
    assert len(said) == 1
    assert str(folder_for(small)).encode() in said.pop()
    assert len(list(small.parent.iterdir())) == 2


def test_where_nothing_can_be_written_it_runs_packed(small: Path) -> None:
    # Even root can't make a folder where a file has its name.
    folder_for(small).write_text("in the way")
    said = run_archive(sys.executable, small)
    assert said.stdout.split()[0] == str(small / "hyperbox_agent" / "__main__.py")
    assert "runs packed" in said.stderr


def test_archives_of_long_ago_are_removed(small: Path) -> None:
    for age in range(1, 6):
        old = small.with_name(f"hyperbox-agent-{age}.pyz")
        old.write_bytes(b"")
        os.utime(old, (1e9 - age, 1e9 - age))
        old.with_name(f"hyperbox-agent-{age}-cpython-310").mkdir()
    run_archive(sys.executable, small)
    left = {one.name for one in small.parent.iterdir()}
    assert {name for name in left if name.endswith(".pyz")} == {
        small.name, "hyperbox-agent-1.pyz", "hyperbox-agent-2.pyz"}
    assert "hyperbox-agent-2-cpython-310" in left
    assert "hyperbox-agent-3-cpython-310" not in left


# -- landing, attaching -----------------------------------------------------------------------


async def test_the_agent_is_put_once_started_and_reached_again(target: PlainTarget,
                                                              tmp_path: Path) -> None:
    home = str(tmp_path / "a home's\n\"place\"")
    assert await attach_agent(target, home, clock=CLOCK, timeout=TIME) is None
    target.calls.clear()
    link = await land_agent(target, home, clock=CLOCK, timeout=TIME)
    assert target.calls == ["open", "put", "open"]
    pid = pid_of(link)
    assert (await link.call("status", timeout=TIME)).body["configured"] is False
    assert os.stat(home).st_mode & 0o077 == 0
    await link.close("lost for a while")

    again = await attach_agent(target, home, clock=CLOCK, timeout=TIME)
    assert again is not None
    assert pid_of(again) == pid
    third = await attach_agent(target, home, clock=CLOCK, timeout=TIME)
    assert third is not None
    assert "a newer session took over" in (await asyncio.wait_for(again.closed, TIME)).message
    await stop(third)
    await gone(pid)
    assert await attach_agent(target, home, clock=CLOCK, timeout=TIME) is None

    target.calls.clear()
    link = await land_agent(target, home, clock=CLOCK, timeout=TIME)
    assert target.calls == ["open"]
    await stop(link)


async def test_a_damaged_archive_is_put_again(target: PlainTarget, home: str) -> None:
    path = Path(home, "agent", build_archive().name)
    path.write_bytes(build_archive().data[:-1])
    link = await land_agent(target, home, clock=CLOCK, timeout=TIME)
    assert target.calls == ["open", "put", "open"]
    assert path.read_bytes() == build_archive().data
    assert path.stat().st_mode & 0o777 == 0o600
    await stop(link)


async def test_an_archive_that_never_arrives_whole_is_an_error(target: PlainTarget, home: str,
                                                              monkeypatch: pytest.MonkeyPatch,
                                                              ) -> None:
    Path(home, "agent").unlink()
    put = target.put

    async def lossy(path: str, data: bytes, *, mode: int = 0o644, timeout: float) -> None:
        await put(path, data[:1000], mode=mode, timeout=timeout)

    monkeypatch.setattr(target, "put", lossy)
    with pytest.raises(TargetError, match="did not arrive as it was sent"):
        await land_agent(target, home, clock=CLOCK, timeout=TIME)


async def test_a_target_without_python_says_so(home: str, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")
    for tool in ("sh", "sha256sum", "mkdir", "tail", "cat"):
        (tools / tool).symlink_to(f"/bin/{tool}" if os.path.exists(f"/bin/{tool}")
                                  else f"/usr/bin/{tool}")
    target = PlainTarget({"PATH": str(tools)})
    with pytest.MonkeyPatch.context() as patch:
        # What stands at the absolute places can't be hidden from here, so they are left out.
        patch.setattr(landing, "PYTHONS", ("python3", "python"))
        with pytest.raises(TargetError, match=r"no Python of 3\.10 or newer") as caught:
            await land_agent(target, home, clock=CLOCK, timeout=TIME)
    assert "install python3" in (caught.value.hint or "")
    assert target.calls == ["open"]
    await target.close()


async def test_an_agent_that_dies_at_start_is_explained_by_its_log(target: PlainTarget,
                                                                  home: str) -> None:
    first = await land_agent(target, home, clock=CLOCK, timeout=TIME)
    with pytest.raises(TargetError, match="another agent already runs for this home"):
        await land_agent(target, home, clock=CLOCK, timeout=TIME)
    await stop(first)


async def test_in_place_the_installed_agent_is_started_and_attached_by_its_socket(
        home: str) -> None:
    target = ProcessTarget("here")
    link = await start_installed(target, home, clock=CLOCK, timeout=TIME)
    pid = pid_of(link)
    again = await attach_agent(target, home, clock=CLOCK, timeout=TIME)
    assert again is not None
    assert pid_of(again) == pid
    await link.close()
    await target.close()
    assert (await again.call("status", timeout=TIME)).body["configured"] is False, (
        "the agent must survive the target's end")
    await stop(again)
    await gone(pid)


async def test_attaching_where_nothing_lives_is_none(home: str) -> None:
    target = ProcessTarget("here")
    assert await attach_agent(target, home, clock=CLOCK, timeout=TIME) is None
    await target.close()


async def test_attaching_to_a_deaf_or_a_foreign_agent_is_an_error(tmp_path: Path) -> None:
    path = os.path.join(run_folder(str(tmp_path)), "agent.sock")
    said = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    target = ProcessTarget("here")
    with pytest.raises(LinkTimeoutError):
        await attach_agent(target, str(tmp_path), clock=CLOCK, timeout=1.5)
    said = Hello("agent", 1000, version="0.0.7").encode()
    with pytest.raises(VersionError, match=r"0\.0\.7"):
        await attach_agent(target, str(tmp_path), clock=CLOCK, timeout=TIME)
    await target.close()
    server.close()
    await server.wait_closed()


async def test_an_agent_that_accepts_nobody_is_not_taken_for_none(tmp_path: Path) -> None:
    target = ProcessTarget("here")
    waiting = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.join(run_folder(str(tmp_path)), "agent.sock"))
        listener.listen(0)
        for _ in range(2):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
        with pytest.raises(TargetTimeoutError):
            await attach_agent(target, str(tmp_path), clock=CLOCK, timeout=0.3)
    for client in waiting:
        client.close()
    await target.close()


async def test_a_program_that_is_no_agent_is_quoted() -> None:
    async def banner(call: Call, stream: ByteStream) -> None:
        await stream.write(b"This account is disabled.\n")

    async def nothing(call: Call, stream: ByteStream) -> None:
        return

    target = MemoryTarget(programs={"banner": banner, "nothing": nothing})
    with pytest.raises(TargetError, match=r"it said 'This account is disabled\.'"):
        await start_agent(target, ("banner",), clock=CLOCK, timeout=TIME)
    with pytest.raises(TargetError, match="before it said anything"):
        await start_agent(target, ("nothing",), clock=CLOCK, timeout=TIME)
    with pytest.raises(TargetError, match="no program 'other'"):
        await start_agent(target, ("other",), clock=CLOCK, timeout=TIME)
    await target.close()
