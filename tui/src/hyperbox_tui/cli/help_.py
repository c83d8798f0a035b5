"""`hyperbox help` and every `--help`: written from the table of verbs."""

from __future__ import annotations

from hyperbox_tui.cli.exits import DONE
from hyperbox_tui.cli.verbs import BY_NAME, VERBS, flags_of
from hyperbox_tui.view.spans import Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args
    from hyperbox_tui.cli.verbs import Flag, Verb


def run(args: Args, out: Output) -> int:
    """Say how a verb is used, or which verbs there are."""
    name = args.text("verb")
    if name is None:
        _all(out)
    else:
        _one(BY_NAME[name], out)
    return DONE


def _all(out: Output) -> None:
    out.line(Span("hyperbox", "title"), " keeps a program running while you edit it: you save, "
             "the change is live.")
    out.line()
    out.line(Span("usage: ", "dim"), "hyperbox VERB [ARGUMENTS]")
    out.line()
    for verb in VERBS:
        out.line("  ", Span(f"{verb.name:<12}", "press"), verb.says)
    out.line()
    out.line("`hyperbox VERB --help` says more; `hyperbox --version` which one this is.")


def _one(verb: Verb, out: Output) -> None:
    out.line(Span("usage: ", "dim"), usage(verb))
    out.line()
    out.line(verb.says[0].upper(), verb.says[1:], ".")
    if verb.more:
        out.line()
        for line in verb.more.splitlines():
            out.line(line)
    out.line()
    for flag in flags_of(verb):
        out.line("  ", Span(f"{_written(flag):<26}", "press"), _meaning(flag))


def usage(verb: Verb) -> str:
    """How the verb is written."""
    takes = {"CMD": "[--] COMMAND [ARGUMENTS]"}
    return " ".join(["hyperbox", verb.name, "[FLAGS]",
                     *(takes.get(name, f"[{name}]") for name in verb.takes)])


def _written(flag: Flag) -> str:
    both = f"{flag.short}, {flag.name}" if flag.short else f"    {flag.name}"
    return f"{both} {flag.takes}".rstrip()


def _meaning(flag: Flag) -> str:
    return f"{flag.says}: {', '.join(flag.choices)}" if flag.choices else flag.says
