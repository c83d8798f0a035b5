"""``hyperbox-agent``: the agent as a command. ``python -m hyperbox_agent`` and the ``.pyz`` are it.

Verbs are few and are read by hand: the agent starts in a few milliseconds, argparse would double
that.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = """\
usage: hyperbox-agent run [FOLDER] [--port N] [--json] [-- COMMAND...]
           keep the program in FOLDER running while its files are edited, without a workstation
       hyperbox-agent serve --home FOLDER
           serve one session over standard input and output (started by hyperbox itself)
       hyperbox-agent attach --home FOLDER
           connect standard input and output to the agent that runs there
       hyperbox-agent --version
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; gives the exit status (0 done, 1 it failed, 2 the input was wrong)."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = words.pop(0) if words else ""
    if verb in ("--help", "-h", "help"):
        sys.stdout.write(USAGE)
        return 0
    if verb == "--version":
        from hyperbox_agent.link.version import VERSION

        sys.stdout.write(f"hyperbox-agent {VERSION}\n")
        return 0
    if verb == "serve":
        home = _home(words)
        if home is None:
            return _wrong("serve needs --home FOLDER")
        from hyperbox_agent.link.server import serve

        return serve(home)
    if verb == "attach":
        home = _home(words)
        if home is None:
            return _wrong("attach needs --home FOLDER")
        from hyperbox_agent.link.attach import attach

        return attach(home)
    if verb == "run":
        from hyperbox_agent.run import main as run

        return run(words)
    return _wrong(f"unknown verb {verb!r}" if verb else "a verb is missing")


def _home(words: Sequence[str]) -> str | None:
    if len(words) == 2 and words[0] == "--home" and words[1].startswith("/"):
        return words[1]
    return None


def _wrong(message: str) -> int:
    sys.stderr.write(f"hyperbox-agent: {message}\n{USAGE}")
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
