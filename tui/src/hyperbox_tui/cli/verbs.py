"""The verbs as data: parser, help, completion and docs read this table."""

from __future__ import annotations

from typing import NamedTuple


class Flag(NamedTuple):
    """One flag of a verb. ``takes`` names its value; empty: it takes none."""

    name: str
    short: str = ""
    takes: str = ""
    kind: str = "text"
    """``"text"``, ``"whole"`` (number) or ``"seconds"``."""
    says: str = ""
    choices: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name in parsed arguments."""
        return self.name.lstrip("-").replace("-", "_")


class Verb(NamedTuple):
    """One verb: how it is written and which module does it."""

    name: str
    says: str
    """One line for the list of verbs."""
    takes: tuple[str, ...] = ()
    """Positional arguments, all optional: ``PATH``, ``N``, ``SHELL``, ``VERB``; ``CMD``: the rest
    of the line."""
    flags: tuple[Flag, ...] = ()
    more: str = ""
    """What help says below the usage."""
    project: bool = True
    """Whether it works on one project (and so takes ``-C``)."""

    @property
    def module(self) -> str:
        """The module of ``cli`` that does it."""
        return {"exec": "exec_", "help": "help_"}.get(self.name, self.name)


JSON = Flag("--json", says="one JSON object (streams: one a line)")
HELP = Flag("--help", "-h", says="show this")
PROJECT = Flag("--project", "-C", "PATH", says="the project's folder (default: here)")
TARGET = Flag("--target", "-t", "NAME", says="the target, where several are configured")
LIMIT = Flag("--limit", "-n", "N", "whole", says="how many to show")
RUNGS = ("notify", "patch", "warm", "restore", "cold", "reinstall", "rebuild")

VERBS = (
    Verb("up", "keep the project running while it is edited", ("PATH",),
         (TARGET, Flag("--port", "-p", "PORT", "whole", "the port that the program is reached at"),
          JSON),
         "Runs until Ctrl-C, which ends everything it started; a second Ctrl-C waits for nothing.\n"
         "When the terminal is lost, program and agent go on: the next `up` takes them over."),
    Verb("down", "end the program and everything that `up` started", ("PATH",),
         (Flag("--timeout", "", "SECONDS", "seconds", "when to stop waiting and end it hard (20)"),
          JSON),
         "Works without a session, too: what a lost `up` left running is ended."),
    Verb("demo", "a small web app: saved, broken, mended, rolled back", (), (JSON,),
         "Saves go live, a broken one does not, 300 files switch at once, and it is rolled back:\n"
         "half a minute, under load. Works in a temporary folder and leaves nothing behind.",
         project=False),
    Verb("status", "what runs, and what answers now", ("PATH",),
         (Flag("--all", "-a", says="every project that is up"), JSON)),
    Verb("logs", "what the program says", ("PATH",),
         (Flag("--follow", "-f", says="go on, over restarts, until Ctrl-C"),
          Flag("--lines", "-n", "N", "whole", "how many of the last lines (100)"), JSON)),
    Verb("exec", "run a command beside the program", ("CMD",),
         (Flag("--interactive", "-i", says="keep its standard input open"),
          Flag("--tty", "-t", says="give it a terminal")),
         "The command's exit status is the verb's. What the command leaves running ends with "
         "it. `hyperbox exec -it -- bash` gives a shell."),
    Verb("flush", "wait until every save made before is live or rolled back", ("PATH",),
         (Flag("--timeout", "", "SECONDS", "seconds", "when to give up (60)"), JSON),
         "Exit status 3 when the newest save was rolled back."),
    Verb("history", "the generations, newest first", ("PATH",), (LIMIT, JSON)),
    Verb("rollback", "make an older generation live", ("N",), (JSON,),
         "Without N: the one before the live one. The source is never written; the next save goes\n"
         "forward from it again."),
    Verb("restart", "restart the program", ("PATH",),
         (Flag("--rung", "", "RUNG", "text", "how (default: the cheapest)", RUNGS), JSON)),
    Verb("pause", "stop taking saves; the program goes on", ("PATH",), (JSON,)),
    Verb("resume", "take saves again, those made meanwhile first", ("PATH",), (JSON,)),
    Verb("config", "every value, and where it came from", ("PATH",), (TARGET, JSON)),
    Verb("doctor", "what this machine and project give, and what mends the rest", ("PATH",),
         (JSON,)),
    Verb("bench", "how fast a save goes live on this machine", (),
         (Flag("--edits", "-n", "N", "whole", "how many edits (20)"), JSON),
         "A small app in a temporary folder; beside other tools: `./dev bench` in a checkout.",
         project=False),
    Verb("completion", "completion for a shell", ("SHELL",), (),
         "  bash:  source <(hyperbox completion bash)\n"
         "  zsh:   source <(hyperbox completion zsh)\n"
         "  fish:  hyperbox completion fish | source", project=False),
    Verb("help", "how a verb is used", ("VERB",), (), project=False),
)
BY_NAME = {verb.name: verb for verb in VERBS}
SHELLS = ("bash", "zsh", "fish")


def flags_of(verb: Verb) -> tuple[Flag, ...]:
    """Every flag that a verb takes."""
    return (*verb.flags, *((PROJECT,) if verb.project else ()), HELP)
