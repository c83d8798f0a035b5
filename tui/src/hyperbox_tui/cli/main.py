"""The command's entry: find the verb, run it, turn what went wrong into words and a status.

Kept small, with every import where it is needed: `status` and its like answer within 100 ms, the
interpreter's own start included.
"""

from __future__ import annotations

import os
import sys

from hyperbox_tui.cli.exits import DONE, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status and raises nothing."""
    from hyperbox_tui.cli.output import Output
    words = sys.argv[1:] if argv is None else argv
    before_rest = words[:words.index("--")] if "--" in words else words
    out = Output(os.environ, json="--json" in before_rest)
    try:
        status = _run(words, out)
        out.flush()
    except BrokenPipeError as error:
        _give_up_stdout()
        return status_of(error)
    except KeyboardInterrupt as error:
        return status_of(error)
    except Exception as error:  # noqa: BLE001 -- the one edge where every error becomes words
        from hyperbox_tui.cli.report import report
        report(out, error)
        return status_of(error)
    return status


def _run(words: Sequence[str], out: Output) -> int:
    from hyperbox_tui.cli.parse import parse
    args = parse(words)
    if args.verb == "version":
        from hyperbox_tui.cli.version import VERSION
        out.text(f"hyperbox {VERSION}\n")
        return DONE
    return _module(args)(args, out) if args.verb else _overview(out)


def _module(args: Args):  # type: ignore[no-untyped-def]  # a module's run(args, out) -> int
    from importlib import import_module

    from hyperbox_tui.cli.verbs import BY_NAME
    return import_module(f"hyperbox_tui.cli.{BY_NAME[args.verb].module}").run


def _overview(out: Output) -> int:
    from hyperbox_tui.cli.status import overview
    return overview(out)


def _give_up_stdout() -> None:
    """Let the interpreter's last flush find a place to write to."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
