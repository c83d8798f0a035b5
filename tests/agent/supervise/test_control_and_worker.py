from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.supervise import procfs
from hyperbox_agent.supervise.control import REPORT_LIMIT, Control
from hyperbox_agent.supervise.worker import (
    Worker,
    WorkerError,
    lower_priority,
    restore_priority,
)
from hyperbox_langpacks.base import WorkerSpec


@pytest.fixture
def short(runtime_dir: str) -> str:
    return os.path.join(runtime_dir, f"c{os.urandom(4).hex()}.sock")


def send(path: str, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(BrokenPipeError):
        client.connect(path)
        client.sendall(data)


async def test_reports_come_in_and_garbage_is_dropped_and_counted(
        short: str, helpers: Any) -> None:
    got: list[Mapping[str, Any]] = []
    control = Control(short, got.append)
    assert stat.S_IMODE(os.stat(short).st_mode) == 0o600
    send(short, b'{"event":"listening","port":1}\n\xff\xfe\n[1]\n{"event":3}\n{"a":\n'
                b'{"event":"wrote","paths":["a"]}\n{"event":"cut off"')
    send(short, b"[" * 100_000 + b"\n")
    await helpers.until(lambda: len(got) == 2 and control.dropped == 5)
    assert [report["event"] for report in got] == ["listening", "wrote"]
    control.close()
    control.close()
    assert not os.path.exists(short)


async def test_an_endless_line_is_not_kept(short: str, helpers: Any) -> None:
    got: list[Mapping[str, Any]] = []
    control = Control(short, got.append)

    def flood() -> None:
        send(short, b"x" * (3 * REPORT_LIMIT) + b'\n{"event":"after"}\n')

    await asyncio.to_thread(flood)
    await helpers.until(lambda: got)
    assert got == [{"event": "after"}]
    assert control.dropped == 1
    control.close()


# -------------------------------------------------------------------------------------- worker

FAKE_WORKER = """\
import array, json, os, socket, struct, sys, time
sock = socket.socket(fileno=int(os.environ["HYPERBOX_WORKER_FD"]))
def exactly(n):
    data = b""
    while len(data) < n:
        part = sock.recv(n - len(data))
        if not part: sys.exit(0)
        data += part
    return data
while True:
    head, anc, _, _ = sock.recvmsg(4, 1024)
    if not head: break
    fds = array.array("i")
    for _, _, data in anc: fds.frombytes(data)
    head += exactly(4 - len(head))
    request = json.loads(exactly(struct.unpack(">I", head)[0]))
    op, answer = request["op"], {"ok": True}
    if op == "hello": answer["python"] = "3.x"
    elif op == "die": print("oh no", file=sys.stderr); os._exit(3)
    elif op == "sleep": time.sleep(60)
    elif op == "no": answer = {"ok": False, "error": "I will not"}
    elif op == "garbage": sock.sendall(b"\\xff" * 64); continue
    elif op == "write":
        os.write(fds[0], b"by the worker"); [os.close(fd) for fd in fds]
    elif op == "big": answer["size"] = len(request["data"])
    body = json.dumps({"id": request["id"], **answer}).encode()
    sock.sendall(struct.pack(">I", len(body)) + body)
"""


async def start(tmp_path: Path, text: str = FAKE_WORKER) -> Worker:
    script = tmp_path / "worker.py"
    script.write_text(text)
    return await Worker.start(WorkerSpec((sys.executable, str(script)), {}), dict(os.environ),
                              str(tmp_path), "mark", SystemClock())


async def test_a_worker_answers_takes_descriptors_and_large_messages(tmp_path: Path) -> None:
    worker = await start(tmp_path)
    assert worker.python == "3.x"
    reader, writer = os.pipe()
    await worker.request("write", {}, (writer,), timeout=10)
    os.close(writer)
    assert os.read(reader, 100) == b"by the worker"
    os.close(reader)
    both = await asyncio.gather(
        worker.request("big", {"data": "x" * 3_000_000}, timeout=20),
        worker.request("big", {"data": "y" * 10}, timeout=20))
    assert [one["size"] for one in both] == [3_000_000, 10]
    with pytest.raises(WorkerError, match="I will not"):
        await worker.request("no", {}, timeout=10)
    pid, begun = worker.child.pid, worker.child.start
    await worker.close()
    await worker.close()
    assert not procfs.is_alive(pid, begun)


@pytest.mark.parametrize(("op", "words"), [
    ("die", "the worker is gone.*oh no"), ("garbage", "message of 4294967295 bytes")])
async def test_a_worker_that_dies_or_talks_nonsense_is_said_with_its_last_words(
        tmp_path: Path, op: str, words: str, helpers: Any) -> None:
    worker = await start(tmp_path)
    with pytest.raises(WorkerError):
        await worker.request(op, {}, timeout=10)
    if op == "die":
        await helpers.until(lambda: worker.child.exit is not None)
        await helpers.until(lambda: "oh no" in worker._gone_words())
    with pytest.raises(WorkerError, match=words):
        await worker.request("hello", {}, timeout=10)
    assert not worker.alive
    await worker.close()


async def test_a_worker_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    worker = await start(tmp_path)
    with pytest.raises(WorkerError, match=r"did not answer 'sleep' in 0\.1 s"):
        await worker.request("sleep", {}, timeout=0.1)
    await worker.close()


async def test_a_worker_that_can_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="no such thing"):
        await start(tmp_path, "raise SystemExit('no such thing')")
    with pytest.raises(WorkerError, match="program not found"):
        await Worker.start(WorkerSpec(("/no/python",), {}), {}, "/", "m", SystemClock())


async def test_priority_is_lowered_and_comes_back(tmp_path: Path) -> None:
    worker = await start(tmp_path)
    pid = worker.child.pid
    before = os.sched_getscheduler(pid)
    lower_priority(pid)
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    restore_priority(pid)
    assert os.sched_getscheduler(pid) == before
    autogroup = Path(f"/proc/{pid}/autogroup")
    if autogroup.exists():
        assert autogroup.read_text().split()[-1] == "0"
    await worker.close()


