"""Writes ``docs/reference.md`` from the tables that the code reads: verbs, keys, exit statuses.

``python -m hyperbox_tui.cli.docs`` writes it; with ``--check`` it only says whether it is stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hyperbox_devcontainer.config.schema import KEYS, TARGET, Key
from hyperbox_tui.cli.exits import DONE, FAILED, MEANING
from hyperbox_tui.cli.help_ import usage
from hyperbox_tui.cli.verbs import VERBS, Verb, flags_of

HEAD = """\
# Reference

Written from the code by `python -m hyperbox_tui.cli.docs`; a test fails when it is stale.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join((HEAD, _verbs(), _statuses(), _keys()))


def _verbs() -> str:
    rows = [f"| [`{verb.name}`](#{verb.name}) | {verb.says} |" for verb in VERBS]
    parts = ["## Verbs", "", "| verb | what it does |", "|---|---|", *rows, ""]
    for verb in VERBS:
        parts += _verb(verb)
    return "\n".join(parts)


def _verb(verb: Verb) -> list[str]:
    rows = [f"| {_flag(flag.short)}`{flag.name}{' ' + flag.takes if flag.takes else ''}` | "
            f"{flag.says}{': ' + ', '.join(flag.choices) if flag.choices else ''} |"
            for flag in flags_of(verb)]
    usage_block = ["", f"    {usage(verb)}", ""]
    says = f"{verb.says[0].upper()}{verb.says[1:]}."
    return [f"### {verb.name}", *usage_block, says, "", *_more(verb), "| flag | |", "|---|---|",
            *rows, ""]


def _more(verb: Verb) -> list[str]:
    if not verb.more:
        return []
    # What is indented on a terminal is a block of code here.
    indent = "  " if verb.more.startswith("  ") else ""
    return [*(f"{indent}{line}" for line in verb.more.splitlines()), ""]


def _flag(short: str) -> str:
    return f"`{short}`, " if short else ""


def _statuses() -> str:
    rows = [f"| {status} | {says} |" for status, says in MEANING.items()]
    return "\n".join(("## Exit statuses", "", "`exec` passes its command's status through.", "",
                      "| status | meaning |", "|---|---|", *rows, ""))


def _keys() -> str:
    says = ("`hyperbox.toml`. Each key of `app`, `sync` and `reload` but `env` can be set by a "
            "variable as well, as `HYPERBOX_APP_PORT`.")
    parts = ["## Configuration", "", says, ""]
    for section in ("app", "sync", "reload"):
        parts += _table(f"[{section}]", [key for key in KEYS.values() if key.section == section])
    return "\n".join(parts + _table("[target.NAME]", TARGET)).rstrip() + "\n"


def _table(title: str, keys: list[Key] | tuple[Key, ...]) -> list[str]:
    rows = [f"| `{key.name}` | {_default(key)} | {key.says} |" for key in keys]
    return [f"### {title}", "", "| key | default | |", "|---|---|---|", *rows, ""]


def _default(key: Key) -> str:
    if key.default is None or key.default in ((), {}, ""):
        return ""
    value = key.default
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main(words: list[str]) -> int:
    """Write the page, or check it."""
    path = Path(__file__).resolve().parents[4] / "docs" / "reference.md"
    if not (path.parent / "generate.py").exists():
        sys.stderr.write("this writes into a checkout's docs/; here is none\n")
        return FAILED
    text = reference()
    if "--check" in words:
        fresh = path.exists() and path.read_text("utf-8") == text
        if not fresh:
            sys.stderr.write(f"{path.name} is stale: python -m hyperbox_tui.cli.docs\n")
        return DONE if fresh else FAILED
    path.write_text(text, "utf-8")
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
