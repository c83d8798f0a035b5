"""Writes what is generated: ``CHANGELOG.md`` from ``news/``; ``--check`` only says what is stale.

A change that a user notices brings a fragment, ``news/SHORT-NAME.KIND.md``: one or two sentences.
``--release VERSION`` moves the fragments into a section of that version.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEWS = ROOT / "news"
CHANGELOG = ROOT / "CHANGELOG.md"
KINDS = {"added": "Added", "changed": "Changed", "fixed": "Fixed", "removed": "Removed"}
HEAD = "# Changelog\n\nWritten from `news/` by `./dev docs`.\n"
UNRELEASED = "## Not released yet"


def fragments() -> dict[str, list[str]]:
    """The news by kind, in the order of the files' names. SystemExit: a name without a kind."""
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for path in sorted(NEWS.glob("*.md")):
        kind = path.name.split(".")[-2] if path.name.count(".") == 2 else ""
        if kind not in KINDS:
            raise SystemExit(f"{path.name}: the name must end in .KIND.md, KIND one of "
                             f"{', '.join(KINDS)}")
        found[kind].append(" ".join(path.read_text("utf-8").split()))
    return found


def section(title: str, news: dict[str, list[str]]) -> str:
    """One version's part of the changelog; empty where there is no news."""
    parts = [f"### {KINDS[kind]}\n\n" + "".join(f"- {text}\n" for text in texts)
             for kind, texts in news.items() if texts]
    return "\n".join([f"{title}\n", *parts]) if parts else ""


def released(text: str) -> str:
    """The sections of the versions that are out, as they stand."""
    start = text.find("\n## ", text.find(UNRELEASED) + 1 if UNRELEASED in text else 0)
    return text[start + 1:] if start >= 0 else ""


def changelog(old: str, title: str) -> str:
    """The whole file, with the fragments under ``title``."""
    parts = [HEAD, section(title, fragments()), released(old)]
    return "\n".join(part for part in parts if part)


def stale() -> list[str]:
    """The generated files that are not what they would be written as now."""
    old = CHANGELOG.read_text("utf-8") if CHANGELOG.exists() else ""
    return ["CHANGELOG.md"] if old != changelog(old, UNRELEASED) else []


def main() -> int:
    """Write, check or release."""
    parser = argparse.ArgumentParser(prog="./dev docs", description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--release", metavar="VERSION")
    args = parser.parse_args()
    if args.check:
        for name in stale():
            print(f"{name} is stale: ./dev docs", file=sys.stderr)
        return 1 if stale() else 0
    old = CHANGELOG.read_text("utf-8") if CHANGELOG.exists() else ""
    title = UNRELEASED
    if args.release:
        title = f"## {args.release} ({time.strftime('%Y-%m-%d')})"
    CHANGELOG.write_text(changelog(old, title), "utf-8")
    if args.release:
        for path in NEWS.glob("*.md"):
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
