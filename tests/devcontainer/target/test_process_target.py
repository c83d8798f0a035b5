from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from hyperbox_devcontainer.errors import TargetError, TargetTimeoutError
from hyperbox_devcontainer.target.process import ProcessTarget

TIME = 20.0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return ") Z " not in file.read()


async def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while alive(pid):
        assert time.monotonic() < deadline, f"{pid} is still there"
        await asyncio.sleep(0.02)


async def test_a_time_limit_ends_grandchildren_too() -> None:
    target = ProcessTarget("here")
    with pytest.raises(TargetTimeoutError, match=r"here: sh took longer than 0\.3 s"):
        await target.run(("sh", "-c", "sleep 60 & echo $! >&2; exec sleep 60"), timeout=0.3)
    running = asyncio.ensure_future(target.run(
        ("sh", "-c", "trap '' TERM; echo $$ > \"$0\"; while :; do sleep 1; done",
         f"{os.environ['HOME']}/pid"), timeout=TIME))
    file = Path(os.environ["HOME"], "pid")
    while not file.exists() or not file.read_text().strip():
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    await until_gone(int(file.read_text()))


async def test_what_a_command_leaves_behind_does_not_hold_its_result(tmp_path: Path) -> None:
    target = ProcessTarget("here")
    began = time.monotonic()
    ran = await target.run(("sh", "-c", "sleep 30 & echo $!"), timeout=TIME)
    assert time.monotonic() - began < TIME
    pid = int(ran.out)
    os.kill(pid, 9)
    await until_gone(pid)


async def test_a_program_that_ignores_its_end_is_ended_with_its_stream() -> None:
    target = ProcessTarget("here")
    stream = await target.open(("sh", "-c", "echo $$; exec sleep 60"), timeout=TIME)
    pid = int(await stream.read())
    await stream.close()
    assert not alive(pid)


async def test_a_program_that_may_survive_does() -> None:
    target = ProcessTarget("here")
    stream = await target.open(("sh", "-c", "echo $$; exec sleep 60"), survives=True, timeout=TIME)
    pid = int(await stream.read())
    await target.close()
    assert alive(pid)
    os.kill(pid, 9)
    await asyncio.wait_for(stream.child.wait(), 10)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)  # reaped as well, though nobody had asked for it any more


async def test_the_end_of_standard_error_is_kept_and_never_stops_the_program() -> None:
    target = ProcessTarget("here")
    stream = await target.open(
        ("sh", "-c", "yes error | head -c 3000000 >&2; echo last >&2; echo done"), timeout=TIME)
    assert await asyncio.wait_for(stream.read(), TIME) == b"done\n"
    await stream.close()
    assert stream.said.endswith(b"error\nlast\n")
    assert len(stream.said) <= 4096


async def test_its_own_environment_is_all_that_a_program_gets(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho \"$A$B$HOME\"\n")
    tool.chmod(0o755)
    target = ProcessTarget("here", {"PATH": f"{tmp_path}:/usr/bin:/bin", "A": "1"})
    ran = await target.run(("tool",), env={"B": "2"}, timeout=TIME)
    assert ran.out == b"12\n"
    with pytest.raises(TargetError, match="there is no program 'tool'"):
        await ProcessTarget("there", {"PATH": "/usr/bin"}).run(("tool",), timeout=TIME)


async def test_too_much_output_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperbox_devcontainer.target.process.OUTPUT_LIMIT", 1_000_000)
    with pytest.raises(TargetError, match="MiB of output"):
        await ProcessTarget("here").run(("yes",), timeout=TIME)


async def test_a_file_that_can_not_be_put_leaves_nothing_behind(tmp_path: Path) -> None:
    target = ProcessTarget("here")
    (tmp_path / "is a folder").mkdir()
    (tmp_path / "is a folder" / "full").write_text("")
    with pytest.raises(TargetError, match="Is a directory") as caught:
        await target.put(str(tmp_path / "is a folder"), b"x", timeout=TIME)
    assert caught.value.target == "here"
    assert [one.name for one in tmp_path.iterdir()] == ["is a folder"]


async def test_no_descriptor_is_left_open() -> None:
    target = ProcessTarget("here")
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await target.run(("true",), timeout=TIME)
        with pytest.raises(TargetError):
            await target.run(("no-such-program",), timeout=TIME)
        stream = await target.open(("cat",), timeout=TIME)
        await stream.close()
    await target.close()
    assert set(os.listdir("/proc/self/fd")) == before


async def test_what_our_own_parent_left_open_is_not_inherited() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    ran = await ProcessTarget("here").run(("sh", "-c", "sleep 60 & echo $!"), timeout=TIME)
    os.close(writer)
    assert os.read(reader, 1) == b"", "the pipe is held open"
    os.close(reader)
    os.kill(int(ran.out), 9)


async def test_signals_that_we_ignore_are_not_ignored_in_programs() -> None:
    target = ProcessTarget("here")
    ran = await target.run(("sh", "-c", "yes | head -n 1; kill -PIPE $$"), timeout=TIME)
    assert (ran.status, ran.out) == (141, b"y\n")
