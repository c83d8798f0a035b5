"""``./dev bench [PART…] [--quick]``: measure, print, write the page."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import cli, idle, machine, reload, report, subjects, sync, sync_subjects, tree

ROOT = Path(__file__).resolve().parents[1]
QUICK_SIZE = tree.Size(files=5_000, branch=1_200, ignored=3_000)


def _newest_python() -> str | None:
    """A Python from 3.12 on, for the peer that needs one; None where there is none."""
    argv = [sys.executable, str(ROOT / "tests/pythons.py"), "newest"]
    path = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    new = subprocess.run([path, "-c", "import sys; sys.exit(sys.version_info < (3, 12))"],
                         check=False)
    return None if new.returncode else path


def _reload(args: argparse.Namespace, scratch: Path) -> Any:
    plan = reload.Plan(quiet_edits=8, load_edits=6, own_load_edits=20) if args.quick else (
        reload.Plan())
    own: list[subjects.Subject] = [subjects.HyperBox(framework, rung) for rung in ("warm", "cold")
                                   for framework in ("stdlib", "fastapi", "flask")]
    uv = os.environ.get("UV", "uv")
    hmr = subjects.newer_python_peer(scratch, uv, _newest_python())
    return reload.run(_only([*own, hmr, *subjects.peers()], args), plan, scratch / "reload")


def _only(found: list[Any], args: argparse.Namespace) -> list[Any]:
    wanted = [word.lower() for word in args.only]
    return [one for one in found if not wanted or any(word in _words(one) for word in wanted)]


def _words(subject: Any) -> str:
    return f"{subject.name} {getattr(subject, 'framework', '')}".lower()


def _relay(args: argparse.Namespace, scratch: Path) -> Any:
    argv = [sys.executable, "-m", "bench.relay", "--json", "--requests",
            "500" if args.quick else "5000"]
    print("relay", file=sys.stderr, flush=True)
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _sync(args: argparse.Namespace, scratch: Path) -> Any:
    plan = sync.Plan(size=QUICK_SIZE, edits=8, edits_meanwhile=3, idle_seconds=3.0) if (
        args.quick) else sync.Plan()
    return sync.run(_only(list(sync_subjects.all_subjects()), args), plan, scratch / "sync")


def _idle(args: argparse.Namespace, scratch: Path) -> Any:
    size, seconds = (QUICK_SIZE, 5.0) if args.quick else (tree.Size(), 30.0)
    return idle.run(size, seconds, scratch / "idle")


def _cli(args: argparse.Namespace, scratch: Path) -> Any:
    return cli.run(5 if args.quick else 20, scratch / "cli")


PARTS: dict[str, Callable[[argparse.Namespace, Path], Any]] = {
    "reload": _reload, "relay": _relay, "sync": _sync, "idle": _idle, "cli": _cli}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART",
                        help=f"{', '.join(PARTS)}; without any: all")
    parser.add_argument("--quick", action="store_true",
                        help="few edits and a small tree: is it all there? Writes nothing")
    parser.add_argument("--only", action="append", default=[], metavar="WORD",
                        help="only subjects with this word in their name or app; writes nothing")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args()
    unknown = sorted(set(args.parts) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)} (there are {', '.join(PARTS)})")
    return args


def main() -> int:
    """Run the parts that were asked for; exit status 0 once all of them were run."""
    args = _arguments()
    # Ended from outside, what was started must be ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # A shell's background job has SIGINT ignored, and so would have what is started and ended here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    scratch = Path(tempfile.mkdtemp(prefix="hyperbox-bench-"))
    parts = args.parts or list(PARTS)
    results: dict[str, Any] = {"machine": machine.describe(scratch),
                               "command": "./dev bench"}
    try:
        for part in parts:
            results[part] = PARTS[part](args, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(json.dumps(results, indent=1) if args.json else report.markdown(results))
    if not args.quick and not args.only:
        report.write(results, ROOT / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
