from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.errors import ProgramError, ProtocolError
from hyperbox_agent.supervise.config import AppConfig
from hyperbox_agent.supervise.launch import (
    Surroundings,
    env_stamps,
    is_settled,
    parse_env,
    plan_launch,
    program_env,
    working_dir,
)
from hyperbox_agent.supervise.learned import LearnedModules
from hyperbox_agent.supervise.records import Record, Records, load, remove, save
from hyperbox_agent.supervise.warm import differs
from hyperbox_agent.supervise.writes import Writes
from hyperbox_langpacks.base import Command, Detection, LaunchSpec, Rung

FOUND = Detection("none", Command(("prog",)), "a test", 1.0)


def test_a_config_survives_the_link() -> None:
    config = AppConfig(command=("python3", "app.py"), port=8000, env={"A": "1"},
                       env_files=(".env",), rung=Rung.WARM, overlap=False, ready="up .*",
                       pre=("make", ("a", "b")), notify=("*.css",))
    assert AppConfig.from_json(config.as_json()) == config
    shell = AppConfig(command="a | b", post=("true",))
    assert AppConfig.from_json(shell.as_json()) == shell
    assert AppConfig.from_json({"pre": "make all"}).pre == ("make all",)


@pytest.mark.parametrize(("data", "key"), [
    ({"colour": 1}, "colour"), ({"port": "80"}, "port"), ({"port": 70000}, "port"),
    ({"command": []}, "command"), ({"command": ["a", 1]}, "command"), ({"drain": -1}, "drain"),
    ({"drain": True}, "drain"), ({"ready": "("}, "ready"), ({"rung": "hot"}, "rung"),
    ({"env": {"A": 1}}, "env"), ({"command": "a\0b"}, "command"), ({"tty": 1}, "tty"),
])
def test_a_bad_config_names_its_key(data: dict[str, Any], key: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        AppConfig.from_json(data)
    assert caught.value.key == key


def test_versions_overlap_where_there_is_a_port_unless_told_otherwise() -> None:
    assert AppConfig(port=1).overlaps
    assert not AppConfig().overlaps
    assert not AppConfig(port=1, overlap=False).overlaps
    assert AppConfig(overlap=True).overlaps


def test_env_files() -> None:
    text = ("# c\n\nA=1\nexport B = two words # c\nC='a #b'\nD=\"x\\ny \\\"q\\\"\" # c\n"
            "E=\nF=a#b\nG=\"a=b\"\n")
    assert parse_env(text) == {"A": "1", "B": "two words", "C": "a #b", "D": 'x\ny "q"',
                               "E": "", "F": "a#b", "G": "a=b"}
    for bad in ("nonsense", "A='open", "1A=2"):
        with pytest.raises(ProgramError) as caught:
            parse_env(f"OK=1\n{bad}", "x.env")
        assert (caught.value.file, caught.value.line) == ("x.env", 2)


def test_whose_variables_win(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\n")
    config = AppConfig(env={"B": "config"}, env_files=(".env",))
    env = program_env(config, str(tmp_path),
                      {"A": "agent", "Z": "agent", "HYPERBOX_NUMBER": "9", "PYTHONPATH": "u:s"},
                      {"PYTHONPATH": "s"})
    assert env == {"A": "file", "B": "config", "Z": "agent", "PYTHONPATH": "s:u"}
    with pytest.raises(ProgramError, match="can't be read"):
        program_env(AppConfig(env_files=("no.env",)), str(tmp_path), {}, {})


def test_a_program_that_is_not_mapped_is_given_a_private_port(tmp_path: Path) -> None:
    here = Surroundings(7, str(tmp_path), "m", "/c", 8000, "/peers", "/code")
    spec = LaunchSpec(("prog", "--port={port}"), {}, port_mapped=False)
    plan = plan_launch(AppConfig(port=8000), spec, FOUND, here, {})
    assert plan.backend is not None
    private = str(plan.backend[1])
    assert private != "8000"
    assert plan.spawn.argv == ("prog", f"--port={private}")
    assert plan.spawn.env["PORT"] == private
    mapped = plan_launch(AppConfig(port=8000), LaunchSpec(("prog", "{port}"), {}, True), FOUND,
                         here, {})
    assert mapped.backend is None
    assert mapped.spawn.argv == ("prog", "8000")
    assert mapped.spawn.env["HYPERBOX_PUBLIC_PORT"] == mapped.spawn.env["PORT"] == "8000"
    assert mapped.spawn.env["HYPERBOX_INSTANCE"] == "m"


def test_the_folder_to_start_in_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").symlink_to("/")
    root = str(tmp_path)
    assert working_dir(AppConfig(cwd="in"), FOUND, root) == os.path.join(root, "in")
    for bad in ("..", "out", "/etc", "in/../.."):
        with pytest.raises(ProgramError):
            working_dir(AppConfig(cwd=bad), FOUND, root)


def test_what_is_learned_is_kept_and_a_damaged_file_is_learned_again(tmp_path: Path) -> None:
    path = str(tmp_path / "learned.json")
    learned = LearnedModules(path)
    assert learned.add("/py", ["b", "a"]) == 2
    assert learned.add("/py", ["a", "c"]) == 1
    assert LearnedModules(path).of("/py") == ("b", "a", "c")
    assert LearnedModules(path).of("/other") == ()
    Path(path).write_text("{")
    assert LearnedModules(path).of("/py") == ()
    Path(path).write_text('{"/py": "abc", "/q": [1, "x"]}')
    assert LearnedModules(path).of("/q") == ("x",)
    assert os.listdir(tmp_path) == ["learned.json"]


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    path = str(tmp_path / "instances.json")
    assert load(path) is None
    records = Records({"port": 1}, 3, 7, 9,
                      (Record(7, 3, 11, 22, "m", "/r", 3, "p", "/c", ("127.0.0.1", 5), 200),),
                      (Record(0, 0, 1, 2, ""),))
    save(path, records)
    assert load(path) == records
    assert os.stat(path).st_mode & 0o777 == 0o600
    Path(path).write_text('{"version": 1, "app": {}}')
    assert load(path) is None
    remove(path)
    remove(path)


def test_the_programs_own_writes_are_known_by_path_and_time() -> None:
    writes = Writes()
    writes.add(["a"], 10.0)
    assert writes.wrote("a", 9.0)
    assert not writes.wrote("a", 11.0)
    assert not writes.wrote("b", 0.0)
    writes.add([f"f{n}" for n in range(10_000)], 20.0)
    assert not writes.wrote("a", 0.0)


def test_environments_that_a_prepared_parent_would_notice() -> None:
    assert not differs({"A": "1", "PORT": "1"}, {"A": "1", "HYPERBOX_X": "2"})
    assert differs({"A": "1"}, {"A": "2"})
    assert differs({}, {"A": "2"})


def test_an_env_file_that_was_just_written_is_read_again(tmp_path: Path) -> None:
    """Within a tick of the clock, one and two seconds on some file systems, a further write of the
    same length changes none of its times."""
    config = AppConfig(env_files=(".env", "none.env"))
    (tmp_path / ".env").write_text("A=1")
    assert not is_settled(env_stamps(config, str(tmp_path)))
    assert is_settled([None, (1, 3, 0, 0)])
    assert not is_settled([(1, 3, 0, 0), (2, 3, 0, time.time_ns() + 10**12)])
