from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.supervise import procfs, starter
from hyperbox_langpacks.base import Command, FileChange, Rung
from hyperbox_langpacks.python.pack import PythonPack

PYTHON = os.path.realpath(sys.executable)


def with_pack(program: Any, **config: Any) -> Any:
    """A supervisor with the real pack, its program run by this very interpreter."""
    config.setdefault("command", (PYTHON, "app.py"))
    bin_dir = os.path.dirname(PYTHON)
    folder = program.view
    pack = PythonPack()
    environ = {"PATH": f"{bin_dir}:{os.environ['PATH']}"}
    found = pack.complete(folder, environ, Command(config["command"]))
    return program.supervisor(pack=pack, found=found, **config)


async def warm_up(program: Any, helpers: Any, supervisor: Any) -> None:
    await supervisor.open()
    assert (await program.reload(supervisor, 1)).ok
    assert await program.ask() == "v1"
    await helpers.until(lambda: supervisor.status()["warm"]["ready"], 12)


async def test_the_second_start_is_warm_and_every_one_after_it(
        program: Any, helpers: Any) -> None:
    supervisor = with_pack(program)
    await warm_up(program, helpers, supervisor)
    for number in range(2, 6):
        program.write(ver=f"V = 'v{number}'\n")
        choice = supervisor.choose((FileChange("ver.py", "modified"),))
        assert choice.rung is Rung.WARM, choice.why
        done = await program.reload(supervisor, number, choice.rung)
        assert (done.ok, done.rung) == (True, Rung.WARM), done.why
        assert await program.ask() == f"v{number}"
        await helpers.until(lambda: supervisor.status()["warm"]["ready"])
    learned = json.loads((program.home / "learned.json").read_text())
    assert "http.server" in next(iter(learned.values()))
    await supervisor.stop()
    assert program.marked() == []


async def test_what_a_program_reports_in_its_first_moment_is_heard(
        program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the agent may go on long after the program that it started has begun."""
    spawn = starter.spawn

    def late(*args: Any) -> Any:
        child = spawn(*args)
        time.sleep(1.0)
        return child

    monkeypatch.setattr(starter, "spawn", late)
    supervisor = with_pack(program, start_timeout=10.0)
    await supervisor.open()
    assert (await program.reload(supervisor, 1)).ok
    assert await program.ask() == "v1"


async def test_modules_are_learned_in_the_order_of_their_import(
        program: Any, helpers: Any) -> None:
    """An import may have effects that a later one builds on; and their names are known."""
    order = ["wave", "colorsys", "this_is_nowhere", "bdb", "antigravity_is_not", "calendar"]
    program.write(app="".join(
        f"try:\n    import {name}\nexcept ImportError:\n    pass\n" for name in order)
        + helpers.base_app)
    supervisor = with_pack(program)
    await warm_up(program, helpers, supervisor)
    learned = next(iter(json.loads((program.home / "learned.json").read_text()).values()))
    assert [name for name in learned if name in order] == ["wave", "colorsys", "bdb", "calendar"]
    choice = supervisor.choose((FileChange("vendor/wave.py", "added"),))
    assert choice.rung is Rung.WARM
    assert "name of a library" in choice.why
    choice = supervisor.choose((FileChange("vendor/colorsys/__init__.py", "added"),))
    assert "name of a library" in choice.why
    assert supervisor.choose((FileChange("vendor/nobody.py", "added"),)).rung is Rung.NOTHING


async def test_pages_that_a_server_of_files_sends_need_no_restart(
        program: Any, helpers: Any) -> None:
    (program.root / "index.html").write_text("v1")
    supervisor = with_pack(program, command=(PYTHON, "-m", "http.server", str(program.port)))
    await supervisor.open()
    for number, rung in ((1, Rung.COLD), (2, Rung.WARM)):
        assert (await program.reload(supervisor, number, rung)).ok
        assert await program.ask() == "v1"
        await helpers.until(lambda: supervisor._service.live.has_told)
        await helpers.until(lambda: supervisor.status()["warm"]["ready"], 12)
        # Asked for again: what it read by then is told with the next connection.
        assert await program.ask("/index.html") == "v1"
        for change in (FileChange("index.html", "modified"), FileChange("new.css", "added")):
            choice = supervisor.choose((change,))
            assert choice.rung is Rung.NOTIFY, (number, choice.why)
        assert supervisor.choose((FileChange("data.bin", "modified"),)).rung <= Rung.WARM


async def test_a_save_on_the_heels_of_another_is_warm_too(program: Any, helpers: Any) -> None:
    supervisor = with_pack(program)
    await warm_up(program, helpers, supervisor)
    for number in range(2, 5):
        program.write(ver=f"V = 'v{number}'\n")
        done = await program.reload(supervisor, number, Rung.WARM)
        assert (done.ok, done.rung) == (True, Rung.WARM), done.why
        assert await program.ask() == f"v{number}"


async def test_what_mends_a_broken_save_is_warm_too(program: Any, helpers: Any) -> None:
    supervisor = with_pack(program)
    await warm_up(program, helpers, supervisor)
    program.write(ver="raise ValueError('no')\n")
    broken = await program.reload(supervisor, 2, Rung.WARM)
    assert (broken.ok, broken.rung) == (False, Rung.WARM), broken.why
    await helpers.until(lambda: supervisor.status()["warm"]["ready"])
    program.write(ver="V = 'v3'\n")
    mended = await program.reload(supervisor, 3, Rung.WARM)
    assert (mended.ok, mended.rung) == (True, Rung.WARM), mended.why
    assert await program.ask() == "v3"


async def test_the_gate_finds_the_line_with_the_projects_own_interpreter(program: Any) -> None:
    supervisor = with_pack(program)
    await supervisor.open()
    staged = program.home / "staged.py"
    staged.write_text("a = 1\ndef x(:\n")
    wrong = await supervisor.gate([("ver.py", str(staged)), ("notes.txt", str(staged))])
    assert [(one.path, one.line) for one in wrong] == [("ver.py", 2)]
    # A worker that was killed is started again for the next question.
    os.kill(supervisor.status()["warm"]["worker"], signal.SIGKILL)
    wrong = await supervisor.gate([("ver.py", str(staged))])
    assert [(one.path, one.line) for one in wrong] == [("ver.py", 2)]
    staged.write_text("a = 1\n")
    assert await supervisor.gate([("ver.py", str(staged))]) == ()


async def test_a_gate_does_not_wait_for_what_the_first_parent_imports(
        program: Any, helpers: Any) -> None:
    library = program.home / "library"
    library.mkdir(parents=True)
    (library / "slow_to_import.py").write_text("import time\ntime.sleep(600)\n")
    supervisor = with_pack(program, env={"PYTHONPATH": str(library)})
    supervisor._warm.learn(["slow_to_import"])
    await supervisor.open()
    assert (await program.reload(supervisor, 1)).ok
    mark = supervisor._service._mark + "-w"
    await helpers.until(lambda: len(helpers.marked(mark)) == 2)
    program.write(ver="V = = 'v2'\n")
    wrong = await asyncio.wait_for(supervisor.gate([("ver.py", str(program.root / "ver.py"))]), 30)
    assert [one.path for one in wrong] == ["ver.py"]


async def test_a_spare_that_is_stuck_costs_a_cold_start_and_is_said(
        program: Any, helpers: Any) -> None:
    supervisor = with_pack(program)
    await warm_up(program, helpers, supervisor)
    spare = supervisor.status()["warm"]["spare"]
    os.kill(spare, signal.SIGSTOP)
    await helpers.until(lambda: getattr(procfs.read_stat(spare), "state", "Z") in "TZ")
    program.write(ver="V = 'v2'\n")
    done = await program.reload(supervisor, 2, Rung.WARM)
    assert (done.ok, done.rung) == (True, Rung.COLD)
    assert "the child that was forked ahead is stuck" in done.why
    assert await program.ask() == "v2"
    await helpers.until(lambda: not procfs.is_alive(spare, -1)
                        and not os.path.exists(f"/proc/{spare}"))


async def test_a_spare_that_has_died_is_replaced_by_another(program: Any, helpers: Any) -> None:
    supervisor = with_pack(program)
    await warm_up(program, helpers, supervisor)
    spare = supervisor.status()["warm"]["spare"]
    os.kill(spare, signal.SIGKILL)
    await helpers.until(lambda: not procfs.is_alive(spare, -1))
    program.write(ver="V = 'v2'\n")
    done = await program.reload(supervisor, 2, Rung.WARM)
    assert (done.ok, done.rung) == (True, Rung.WARM), done.why
    assert await program.ask() == "v2"
    await helpers.until(lambda: not os.path.exists(f"/proc/{spare}"))


async def test_a_parent_that_was_killed_is_prepared_anew_after_the_save_that_it_misses(
        program: Any, helpers: Any) -> None:
    supervisor = with_pack(program)
    await warm_up(program, helpers, supervisor)
    os.kill(supervisor.status()["warm"]["worker"], signal.SIGKILL)
    program.write(ver="V = 'v2'\n")
    assert (await program.reload(supervisor, 2, Rung.WARM)).rung is Rung.WARM
    await helpers.until(lambda: supervisor.status()["warm"]["ready"], 12)
    program.write(ver="V = 'v3'\n")
    assert (await program.reload(supervisor, 3, Rung.WARM)).rung is Rung.WARM
    assert supervisor.status()["warm"]["refused"] is None


async def test_a_parent_that_was_killed_between_two_saves_is_prepared_anew_at_once(
        program: Any, helpers: Any, fast_clock: Any) -> None:
    supervisor = with_pack(program, clock=fast_clock, start_timeout=400.0)
    await warm_up(program, helpers, supervisor)
    for _ in range(2):
        killed = supervisor.status()["warm"]["worker"]
        os.kill(killed, signal.SIGKILL)
        await helpers.until(lambda: supervisor.status()["warm"]["worker"] not in (None, killed)  # noqa: B023
                            and supervisor.status()["warm"]["ready"], 12)
    await supervisor.stop()
    assert program.marked() == []


async def test_a_spare_that_is_only_late_is_waited_for(program: Any, helpers: Any) -> None:
    supervisor = with_pack(program)
    await warm_up(program, helpers, supervisor)
    spare = supervisor.status()["warm"]["spare"]
    os.kill(spare, signal.SIGSTOP)
    await helpers.until(lambda: getattr(procfs.read_stat(spare), "state", "Z") == "T")
    asyncio.get_running_loop().call_later(0.5, os.kill, spare, signal.SIGCONT)
    done = await program.reload(supervisor, 2, Rung.WARM)
    assert (done.ok, done.rung) == (True, Rung.WARM), done.why
    assert supervisor.status()["pid"] == spare


async def test_a_changed_environment_is_not_served_from_an_old_parent(
        program: Any, helpers: Any) -> None:
    (program.root / ".env").write_text("WORD=one\n")
    program.write(ver="import os\nV = os.environ['WORD']\n")
    supervisor = with_pack(program, env_files=(".env",))
    await supervisor.open()
    assert (await program.reload(supervisor, 1)).ok
    await helpers.until(lambda: supervisor.status()["warm"]["ready"], 12)
    (program.root / ".env").write_text("WORD=two\n")
    done = await program.reload(supervisor, 2, Rung.WARM)
    assert (done.ok, done.rung) == (True, Rung.COLD)
    assert "environment has changed" in done.why
    assert await program.ask() == "two"
    await helpers.until(lambda: supervisor.status()["warm"]["ready"], 12)
    done = await program.reload(supervisor, 3, Rung.WARM)
    assert (done.rung, await program.ask()) == (Rung.WARM, "two")


async def test_a_crashed_program_is_started_again_warm(
        program: Any, helpers: Any, fast_clock: Any) -> None:
    supervisor = with_pack(program, clock=fast_clock, start_timeout=400.0)
    await warm_up(program, helpers, supervisor)
    os.kill(supervisor.status()["pid"], signal.SIGKILL)
    assert await program.ask() == "v1"
    assert supervisor.status()["rung"] == "warm"


async def test_a_broken_warm_version_is_rolled_back_with_its_line(
        program: Any, helpers: Any) -> None:
    supervisor = with_pack(program)
    await warm_up(program, helpers, supervisor)
    program.write(ver="V = 'v2'\nimport nope\n")
    broken = await program.reload(supervisor, 2, Rung.WARM)
    assert (broken.ok, broken.rung) == (False, Rung.WARM)
    assert (broken.error.path, broken.error.line) == ("ver.py", 2)
    assert await program.ask() == "v1"


async def test_a_fork_that_segfaults_is_tried_cold(program: Any, helpers: Any) -> None:
    """Some libraries do not survive a fork; a new interpreter may."""
    supervisor = with_pack(program)
    await warm_up(program, helpers, supervisor)
    program.write(ver="import os, signal\n"
                      "if 'worker' in open('/proc/self/cmdline').read():\n"
                      "    os.kill(os.getpid(), signal.SIGSEGV)\n"
                      "V = 'v2'\n")
    done = await program.reload(supervisor, 2, Rung.WARM)
    assert (done.ok, done.rung) == (True, Rung.COLD), done.error
    assert "SIGSEGV" in done.why
    assert await program.ask() == "v2"


async def test_what_a_warm_version_forks_off_ends_with_it_and_spares_do_not(
        program: Any, helpers: Any, tmp_path: Path) -> None:
    """Without an exec the kernel shows the parent's environment: the mark can't tell them."""
    supervisor = with_pack(program)
    await warm_up(program, helpers, supervisor)
    daemon = ("import os, time\n"
              "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
              f"        open({str(tmp_path)!r} + '/daemon', 'w').write(str(os.getpid()))\n"
              "        time.sleep(600)\n    os._exit(0)\nos.wait()\n")
    program.write(ver=daemon + "V = 'v2'\n")
    assert (await program.reload(supervisor, 2, Rung.WARM)).rung is Rung.WARM
    pid = int((tmp_path / "daemon").read_text())
    assert procfs.read_stat(pid) is not None
    await helpers.until(lambda: supervisor.status()["warm"]["ready"])
    program.write(ver="V = 'v3'\n")
    done = await program.reload(supervisor, 3, Rung.WARM)
    assert done.rung is Rung.WARM, done.why
    await helpers.until(lambda: getattr(procfs.read_stat(pid), "state", "Z") == "Z")
    await helpers.until(lambda: supervisor.status()["warm"]["ready"])


async def test_the_programs_own_writes_are_known(program: Any, helpers: Any) -> None:
    supervisor = with_pack(program)
    program.write(ver="V = 'v1'\nopen('state.json', 'w').write('{}')\n")
    await supervisor.open()
    assert (await program.reload(supervisor, 1)).ok
    await helpers.until(lambda: supervisor.wrote("state.json", 0.0))
    assert not supervisor.wrote("ver.py", 0.0)
