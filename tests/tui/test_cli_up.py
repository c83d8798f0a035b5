"""`up` as a person or a script sees it, through real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hyperbox_devcontainer.paths import find_project, session_socket

# The type of the fixture is in conftest.py, which tests can't import.
Played = Any


def test_up_says_what_it_runs_why_and_where_it_answers(played: Played) -> None:
    with played.up():
        said = played.wait_said("http://")
    first, *rest = said.splitlines()
    assert first == "◐ shop  python3 app.py  hyperbox.toml:2"
    assert rest == ["● #1 started 321 ms  3 files", "● live #1  http://127.0.0.1:8000"]


def test_up_tells_each_generation_in_one_line(played: Played) -> None:
    with played.up():
        played.emit(event="generation", number=42, verdict="committed", rung="warm", files=5,
                    ms={"total": 31.4}, paths=["app.py", "b.py", "c.py", "d.py"])
        said = played.wait_said("#42")
    assert "● #42 warm restart 31 ms  5 files  app.py, b.py, c.py, …" in said


def test_up_shows_a_broken_save_with_its_line_and_who_serves(
        played: Played, broken_generation: dict[str, Any]) -> None:
    with played.up():
        played.emit(**broken_generation)
        said = played.wait_said("is serving")
    assert said.splitlines()[-4:] == [
        "✖ #2 gate  app.py:3:8  SyntaxError: '(' was never closed",
        "    3 | broken( here",
        "      |       ^",
        "    rolled back: #1 is serving"]


def test_up_tells_states_that_matter_and_not_those_that_do_not(played: Played) -> None:
    with played.up():
        for state in ("live", "offline", "offline", "live", "broken"):
            played.emit(event="state", state=state, number=1, url="http://127.0.0.1:8000",
                        error=None)
        said = played.wait_said("nothing answers")
    assert said.count("offline, saves wait") == 1
    assert said.count("live #1") == 2


def test_up_says_when_the_files_are_again_what_answers(
        played: Played, broken_generation: dict[str, Any]) -> None:
    live = {"event": "state", "state": "live", "number": 1, "url": "http://127.0.0.1:8000"}
    with played.up():
        played.emit(**live, error=None)
        played.emit(**broken_generation)
        played.emit(**live, error=broken_generation["error"])
        played.emit(**live, error=None)
        played.emit(**live, error=None)
        played.emit(event="log", stream="stdout", number=1, text="end")
        said = played.wait_said("end")
    assert said.count("● #1 is what the files say again") == 1


def test_up_json_gives_every_event_as_one_line(played: Played,
                                               broken_generation: dict[str, Any]) -> None:
    with played.up("--json"):
        played.emit(**broken_generation)
        played.emit(event="log", stream="stdout", number=1, text="\x1b[31mred\x1b[0m b\udcff")
        said = played.wait_said("red")
    events = [json.loads(line) for line in said.splitlines()]
    assert [event["event"] for event in events] == ["state", "generation", "state", "generation",
                                                    "log"]
    assert {event["project"] for event in events} == {"shop"}
    assert events[-2]["error"]["path"] == "app.py"
    assert events[-1]["text"] == "red b\\xff"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_bring_everything_down(played: Played, number: int) -> None:
    with played.up() as up:
        up.send_signal(number)
        assert up.wait(60) == 0
    assert played.asked()[-1] == {"asked": "stop", "fast": False}
    assert not os.path.exists(session_socket(find_project(str(played.folder)), os.environ))


def test_a_second_ctrl_c_hurries_it(played: Played) -> None:
    with played.up() as up:
        played.play(answer={"stop": "hang"})
        up.send_signal(signal.SIGINT)
        played.wait_asked(asked="stop", fast=False)
        assert "Ctrl-C again" in played.wait_said("going down")
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
    played.wait_asked(asked="stop", fast=True)


def test_a_session_that_can_not_even_be_hurried_is_ended_from_outside(played: Played) -> None:
    with played.up() as up:
        played.play(answer={"stop": "stuck"})
        up.send_signal(signal.SIGINT)
        played.wait_asked(asked="stop")
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
    assert played.asked()[-1]["asked"] == "down"


def test_a_lost_terminal_only_detaches(played: Played) -> None:
    with played.up() as up:
        up.send_signal(signal.SIGHUP)
        assert up.wait(60) == 0
    assert [one["asked"] for one in played.asked()] == ["detach"]


def test_nohup_is_respected(played: Played) -> None:
    script = 'trap "" HUP; exec "$@"'
    with open(played.out, "wb") as out, subprocess.Popen(
            ["sh", "-c", script, "sh", *played.argv("up"), "up"], cwd=played.folder, stdout=out,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=played.environ) as up:
        played.wait_said("live")
        up.send_signal(signal.SIGHUP)
        assert played.json("status")["projects"][0]["targets"]
        up.terminate()
        assert up.wait(60) == 0
    assert [one["asked"] for one in played.asked()] == ["stop"]


def test_who_reads_up_and_goes_brings_it_down(played: Played) -> None:
    with subprocess.Popen([*played.argv("up"), "up", "--json"], cwd=played.folder,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=played.environ) as up:
        assert up.stdout is not None
        assert up.stderr is not None
        up.stdout.readline()
        up.stdout.close()
        played.emit(event="log", stream="stdout", number=1, text="x")
        assert up.wait(60) == 0
        assert up.stderr.read() == b""
    assert played.asked()[-1]["asked"] == "stop"


def test_who_reads_up_too_slowly_holds_nothing_up_and_is_told(played: Played) -> None:
    with subprocess.Popen([*played.argv("up"), "up"], cwd=played.folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, env=played.environ) as up:
        assert up.stdout is not None
        up.stdout.readline()
        played.play(emit={"event": "log", "stream": "stdout", "number": 1, "text": "x" * 200},
                    times=30_000)
        played.wait_asked(asked="flood ended")
        assert played.run("flush").returncode == 0
        up.send_signal(signal.SIGINT)
        text = up.stdout.read().decode()
        assert up.wait(60) == 0
    assert "lines not shown" in text


def test_up_twice_says_who_has_it(live: Played) -> None:
    done = live.outside("up")
    assert done.returncode == 1
    assert f"is up already (process {live.pid})" in done.stderr.decode()
    assert live.json("status")["projects"][0]["session"] == {"pid": live.pid}


def test_up_in_a_folder_without_a_program_is_wrong_input(played: Played, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = played.run("up", cwd=tmp_path / "empty")
    assert done.returncode == 2
    assert "found" in done.stderr.decode()
    assert "[app] command" in done.stderr.decode()


def test_a_session_that_can_not_open_says_why(played: Played) -> None:
    done = played.outside("up", DOUBLE_OPEN="fail")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "hyperbox: app.py:3: the target is on fire", "  pour water"]


def test_ctrl_c_before_the_session_is_open_leaves_nothing(played: Played) -> None:
    with played.up(wait=False, DOUBLE_OPEN="hang") as up:
        played.wait_asked(asked="opening")
        assert played.json("status")["projects"][0]["targets"][0]["state"] == "starting"
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
    assert [one["asked"] for one in played.asked()][-2:] == ["open cancelled", "down"]


def test_a_session_that_dies_ends_up_with_its_reason(played: Played) -> None:
    with played.up() as up:
        played.play(die="the root vanished")
        assert up.wait(60) == 1
    assert played.said().splitlines()[-2:] == ["hyperbox: the root vanished", "  look at it"]


def test_what_is_typed_goes_to_the_program_where_it_is_wanted(played: Played) -> None:
    (played.folder / "hyperbox.toml").write_text('[app]\ncommand = "x"\nstdin = true\n')
    reader, writer = os.pipe()
    with played.up(stdin=reader):
        os.close(reader)
        os.write(writer, b"hello\n")
        played.wait_asked(asked="feed", text="hello\n")
        os.close(writer)
        assert played.run("flush").returncode == 0


@pytest.mark.parametrize("stdin", ["null", "closed", "pipe"])
def test_b37_standard_input_at_its_end_stops_and_spins_nothing(played: Played,
                                                               stdin: str) -> None:
    command = {"null": "exec \"$@\" </dev/null", "closed": "exec \"$@\" <&-",
               "pipe": ": | \"$@\""}[stdin]
    with open(played.out, "wb") as out, subprocess.Popen(
            ["bash", "-c", command, "bash", *played.argv("up"), "up"], cwd=played.folder,
            stdout=out, stderr=subprocess.STDOUT, env=played.environ) as shell:
        played.wait_said("live")
        pid = played.json("status")["projects"][0]["session"]["pid"]
        ticks = cpu_ticks(pid)
        time.sleep(0.3)
        assert cpu_ticks(pid) - ticks <= 10
        os.kill(pid, signal.SIGTERM)
        shell.wait(60)
    assert not [one for one in played.asked() if one["asked"] == "feed"]


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
