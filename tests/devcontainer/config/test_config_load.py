"""From a project's file, environment and flags to one configuration, or to all that is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.supervise.config import AppConfig
from hyperbox_devcontainer.config import Config, load
from hyperbox_devcontainer.config.model import Detected
from hyperbox_devcontainer.config.schema import KEYS
from hyperbox_devcontainer.errors import ConfigError, InputError, WorkstationError
from hyperbox_langpacks.base import Rung

DETECTED = Detected("python", "app.py makes a Flask app", ("flask", "run"), 5000, "/", None)

Load = Callable[..., Config]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    """Load a project whose hyperbox.toml has this text."""

    def with_text(text: str | bytes | None, environ: Mapping[str, str] | None = None,
                  flags: Mapping[str, Any] | None = None, found: Detected | None = None) -> Config:
        if text is not None:
            data = text.encode() if isinstance(text, str) else text
            (tmp_path / "hyperbox.toml").write_bytes(data)
        return load(str(tmp_path), environ or {}, flags, detect=lambda *_: found)

    return with_text


def problems_of(load_text: Load, text: str | bytes, **more: Any) -> tuple[WorkstationError, ...]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, **more)
    return caught.value.problems


def test_a_project_without_a_file_is_all_defaults(load_text: Load) -> None:
    config = load_text(None)
    assert config.file is None
    assert config.app.command is None
    assert config.target.name == "process"
    assert config.target.mode == "in-place"
    assert {origin.kind for origin in config.origins.values()} <= {"default"}


def test_the_default_of_every_key_is_a_value_of_its_kind() -> None:
    for key in KEYS.values():
        if key.default is not None and key.default != "":
            assert key.check(key.default) == key.default, key.dotted


def test_later_words_win_and_every_value_knows_who_said_it(load_text: Load) -> None:
    text = "[app]\nport = 1000\nhealth = '/h'\n[reload]\ndrain = 1\n"
    environ = {"HYPERBOX_APP_PORT": "2000", "HYPERBOX_RELOAD_DRAIN": "2.5"}
    config = load_text(text, environ, {"app.port": 3000}, DETECTED)
    assert config.app.port == 3000
    assert config.origin("app.port").word == "--port"
    assert config.reload.drain == 2.5
    assert config.origin("reload.drain").word == "environment (HYPERBOX_RELOAD_DRAIN)"
    assert config.origin("app.health").word == "hyperbox.toml:3"
    assert config.app.command == ("flask", "run")
    assert config.origin("app.command").word == "detection (app.py makes a Flask app)"
    assert config.origin("app.grace").word == "default"


def test_everything_that_is_said_reaches_the_agent(load_text: Load) -> None:
    config = load_text("""
        [app]
        command = "make run"
        port = 8001
        host = "127.0.0.1"
        health = "/health"
        env = { A = "1", B = 2 }
        cwd = "."
        tty = true
        grace = 1
        start_timeout = 5
        [reload]
        rung = "cold"
        overlap = false
        drain = 0.5
        ready = "listening"
        ready_after = 2
        notify = ["static/**"]
        pre = "make css"
        post = ["echo done", ["touch", "x y"]]
        """)
    app = AppConfig.from_json(config.as_app_config())
    assert app == AppConfig(
        name="app", command="make run", port=8001, host="127.0.0.1", health="/health",
        env={"A": "1", "B": "2"}, cwd="", tty=True, grace=1.0, start_timeout=5.0, rung=Rung.COLD,
        overlap=False, drain=0.5, ready="listening", ready_after=2.0, notify=("static/**",),
        pre=("make css",), post=("echo done", ("touch", "x y")))


def test_a_detected_command_is_left_to_the_agent_that_runs_it(load_text: Load) -> None:
    sent = load_text(None, found=DETECTED).as_app_config()
    assert sent["command"] is None
    assert sent["port"] == 5000
    AppConfig.from_json(sent)


def test_one_named_program_gives_its_name(load_text: Load) -> None:
    config = load_text("[app.web]\ncommand = ['a']\n[app.web.env]\nX = '1'\n")
    assert (config.app.name, config.app.command, config.app.env) == ("web", ("a",), {"X": "1"})


def test_several_named_programs_are_one_clear_error(load_text: Load) -> None:
    (problem,) = problems_of(load_text, "[app.web]\ncommand = 'a'\n[app.worker]\ncommand = 'b'\n")
    assert "2 programs are named (web, worker)" in problem.message
    assert problem.line == 3


def test_several_named_programs_are_checked_all_the_same(load_text: Load) -> None:
    problems = problems_of(load_text, "[app.web]\nport = 0\n[app.worker]\ncomand = 'b'\n")
    assert [problem.line for problem in problems] == [2, 3, 4]


def test_all_problems_are_told_at_once_with_their_places(load_text: Load) -> None:
    problems = problems_of(load_text, "[app]\ncomand = 'x'\nport = '80'\n[snyc]\n\n[reload]\n"
                                      "rung = 'wram'\ndrain = -1\n")
    told = [(problem.line, problem.column, problem.key) for problem in problems]
    assert told == [(2, 1, "app.comand"), (3, 1, "app.port"), (4, 2, "snyc"), (7, 1, "reload.rung"),
                    (8, 1, "reload.drain")]
    assert [problem.hint for problem in problems] == [
        "did you mean `command`?", "write it without quotes", "did you mean `sync`?",
        "did you mean `warm`?", None]
    assert {problem.file for problem in problems} == {"hyperbox.toml"}


WRONG_VALUES = [
    ("app", "command = 3", "a list of arguments, or a string for the shell"),
    ("app", "command = []", "a list that begins with a program, not an empty list"),
    ("app", "command = ['']", "a list that begins with a program"),
    ("app", "command = ['a', 1]", "`app.command[1]` must be text in quotes, not 1"),
    ("app", "command = ' '", "text that is not empty"),
    ("app", "port = true", "a port number from 1 to 65535, not true"),
    ("app", "port = 65536", "a port number from 1 to 65535, not 65536"),
    ("app", "port = 0", "a port number"),
    ("app", "port = 80.5", "a port number"),
    ("app", "host = 'example.org'", "an IP address of this machine"),
    ("app", "health = 'health'", 'a path that begins with "/"'),
    ("app", "health = '/a b'", 'a path that begins with "/"'),
    ("app", "env = 'A=1'", "a table of names and texts"),
    ("app", "env = { A = true }", "`app.env.A` must be text in quotes, not true"),
    ("app", "env = { 'A=B' = '1' }", "a variable's name without = and NUL"),
    ("app", "cwd = '../x'", "a folder below the project's root"),
    ("app", "cwd = '/tmp'", "a folder below the project's root"),
    ("app", "tty = 1", "true or false, not 1"),
    ("app", "grace = '3s'", "a number of seconds"),
    ("app", "grace = nan", "a number of seconds"),
    ("app", "grace = inf", "a number of seconds"),
    ("app", "grace = 1e9", "from 0 to 86400"),
    ("sync", "ignore = 'x'", "a list of patterns"),
    ("sync", "mode = 'two-way'", "in-place or mirror"),
    ("reload", "ready = '('", "a regular expression"),
    ("reload", "pre = [[]]", "`reload.pre[0]` must be a list that begins with a program"),
    ("target.a", "kind = 'ssh'", "a kind of target that exists: process, not 'ssh'"),
    ("target.a", "path = 'x'", "an absolute path"),
]


@pytest.mark.parametrize(("section", "line", "expected"), WRONG_VALUES)
def test_a_value_of_the_wrong_kind_says_what_is_wanted(load_text: Load, section: str, line: str,
                                                       expected: str) -> None:
    (problem,) = problems_of(load_text, f"[{section}]\n{line}\n")
    assert expected in problem.message
    assert problem.line == 2


WRONG_FILES = [
    (b"[app]\nport = \xff\n", 2, "byte 0xff is not UTF-8"),
    (b"[app]\nport =\n", 2, "not TOML"),
    (b"[app\n", 1, "not TOML"),
    (b"[app]\nname = 'a", 2, "not TOML"),
    (b"[app]\n[app]\n", 2, "not TOML"),
    (b"app = 3\n", 1, "`app` must be a table, `[app]`, not 3"),
    (b"target.x = 3\n", 1, "`target.x` must be a table, `[target.x]`, not 3"),
    (b"x = " + b"[" * 5000, None, "not TOML|nested too deeply"),
]


@pytest.mark.parametrize(("data", "line", "message"), WRONG_FILES)
def test_a_file_that_is_no_configuration_is_one_error(load_text: Load, data: bytes,
                                                      line: int | None, message: str) -> None:
    (problem,) = problems_of(load_text, data)
    assert any(part in problem.message for part in message.split("|"))
    assert problem.file == "hyperbox.toml"
    if line:
        assert problem.line == line


def test_a_byte_order_mark_and_windows_line_ends_are_no_problem(load_text: Load) -> None:
    config = load_text(b"\xef\xbb\xbf[app]\r\ncommand = 'x'\r\nport = 1\r\n")
    assert config.origin("app.port").where == "hyperbox.toml:3"


@pytest.mark.parametrize("make", ["folder", "fifo", "dangling link", "unreadable", "huge"])
def test_what_stands_in_the_files_place_is_said(tmp_path: Path, make: str) -> None:
    path = tmp_path / "hyperbox.toml"
    if make == "folder":
        path.mkdir()
    elif make == "fifo":
        os.mkfifo(path)
    elif make == "dangling link":
        path.symlink_to("nowhere")
    elif make == "huge":
        path.write_bytes(b"#" * 2_000_000)
    else:
        path.symlink_to(path)  # root reads everything; a loop of links stops root as well
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path), {}, detect=lambda *_: None)
    assert caught.value.file == "hyperbox.toml"


def test_a_folder_that_is_none_is_input_that_is_wrong(tmp_path: Path) -> None:
    for path, message in (("nowhere", "there is no such folder"), ("file", "is not a folder")):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=message):
            load(str(tmp_path / path), {}, detect=lambda *_: None)


def test_what_the_file_names_must_be_there(load_text: Load) -> None:
    problems = problems_of(load_text, "[app]\ncwd = 'nope'\nenv_file = ['.env', '.nope']\n")
    assert [(problem.line, problem.key) for problem in problems] == [
        (2, "app.cwd"), (3, "app.env_file"), (3, "app.env_file")]


def test_an_unknown_variable_of_ours_is_told_with_the_near_miss(load_text: Load) -> None:
    problems = problems_of(load_text, "", environ={
        "HYPERBOX_APP_PROT": "1", "HYPERBOX_SYNC_MODE": "mirrored", "HYPERBOX_OTHER": "x"})
    assert [problem.hint for problem in problems] == [
        "did you mean `HYPERBOX_APP_PORT`?", "did you mean `mirror`?"]


@pytest.mark.parametrize(("name", "text", "key", "value"), [
    ("HYPERBOX_APP_COMMAND", "make run", "command", "make run"),
    ("HYPERBOX_APP_COMMAND", '["make", "run"]', "command", ("make", "run")),
    ("HYPERBOX_APP_COMMAND", "[ -f x ] && y", "command", "[ -f x ] && y"),
    ("HYPERBOX_APP_PORT", "8080", "port", 8080),
    ("HYPERBOX_APP_TTY", "yes", "tty", True),
    ("HYPERBOX_APP_TTY", "0", "tty", False),
    ("HYPERBOX_APP_GRACE", "0.5", "grace", 0.5),
])
def test_a_variables_text_becomes_the_keys_kind(load_text: Load, name: str, text: str, key: str,
                                                value: object) -> None:
    assert getattr(load_text(None, {name: text}).app, key) == value


def test_lists_in_variables_are_commas_or_json(load_text: Load) -> None:
    for text in ("a,b", ' ["a", "b"]'.strip(), "a, b"):
        assert load_text(None, {"HYPERBOX_SYNC_IGNORE": text}).sync.ignore == ("a", "b")


TWO_TARGETS = "[target.here]\n[target.copy]\nmode = 'mirror'\npath = '/srv/x'\n"


def test_several_targets_want_to_be_told_apart(load_text: Load) -> None:
    (problem,) = problems_of(load_text, TWO_TARGETS)
    assert problem.hint == "say which: --target here"
    config = load_text(None, flags={"target": "copy"})
    assert (config.target.mode, config.target.path) == ("mirror", "/srv/x")
    assert len(config.targets) == 2
    (problem,) = problems_of(load_text, TWO_TARGETS, flags={"target": "cpy"})
    assert problem.hint == "did you mean `copy`?"


def test_values_that_exclude_each_other_are_told(load_text: Load) -> None:
    (problem,) = problems_of(load_text, "[sync]\npull = ['uv.lock']\n")
    assert "in place" in problem.message
    assert problem.line == 2
    (problem,) = problems_of(load_text, "[target.a]\npath = '/srv/x'\n")
    assert problem.line == 2


def test_loading_changes_nothing(load_text: Load, tmp_path: Path, own_home: Path) -> None:
    load_text("[app]\nport = 1\n", found=DETECTED)
    assert [path.name for path in tmp_path.iterdir()] == ["hyperbox.toml"]
    assert not list(own_home.iterdir())


def test_values_lists_every_key_of_the_table(load_text: Load) -> None:
    values = load_text(None).values()
    assert set(KEYS) <= set(values)


def test_a_real_project_is_detected(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from http.server import HTTPServer\nHTTPServer(('127.0.0.1', 8000), None)\n")
    config = load(str(tmp_path), os.environ)
    assert config.detected is not None
    assert config.detected.pack == "python"
    assert config.app.command
    assert config.origin("app.command").kind == "detection"
