"""The command line is read by the table of verbs; what is wrong is said with the near miss."""

from __future__ import annotations

from typing import Any

import pytest

from hyperbox_tui.cli.exits import UsageError
from hyperbox_tui.cli.parse import Args, parse
from hyperbox_tui.cli.verbs import VERBS, flags_of


@pytest.mark.parametrize(("line", "verb", "values", "rest"), [
    ("", "", {}, ()),
    ("--help", "help", {}, ()),
    ("-V", "version", {}, ()),
    ("up", "up", {}, ()),
    ("up shop --json", "up", {"path": "shop", "json": True}, ()),
    ("up -p 80 -t pi shop", "up", {"port": 80, "target": "pi", "path": "shop"}, ()),
    ("up -p80", "up", {"port": 80}, ()),
    ("up --port=80", "up", {"port": 80}, ()),
    ("up -- -odd", "up", {"path": "-odd"}, ()),
    ("logs -fn 5", "logs", {"follow": True, "lines": 5}, ()),
    ("flush --timeout 0.5", "flush", {"timeout": 0.5}, ()),
    ("rollback #42", "rollback", {"n": 42}, ()),
    ("rollback 42 -C shop", "rollback", {"n": 42, "project": "shop"}, ()),
    ("exec ls -la", "exec", {}, ("ls", "-la")),
    ("exec -it -- ls --help", "exec", {"interactive": True, "tty": True}, ("ls", "--help")),
    ("exec -i ls -- x", "exec", {"interactive": True}, ("ls", "--", "x")),
    ("restart --rung cold", "restart", {"rung": "cold"}, ()),
    ("up --help", "help", {"verb": "up"}, ()),
    ("help up", "help", {"verb": "up"}, ()),
    ("completion zsh", "completion", {"shell": "zsh"}, ()),
])
def test_what_is_written_is_what_is_meant(line: str, verb: str, values: dict[str, Any],
                                          rest: tuple[str, ...]) -> None:
    assert parse(line.split()) == Args(verb, values, rest)


@pytest.mark.parametrize(("words", "message", "hint"), [
    (["staus"], "unknown verb 'staus'", "did you mean `hyperbox status`?"),
    (["roll-back"], "unknown verb 'roll-back'", "did you mean `hyperbox rollback`?"),
    (["xyzzy"], "unknown verb 'xyzzy'", "`hyperbox --help` lists the verbs"),
    (["--jsn"], "unknown flag '--jsn'", "`hyperbox --help` lists the verbs"),
    (["up", "--jsn"], "up: unknown flag --jsn", "did you mean `--json`?"),
    (["up", "-z"], "up: unknown flag -z", "`hyperbox up --help` shows it"),
    (["logs", "-fz"], "logs: unknown flag -z in -fz", "`hyperbox logs --help` shows it"),
    (["up", "--json=1"], "up: --json takes no value", None),
    (["up", "--port"], "up: --port needs PORT", None),
    (["up", "--port", "http"], "up: --port needs a whole number, not 'http'", None),
    (["up", "--port", "8²"], "up: --port needs a whole number, not '8²'", None),
    (["up", "a", "b"], "up: 'b' is one argument too many", None),
    (["up", "a", "-C", "b"], "up: the folder is said twice", None),
    (["flush", "--timeout", "nan"], "flush: --timeout needs a number of seconds, not 'nan'", None),
    (["rollback", "last"], "rollback: 'last' is no generation's number", None),
    (["restart", "--rung", "wram"], "restart: --rung is one of", "did you mean `warm`?"),
    (["completion", "tcsh"], "completion: 'tcsh' is none of the shells bash, zsh, fish", None),
    (["help", "uo"], "unknown verb 'uo'", "did you mean `hyperbox up`?"),
])
def test_what_is_wrong_is_said(words: list[str], message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert caught.value.message.startswith(message)
    if hint:
        assert caught.value.hint == hint


def test_no_verb_has_a_flag_twice_and_every_verb_has_its_module() -> None:
    from importlib import import_module
    for verb in VERBS:
        names = [word for flag in flags_of(verb) for word in (flag.name, flag.short) if word]
        assert len(names) == len(set(names)), verb.name
        assert callable(import_module(f"hyperbox_tui.cli.{verb.module}").run)
