"""Every other verb as a person or a script sees it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hyperbox_devcontainer.history import History
from hyperbox_devcontainer.paths import find_project, history_file, project_home, session_socket

PATIENCE = 30.0
# The type of the fixture is in conftest.py, which tests can't import.
Played = Any


# down


def test_down_ends_it_through_the_session(played: Played) -> None:
    with played.up() as up:
        assert played.outside("down").stdout.decode() == "○ shop is down\n"
        assert up.wait(60) == 0
    assert [one["asked"] for one in played.asked()] == ["stop"]
    assert played.outside("down").stdout == b"shop: nothing was up\n"


def test_b12_down_works_on_a_session_that_does_not_answer(played: Played) -> None:
    with played.up() as up:
        up.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        status = played.run("status")
        assert time.monotonic() - began < 20
        assert status.returncode == 0
        assert "does not answer" in status.stdout.decode()
        flush = played.run("flush", "--timeout", "1")
        assert flush.returncode == 1
        assert f"process {up.pid}) does not answer" in flush.stderr.decode()
        down = played.outside("down", "--timeout", "1")
        assert down.returncode == 0
        assert up.wait(60) in (0, -signal.SIGKILL)


def test_down_without_a_session_ends_what_a_lost_one_left(played: Played) -> None:
    with played.up():
        pass  # killed hard
    os.makedirs(project_home(find_project(str(played.folder)), os.environ))
    done = played.outside("down", DOUBLE_DOWN="something")
    assert done.stdout.decode() == "○ shop is down\n"


def test_down_that_stands_still_has_its_limit(played: Played) -> None:
    with played.up() as up:
        played.play(answer={"stop": "stuck"})
        assert played.outside("down", "--timeout", "0.5").returncode == 0
        assert up.wait(60) == -signal.SIGKILL


# status


def test_status_without_anything_says_so_and_succeeds(played: Played) -> None:
    assert "nothing is up: hyperbox up" in played.text("status")
    assert played.json("status") == {"hub": {"running": False}, "projects": [
        {"name": "shop", "path": str(played.folder), "targets": [], "session": None}]}
    assert played.text("status", "--all") == "Nothing is up.\n"


def test_status_says_what_runs(live: Played) -> None:
    assert live.text("status").splitlines()[1] == \
        "  process  ● live  #1  cold restart  http://127.0.0.1:8000"
    (project,) = live.json("status")["projects"]
    assert project["session"] == {"pid": live.pid}
    assert set(project["targets"][0]) >= {"name", "kind", "state", "number", "rung", "url",
                                          "pid", "pending", "error"}
    assert live.json("status", "--all")["projects"] == [project]


def test_status_says_what_was_rolled_back_until_the_next_save(
        live: Played, broken_generation: dict[str, Any]) -> None:
    live.play(target={"error": broken_generation["error"], "pending": 1})
    assert live.text("status").splitlines()[1:] == [
        "  process  ✖ rolled back  #1  cold restart  http://127.0.0.1:8000",
        "  ✖ gate app.py:3:8  SyntaxError: '(' was never closed",
        "    #1 is serving"]


def test_b12_status_says_that_the_target_is_gone(live: Played) -> None:
    live.play(target={"state": "offline", "pending": 2})
    said = live.text("status")
    assert "! offline" in said
    assert "saves are waiting: 2" in said


def test_verbs_find_the_session_from_a_folder_inside_the_project(live: Played) -> None:
    inside = live.folder / "a" / "b"
    inside.mkdir(parents=True)
    done = live.run("status", cwd=inside)
    assert b"live" in done.stdout
    done = live.run("status", ".", "--json", cwd=inside)
    assert json.loads(done.stdout)["projects"][0]["name"] == "shop"
    done = live.run("status", str(inside), cwd=inside)
    assert b"nothing is up" in done.stdout


def test_hyperbox_alone_says_what_is_up_or_where_to_begin(played: Played) -> None:
    assert "hyperbox demo" in played.text()
    with played.up():
        assert "● live" in played.text()


# flush, rollback, restart, pause


def test_flush_tells_how_the_newest_save_ended(live: Played,
                                               broken_generation: dict[str, Any]) -> None:
    done = live.run("flush")
    assert (done.returncode, done.stdout.decode()) == (0, "● #1 is live\n")
    live.play(answer={"flush": {"ms": 1, "targets": [
        {"name": "process", "number": 3, "verdict": "committed", "serving": 1, "error": None}]}})
    assert live.text("flush") == "● #1 is live, by a rollback from #3\n"
    live.play(answer={"flush": {"ms": 1, "targets": [
        {"name": "process", "number": 2, "verdict": "rolled_back", "serving": 1,
         "error": broken_generation["error"]}]}})
    done = live.run("flush")
    assert done.returncode == 3
    assert done.stderr.decode().splitlines() == [
        "hyperbox: app.py:3:8: #2 was rolled back: SyntaxError: '(' was never closed",
        "  #1 is serving"]
    done = live.run("flush", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["targets"][0]["number"] == 2


def test_b12_flush_of_a_target_that_is_gone_fails_within_its_limit(live: Played) -> None:
    live.play(answer={"flush": {"raise": "process is gone: its saves wait"}})
    done = live.run("flush")
    assert done.returncode == 1
    assert "process is gone" in done.stderr.decode()


def test_rollback_and_restart_tell_what_went_live(live: Played) -> None:
    assert live.text("rollback", "41") == "● #41 warm restart 20 ms\n"
    live.wait_asked(asked="rollback", number=41)
    assert live.json("restart", "--rung", "cold")["rung"] == "cold"
    live.play(answer={"rollback": {"raise": "there is no older generation",
                                     "hint": "hyperbox history"}})
    done = live.run("rollback")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "hyperbox: there is no older generation", "  hyperbox history"]


def test_pause_and_resume(live: Played) -> None:
    assert "resume" in live.text("pause")
    assert live.json("resume")["name"] == "shop"
    assert [one["asked"] for one in live.asked()] == ["pause", "resume"]


@pytest.mark.parametrize("verb", ["flush", "rollback", "restart", "pause", "resume", "logs"])
def test_verbs_without_a_session_say_so(played: Played, verb: str) -> None:
    done = played.run(verb)
    assert done.returncode == 1
    assert "shop is not up" in done.stderr.decode()
    assert "hyperbox up" in done.stderr.decode()


# logs


def test_logs_give_the_last_lines_with_the_generations_among_them(played: Played) -> None:
    with played.up():
        for number in range(5):
            played.emit(event="log", stream="stdout", number=1, text=f"line {number}")
        played.wait_said("line 4")
        assert played.text("logs", "-n", "2").splitlines() == ["line 3", "line 4"]
        assert [event["text"] for event in map(json.loads, played.text(
            "logs", "--json", "-n", "1").splitlines())] == ["line 4"]
        whole = played.text("logs").splitlines()
    assert whole[0] == "● #1 started 321 ms  3 files"
    assert whole[-5:] == [f"line {number}" for number in range(5)]


def test_b36_logs_follow_over_restarts_until_ctrl_c(live: Played) -> None:
    out = live.folder.parent / "logs.out"
    with open(out, "wb") as file, subprocess.Popen(
            [*live.argv(), "logs", "-f", "-n", "0"], cwd=live.folder, stdout=file,
            env=live.environ) as logs:
        for number in range(2, 5):
            # Sent until it is seen: the follower may not have begun yet.
            while f"#{number} cold" not in out.read_text():
                live.emit(event="generation", number=number, verdict="committed", rung="cold",
                            files=1, ms={"total": 9.0}, paths=["app.py"])
                time.sleep(0.05)
            live.emit(event="log", stream="stdout", number=number, text=f"from {number}")
        deadline = time.monotonic() + 60
        while "from 4" not in out.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        logs.send_signal(signal.SIGINT)
        assert logs.wait(60) == 0
    said = [line for line in out.read_text().splitlines() if "from" in line]
    assert said == ["from 2", "from 3", "from 4"]


def test_logs_that_follow_end_with_the_session(played: Played) -> None:
    with played.up() as up, subprocess.Popen(
            [*played.argv(), "logs", "-f"], cwd=played.folder, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=played.environ) as logs:
        assert logs.stdout is not None
        logs.stdout.readline()
        up.terminate()
        assert logs.wait(60) == 0


# exec


def test_exec_passes_bytes_and_the_status_through(live: Played) -> None:
    data = bytes(range(256)) * 5000
    done = live.outside("exec", "-i", "--", "cat", stdin=data)
    assert done.stdout == data
    done = live.outside("exec", "--", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, b"out\n", b"err\n")
    assert live.outside("exec", "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert live.outside("exec", "--", "cat", stdin=b"not sent").stdout == b""
    assert live.outside("exec", "--", "sh", "-c", "read x; echo $?").stdout == b"1\n"


def test_exec_of_nothing_and_of_a_terminal_where_none_is(played: Played) -> None:
    done = played.run("exec")
    assert (done.returncode, done.stderr.decode().splitlines()[0]) == (
        2, "hyperbox: exec: say what to run")
    done = played.run("exec", "-t", "ls")
    assert done.returncode == 2
    assert "-t needs a terminal" in done.stderr.decode()


def test_exec_whose_reader_goes_ends_its_command(live: Played) -> None:
    script = f'{" ".join(live.argv())} exec -- yes | head -1'
    subprocess.run(["bash", "-c", script], cwd=live.folder, env=live.environ,
                   capture_output=True, timeout=20, check=True)
    live.wait_asked(asked="exec closed")


def test_a_signal_reaches_the_command_of_exec(live: Played) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.02; done"
    with subprocess.Popen([*live.argv(), "exec", "--", "sh", "-c", script],
                                       cwd=live.folder, stdout=subprocess.PIPE,
                                       env=live.environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(60) == 9
        assert process.stdout.read() == b"caught\n"


def test_much_input_goes_through_a_command_that_answers_as_it_reads(live: Played) -> None:
    data = bytes(range(256)) * 60_000
    done = live.outside("exec", "-i", "--", "cat", stdin=data)
    assert done.stdout == data


def test_a_signal_does_not_wait_behind_input_that_nobody_reads(live: Played) -> None:
    with exec_with_input_full(live) as process:
        process.terminate()
        assert process.wait(PATIENCE) == 143


def test_a_signal_does_not_wait_behind_output_that_nobody_reads(live: Played) -> None:
    with exec_of(live, "--", "sh", "-c", "echo $$; exec yes") as process:
        assert process.stdout is not None
        command = int(process.stdout.readline())
        time.sleep(0.5)  # all on the way is full by then; if not, this tests less, and passes
        process.terminate()
        deadline = time.monotonic() + PATIENCE
        while os.path.exists(f"/proc/{command}"):
            assert time.monotonic() < deadline, "it runs on"
            time.sleep(0.02)
        process.stdout.read()
        assert process.wait(PATIENCE) == 143


def test_a_client_that_is_killed_with_its_input_full_ends_its_command(live: Played) -> None:
    with exec_with_input_full(live) as process:
        process.kill()
        live.wait_asked(asked="exec closed")


@contextmanager
def exec_of(live: Played, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """`exec` in the background; killed at the end, if it still is there."""
    with subprocess.Popen([*live.argv(), "exec", *words], cwd=live.folder, env=live.environ,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def exec_with_input_full(live: Played) -> Iterator[subprocess.Popen[bytes]]:
    """A command that reads nothing, with all of its standard input's way full."""
    with exec_of(live, "-i", "--", "sh", "-c", "echo on; exec sleep 99") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"on\n"
        os.set_blocking(process.stdin.fileno(), False)
        fill(process.stdin.fileno())
        yield process


def fill(descriptor: int) -> None:
    """Write until nothing has been taken for a while: everything on the way is full."""
    full_since = time.monotonic()
    while time.monotonic() - full_since < 0.5:
        try:
            os.write(descriptor, bytes(65536))
            full_since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)


# history, config, doctor, help


def test_history_needs_no_session(played: Played, broken_generation: dict[str, Any]) -> None:
    assert "no history yet" in played.text("history")
    history = History(history_file(find_project(str(played.folder)), os.environ))
    history.append({"event": "generation", "number": 1, "verdict": "committed", "rung": "patch",
                    "files": 2, "ms": {"total": 48.0}, "target": "process", "time": time.time(),
                    "paths": ["a.py"]})
    history.append({**broken_generation, "target": "process"})
    history.close()
    rows = played.text("history").splitlines()
    assert rows[1].startswith("#2")
    assert "✖ gate app.py:3:8 SyntaxError" in rows[1]
    assert "in-process patch" in rows[2]
    assert [one["number"] for one in played.json("history")["generations"]] == [2, 1]
    assert len(played.json("history", "-n", "1")["generations"]) == 1


def test_config_tells_every_value_and_its_origin(played: Played) -> None:
    said = played.text("config", HYPERBOX_RELOAD_DRAIN="1")
    assert 'app.command' in said
    assert "hyperbox.toml:2" in said
    assert "environment (HYPERBOX_RELOAD_DRAIN)" in said
    values = played.json("config")["values"]
    assert values["app.command"] == {"value": ["python3", "app.py"], "origin": "file",
                                     "where": "hyperbox.toml:2"}
    assert values["app.grace"]["origin"] == "default"


def test_wrong_configuration_is_exit_2_with_every_place_and_changes_nothing(
        played: Played) -> None:
    (played.folder / "hyperbox.toml").write_text("[app]\ncomand = 'x'\nport = 0\n")
    for verb in ("up", "config"):
        done = played.run(verb)
        assert done.returncode == 2
        assert done.stderr.decode().splitlines() == [
            "hyperbox: hyperbox.toml:2:1: unknown key `comand`", "  did you mean `command`?",
            "hyperbox: hyperbox.toml:3:1: `app.port` must be a port number from 1 to 65535, not 0"]
    done = played.run("config", "--json")
    assert [error["line"] for error in json.loads(done.stdout)["errors"]] == [2, 3]
    assert not list(Path(os.environ["HOME"]).rglob("*"))


def test_doctor_says_what_it_saw(played: Played) -> None:
    (played.folder / "hyperbox.toml").write_text('[app]\ncommand = ["python3", "app.py"]\n')
    findings = played.json("doctor")["findings"]
    probed = {finding["probed"] for finding in findings}
    assert {"hyperbox", "locale", "state", "sockets", "watcher", "git", "project"} <= probed
    assert set(findings[0]) == {"probed", "verdict", "found", "mend"}
    assert "✓ hyperbox: " in played.text("doctor")


def test_b26_doctor_names_who_has_the_port(played: Played) -> None:
    import socket
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (played.folder / "hyperbox.toml").write_text(
            f'[app]\ncommand = ["python3", "app.py"]\nport = {taken.getsockname()[1]}\n')
        done = played.run("doctor", "--json")
    assert done.returncode == 1
    (finding,) = [one for one in json.loads(done.stdout)["findings"] if one["probed"] == "port"]
    assert finding["verdict"] == "bad"
    assert f"process {os.getpid()}" in finding["found"]


def test_help_and_version(played: Played) -> None:
    assert "usage: hyperbox VERB" in played.text("--help")
    assert "--rung RUNG" in played.text("restart", "--help")
    assert played.text("help", "up") == played.text("up", "-h")
    assert played.text("--version").startswith("hyperbox 0.")


def test_the_wrong_words_are_exit_2_with_the_near_miss(played: Played) -> None:
    done = played.run("staus")
    assert (done.returncode, done.stderr.decode()) == (
        2, "hyperbox: unknown verb 'staus'\n  did you mean `hyperbox status`?\n")
    done = played.run("status", "--jsn")
    assert done.returncode == 2
    done = played.run("status", "nowhere")
    assert done.returncode == 2
    assert "nowhere: there is no such folder" in done.stderr.decode()


def test_output_into_a_pipe_that_is_closed_is_quiet(played: Played) -> None:
    script = f'{" ".join(played.argv())} --help | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=played.environ,
                          timeout=20, check=True)
    assert done.stderr == b""
    assert done.stdout in (b"0\n", b"141\n")


def test_the_socket_is_the_owners_alone(live: Played) -> None:
    path = session_socket(find_project(str(live.folder)), live.environ)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
