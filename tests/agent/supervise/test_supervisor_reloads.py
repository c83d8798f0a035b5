from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.errors import AgentError
from hyperbox_agent.supervise import procfs
from hyperbox_langpacks.base import (
    Command,
    Detection,
    FileChange,
    InstallPlan,
    LaunchSpec,
    Rung,
    RungChoice,
)


def alive(pid: int) -> bool:
    found = procfs.read_stat(pid)
    return found is not None and found.alive


async def no() -> bool:
    return False


async def test_a_new_version_takes_over_and_the_old_one_is_ended(
        program: Any, helpers: Any) -> None:
    supervisor = program.supervisor()
    assert await supervisor.open() is None
    first = await program.reload(supervisor, 1)
    assert (first.ok, first.rung, first.error) == (True, Rung.COLD, None)
    assert set(first.ms) == {"reload", "health"}
    assert await program.ask() == "v1"
    program.write(ver='V = "version 2"\n')
    second = await program.reload(supervisor, 2)
    assert second.ok
    assert await program.ask() == "version 2"
    assert supervisor.serving == 2
    await helpers.until(lambda: not alive(first.facts["pid"]))
    await helpers.until(lambda: any(event["event"] == "retired" for event in program.events))
    retired = next(event for event in program.events if event["event"] == "retired")
    assert (retired["number"], retired["killed"], retired["cut"]) == (1, 0, 0)
    assert program.states() == ["starting", "live", "live"]
    assert supervisor.status()["pid"] == second.facts["pid"]
    assert supervisor.status()["url"] == f"http://127.0.0.1:{program.port}"


async def test_a_broken_version_is_rolled_back_with_its_line_and_the_old_one_serves(
        program: Any) -> None:
    supervisor = program.supervisor()
    await supervisor.open()
    await program.reload(supervisor, 1)
    program.write(ver="V = 'v2'\nimport nope\n")
    broken = await program.reload(supervisor, 2)
    assert not broken.ok
    assert not broken.superseded
    assert (broken.error.path, broken.error.line) == ("ver.py", 2)
    assert "No module named 'nope'" in broken.error.message
    assert await program.ask() == "v1"
    assert supervisor.serving == 1
    assert program.events[-1]["event"] in ("state", "retired")
    state = [event for event in program.events if event["event"] == "state"][-1]
    assert (state["state"], state["number"], state["error"]["line"]) == ("live", 1, 2)
    program.write(ver="V = 'v3'\n")
    assert (await program.reload(supervisor, 3)).ok
    assert supervisor.status()["error"] is None


async def test_a_superseded_version_never_answers(program: Any, helpers: Any) -> None:
    supervisor = program.supervisor()
    await supervisor.open()
    await program.reload(supervisor, 1)
    program.write(ver="V = 'v2'\n")
    gone = await program.reload(supervisor, 2, permit=no)
    assert (gone.ok, gone.superseded, gone.error) == (False, True, None)
    assert await program.ask() == "v1"
    await helpers.until(lambda: len(program.marked()) == 1)


async def test_what_is_wrong_with_a_version_is_told_while_the_port_holder_hangs(
        program: Any) -> None:
    supervisor = program.supervisor()
    await supervisor.open()
    await program.reload(supervisor, 1)
    holder = supervisor._service._port.holder_pid
    program.write(ver="V = 'v2'\nimport nope\n")
    os.kill(holder, signal.SIGSTOP)
    try:
        broken = await asyncio.wait_for(program.reload(supervisor, 2), 8)
    finally:
        os.kill(holder, signal.SIGCONT)
    assert (broken.error.path, broken.error.line) == ("ver.py", 2)
    assert await program.ask() == "v1"


async def test_a_start_that_is_taken_back_is_broken_off(program: Any, helpers: Any) -> None:
    supervisor = program.supervisor()
    await supervisor.open()
    await program.reload(supervisor, 1)
    program.write(ver="import time\ntime.sleep(600)\n")

    async def when_it_runs() -> None:
        await helpers.until(lambda: len(program.marked()) == 2)

    gone = await program.reload(supervisor, 2, taken_back=when_it_runs)
    assert (gone.ok, gone.superseded, gone.error) == (False, True, None)
    await helpers.until(lambda: len(program.marked()) == 1)
    assert await program.ask() == "v1"


async def test_who_dies_while_it_waits_for_its_permit_does_not_go_live(
        program: Any, helpers: Any) -> None:
    supervisor = program.supervisor()
    await supervisor.open()
    first = await program.reload(supervisor, 1)

    async def kill_it() -> bool:
        victim = next(pid for pid in program.marked() if pid != first.facts["pid"])
        os.kill(victim, signal.SIGKILL)
        await helpers.until(lambda: not alive(victim))
        await asyncio.sleep(0.05)
        return True

    result = await program.reload(supervisor, 2, permit=kill_it)
    assert not result.ok
    assert "SIGKILL" in result.error.message
    assert await program.ask() == "v1"


async def test_nothing_and_notify_start_no_process(program: Any) -> None:
    supervisor = program.supervisor()
    await supervisor.open()
    first = await program.reload(supervisor, 1)
    supervisor.choose((FileChange("a.css", "modified"),))
    for number, rung in ((2, Rung.NOTHING), (3, Rung.NOTIFY)):
        assert (await program.reload(supervisor, number, rung)).ok
    assert supervisor.serving == 3
    assert supervisor.status()["pid"] == first.facts["pid"]
    told = [event for event in program.events if event["event"] == "notify"]
    assert told == [{"event": "notify", "number": 3, "paths": ["a.css"]}]
    assert (await program.reload(supervisor, 4, Rung.NOTIFY, permit=no)).superseded
    assert supervisor.serving == 3


async def test_what_is_only_to_be_told_is_only_told(program: Any) -> None:
    supervisor = program.supervisor(notify=("static/**", "*.txt", "!kept.txt"))
    await supervisor.open()

    def rung(*paths: str) -> tuple[Rung, str]:
        choice = supervisor.choose([FileChange(path, "modified") for path in paths])
        return choice.rung, choice.why

    assert rung("a.txt")[0] is Rung.COLD, "nothing runs that could be told"
    await program.reload(supervisor, 1)
    told = (Rung.NOTIFY, "[reload] notify")
    assert rung("static/deep/app.py", "notes/a.txt") == told
    assert supervisor.choose([FileChange("static/deep", "added", "dir")]).rung is Rung.NOTIFY
    for paths in (("static/a.css", "app.py"), ("kept.txt",), ("other/static/a.css",), ()):
        assert rung(*paths)[0] is Rung.COLD, paths


async def test_without_overlap_the_old_one_is_stopped_first_and_comes_back(
        program: Any, tmp_path: Path, helpers: Any) -> None:
    supervisor = program.supervisor(overlap=False, env={"LOCK": str(tmp_path / "lock")})
    await supervisor.open()
    lock = ("import os, atexit\n"
            "fd = os.open(os.environ['LOCK'], os.O_CREAT | os.O_EXCL)\n"
            "import signal, sys\nsignal.signal(15, lambda *a: sys.exit())\n"
            "atexit.register(os.unlink, os.environ['LOCK'])\n")
    program.write(app=lock + helpers.base_app)
    assert (await program.reload(supervisor, 1)).ok
    assert (await program.reload(supervisor, 2)).ok, "two of them ran at once"
    other = tmp_path / "other"
    shutil.copytree(program.root, other)
    (other / "ver.py").write_text("import nope")
    failed = await program.reload(supervisor, 3, root=other)
    assert not failed.ok
    assert failed.error.path == "ver.py"
    assert await program.ask() == "v1"
    assert supervisor.serving == 2
    last = [event for event in program.events if event["event"] == "state"][-1]
    assert (last["state"], last["number"], last["error"]["path"]) == ("live", 2, "ver.py")
    # In place both have the same root: whoever knows where the old content is, is asked.
    keep = tmp_path / "kept"
    shutil.copytree(program.root, keep)

    async def locate(number: int) -> str:
        assert number == 2
        return str(keep)

    supervisor._locate = locate
    program.write(ver="import nope\n")
    assert not (await program.reload(supervisor, 3)).ok
    assert await program.ask() == "v1"
    assert supervisor.root == str(keep)
    assert (await program.reload(supervisor, 4, permit=no)).superseded
    assert await program.ask() == "v1"


async def test_a_program_without_a_port_is_stopped_first_and_revived_by_the_caller(
        program: Any, helpers: Any, fast_clock: Any) -> None:
    supervisor = program.supervisor(port=None, ready="ready .*", clock=fast_clock,
                                    start_timeout=400.0)
    await supervisor.open()
    program.write(app="import ver, time; print('ready', ver.V, flush=True); time.sleep(600)\n")
    assert (await program.reload(supervisor, 1)).ok
    good = (program.root / "ver.py").read_text()
    program.write(ver="V = 1 / 0\n")
    assert (await program.reload(supervisor, 2)).error.line == 1
    assert supervisor.status()["state"] == "broken"
    program.write(ver=good)
    assert await supervisor.revive()
    assert supervisor.serving == 1
    status = supervisor.status()
    assert (status["state"], status["error"]["line"], status["restarts"]) == ("live", 1, 0)
    assert program.texts("stdout")[-1] == "ready v1"
    assert supervisor.status()["url"] is None


async def test_a_program_without_a_port_that_ends_well_is_not_started_again(
        program: Any, helpers: Any, fast_clock: Any, tmp_path: Path) -> None:
    supervisor = program.supervisor(port=None, clock=fast_clock, ready_after=4.0)
    await supervisor.open()
    over = tmp_path / "over"
    program.write(app="import os, time\n"
                      f"while not os.path.exists({str(over)!r}): time.sleep(0.02)\n"
                      "print('done')\n")
    assert (await program.reload(supervisor, 1)).ok
    over.touch()
    await helpers.until(lambda: program.states()[-1] == "down")
    await asyncio.sleep(0.2)
    assert program.states() == ["starting", "live", "down"]
    assert program.texts() == ["done"]


async def test_a_crash_is_told_and_the_same_version_started_again(
        program: Any, helpers: Any, fast_clock: Any) -> None:
    supervisor = program.supervisor(clock=fast_clock, start_timeout=400.0)
    await supervisor.open()
    first = await program.reload(supervisor, 7)
    os.kill(first.facts["pid"], signal.SIGKILL)
    # The port is held meanwhile: who asks waits.
    assert await program.ask() == "v1"
    assert supervisor.serving == 7
    assert program.states() == ["starting", "live", "broken", "live"]
    broken = next(event for event in program.events if event.get("state") == "broken")
    assert "killed by SIGKILL (out of memory?)" in broken["error"]["message"]
    assert supervisor.status()["restarts"] == 1


async def test_a_program_that_can_not_come_back_waits_longer_each_time_and_a_reload_ends_that(
        program: Any, helpers: Any, fast_clock: Any) -> None:
    supervisor = program.supervisor(clock=fast_clock, start_timeout=400.0)
    await supervisor.open()
    first = await program.reload(supervisor, 1)
    program.write(ver="boom\n")
    os.kill(first.facts["pid"], signal.SIGKILL)
    await helpers.until(lambda: program.states().count("broken") == 3)
    assert supervisor.status()["error"]["path"] == "ver.py"
    program.write(ver="V = 'v2'\n")
    assert (await program.reload(supervisor, 2)).ok
    assert await program.ask() == "v2"
    assert supervisor.status()["restarts"] == 0


async def test_the_first_start_may_fail_and_nothing_is_tried_again(
        program: Any, fast_clock: Any) -> None:
    supervisor = program.supervisor(clock=fast_clock)
    await supervisor.open()
    program.write(ver="boom\n")
    assert not (await program.reload(supervisor, 1)).ok
    await asyncio.sleep(0.2)
    assert program.states() == ["starting", "broken"]


@pytest.mark.parametrize("overlap", [True, False])
async def test_a_stop_in_the_middle_of_a_reload_leaves_nothing(
        program: Any, helpers: Any, overlap: bool) -> None:
    supervisor = program.supervisor(overlap=overlap)
    await supervisor.open()
    await program.reload(supervisor, 1)
    program.write(app="import time; time.sleep(600)\n")
    reload = asyncio.ensure_future(program.reload(supervisor, 2))
    await helpers.until(lambda: len(program.marked()) == (2 if overlap else 1))
    await asyncio.gather(supervisor.stop(), supervisor.stop())
    assert (await reload).superseded
    await supervisor.stop()
    assert program.marked() == []
    assert sorted(os.listdir(program.home)) in (["code", "run"], ["code", "learned.json", "run"])
    assert os.listdir(program.home / "run") == []
    with pytest.raises(AgentError):
        await program.reload(supervisor, 3)
    with pytest.raises(OSError):
        await helpers.ask(program.port)


async def test_a_cancelled_reload_leaves_the_old_version_alone(
        program: Any, helpers: Any) -> None:
    supervisor = program.supervisor()
    await supervisor.open()
    await program.reload(supervisor, 1)
    program.write(app="import time; time.sleep(600)\n")
    reload = asyncio.ensure_future(program.reload(supervisor, 2))
    await helpers.until(lambda: len(program.marked()) == 2)
    reload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reload
    await helpers.until(lambda: len(program.marked()) == 1)
    assert await program.ask() == "v1"


async def test_what_can_not_be_started_is_a_failure_of_the_reload(program: Any) -> None:
    supervisor = program.supervisor(command=("no-such-program",))
    await supervisor.open()
    failed = await program.reload(supervisor, 1)
    assert failed.error.phase == "reload"
    assert "program not found: no-such-program" in failed.error.message
    await supervisor.stop()
    missing = program.supervisor(env_files=("no.env",))
    await missing.open()
    assert (await program.reload(missing, 1)).error.path == "no.env"


async def test_commands_run_before_and_after_and_a_failing_one_stops_the_reload(
        program: Any, helpers: Any) -> None:
    supervisor = program.supervisor(
        pre=("echo generated > gen.txt; echo making", ("sh", "-c", "test ! -e stop")),
        post=("echo after $HYPERBOX_NUMBER",))
    await supervisor.open()
    assert (await program.reload(supervisor, 1)).ok
    assert (program.root / "gen.txt").read_text() == "generated\n"
    await helpers.until(lambda: "after 1" in program.texts("stdout", 1))
    (program.root / "stop").write_text("")
    failed = await program.reload(supervisor, 2)
    assert "[reload] pre 'sh -c test ! -e stop' failed (exit status 1)" in failed.error.message
    assert await program.ask() == "v1"


class InstallingPack:
    """Knows how to install, and little else."""

    name = "installing"

    def __init__(self, *steps: Command) -> None:
        self.steps = steps

    def wants_gate(self, path: str) -> bool:
        return False

    def worker(self, *args: Any) -> None:
        return None

    def launch(self, view: Any, found: Detection, port: int | None, code: str) -> LaunchSpec:
        return LaunchSpec(found.command.argv, {}, port_mapped=False)

    def choose(self, *args: Any) -> RungChoice:
        return RungChoice(Rung.REINSTALL, "requirements.txt changed")

    def install(self, view: Any, found: Any, changes: Sequence[FileChange]) -> InstallPlan | None:
        assert [change.path for change in changes] == ["requirements.txt"]
        return InstallPlan(self.steps, "its plan")


async def test_an_install_runs_while_the_old_version_serves(program: Any, helpers: Any) -> None:
    script = "import sys, time; print('installing', flush=True); time.sleep(0.3)"
    pack = InstallingPack(Command((sys.executable, "-c", script)))
    supervisor = program.supervisor(pack=pack)
    await supervisor.open()
    await program.reload(supervisor, 1)
    choice = supervisor.choose((FileChange("requirements.txt", "modified"),))
    reload = asyncio.ensure_future(program.reload(supervisor, 2, choice.rung))
    await helpers.until(lambda: "installing" in program.texts())
    assert await program.ask() == "v1"
    done = await reload
    assert (done.ok, done.rung, done.why) == (True, Rung.REINSTALL, "a test; its plan")
    pack.steps = (Command(("sh", "-c", "echo no network >&2; exit 4")),)
    failed = await program.reload(supervisor, 3, Rung.REINSTALL)
    assert "(exit status 4): no network" in failed.error.message
    assert await program.ask() == "v1"


async def test_the_program_stands_still_for_an_apply_and_always_goes_on(
        program: Any, helpers: Any) -> None:
    supervisor = program.supervisor()
    await supervisor.open()
    first = await program.reload(supervisor, 1)
    with pytest.raises(ZeroDivisionError):
        async with supervisor.quiet() as facts:
            assert procfs.read_stat(first.facts["pid"]).state == "T"
            asked = asyncio.ensure_future(program.ask())
            await asyncio.sleep(0.05)
            assert not asked.done()
            raise ZeroDivisionError
    assert await asked == "v1"
    assert facts["frozen"] == 1
    assert facts["restless"] == []


async def test_no_version_is_started_again_while_a_batch_is_put_into_the_tree(
        program: Any, helpers: Any, fast_clock: Any) -> None:
    supervisor = program.supervisor(clock=fast_clock, start_timeout=400.0)
    await supervisor.open()
    first = await program.reload(supervisor, 7)
    app = (program.root / "app.py").read_text()
    program.write(app="import time; time.sleep(600)\n")
    os.kill(first.facts["pid"], signal.SIGKILL)
    await helpers.until(lambda: supervisor.status()["restarts"] == 1 and program.marked())
    async with supervisor.quiet():
        program.write(app=app)
        await helpers.until(lambda: not program.marked())
        await asyncio.sleep(0.1)
        assert supervisor.status()["restarts"] == 1
        assert program.marked() == []
    assert await program.ask() == "v1"
    assert supervisor.status()["restarts"] == 2


async def test_what_the_program_reads_is_fed_and_the_end_of_ours_is_not_its_end(
        program: Any, helpers: Any) -> None:
    supervisor = program.supervisor(port=None, ready="up")
    program.write(app="import sys\nprint('up', flush=True)\n"
                      "for line in sys.stdin: print('got', line.strip(), flush=True)\n")
    await supervisor.open()
    assert (await program.reload(supervisor, 1)).ok
    await supervisor.feed(b"one\ntwo\n")
    await helpers.until(lambda: program.texts()[1:] == ["got one", "got two"])
    await supervisor.feed(b"")
    await supervisor.feed(b"three\n")
    await helpers.until(lambda: program.texts()[-1] == "got three")
    assert supervisor.status()["state"] == "live"


async def test_a_program_on_a_terminal_sees_one(program: Any, helpers: Any) -> None:
    supervisor = program.supervisor(port=None, ready="tty .*", tty=True)
    program.write(app="import os\nprint('tty', os.isatty(0), os.isatty(1), os.isatty(2))\n"
                      "print('got', input('? '))\ninput()\n")
    await supervisor.open()
    assert (await program.reload(supervisor, 1)).ok
    assert program.texts() == ["tty True True True"]
    await supervisor.feed(b"x\n")
    await helpers.until(lambda: program.texts()[-1].endswith("got x"))
