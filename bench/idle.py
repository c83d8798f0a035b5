"""What ``hyperbox up`` costs while nothing happens, in place on a 50,000-file tree."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import tree
from bench.probe import Prober
from bench.processes import Family, Usage
from bench.subjects import BenchError, Tool, free_port

START_SECONDS = 60.0
LOOK_SECONDS = 2.0
QUIET_PERCENT = 1.0
QUIET_WITHIN = 180.0
SCAN = """
import json, sys, time
from hyperbox_agent.watch.tree import SourceTree
from hyperbox_agent.core.ignore import IgnoreOptions
root, cache = sys.argv[1:]
before = time.perf_counter()
tree = SourceTree(root, options=IgnoreOptions(), cache_file=cache)
tree.load()
took = (time.perf_counter() - before) * 1000
tree.save_cache()
print(json.dumps({"ms": round(took), "files": len(tree.manifest)}))
"""


def scan(root: Path, cache: Path) -> dict[str, Any]:
    """Scan the tree in a process of its own; what ``cache`` holds is not read again."""
    done = subprocess.run([sys.executable, "-c", SCAN, str(root), str(cache)],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"the tree was not scanned: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _is_the_users(usage: Usage) -> bool:
    """The program, and the prepared parent and its spare children, which hold its libraries."""
    return "app.py" in usage.command or "worker" in usage.command


def _name(usage: Usage) -> str:
    for mark, name in (("supervise.holder", "port holder"), ("hyperbox_agent", "agent"),
                       ("hyperbox", "hyperbox up")):
        if mark in usage.command:
            return name
    return usage.command[:40]


def _row(before: Usage | None, after: Usage, seconds: float) -> dict[str, Any]:
    used = after.cpu_s - (before.cpu_s if before else 0.0)
    return {"name": _name(after), "pss_mb": round(after.pss_kb / 1024, 1),
            "rss_mb": round(after.rss_kb / 1024, 1), "cpu_percent": round(100 * used / seconds, 2)}


def watch(family: Family, seconds: float) -> list[dict[str, Any]]:
    """One row for each of our own processes, over ``seconds``."""
    before = {usage.pid: usage for usage in family.usage()}
    time.sleep(seconds)
    return [_row(before.get(usage.pid), usage, seconds) for usage in family.usage(memory=True)
            if not _is_the_users(usage)]


def _total(rows: Sequence[dict[str, Any]], key: str) -> float:
    return round(sum(float(row[key]) for row in rows), 2)


def until_quiet(family: Family) -> dict[str, Any]:
    """Wait until our own processes do nothing: after a first start the tree's contents are copied
    aside for a way back. How long that took, and its price.

    Raises BenchError where they never rest.
    """
    before = time.perf_counter()
    used = _cpu(family)
    while time.perf_counter() - before < QUIET_WITHIN:
        time.sleep(LOOK_SECONDS)
        now = _cpu(family)
        if now - used < LOOK_SECONDS * QUIET_PERCENT / 100:
            return {"seconds": round(time.perf_counter() - before - LOOK_SECONDS, 1),
                    "cpu_s": round(now, 2)}
        used = now
    raise BenchError(f"hyperbox up was never idle within {QUIET_WITHIN:g} s")


def _cpu(family: Family) -> float:
    return sum(usage.cpu_s for usage in family.usage() if not _is_the_users(usage))


def run(size: tree.Size, seconds: float, scratch: Path) -> dict[str, Any]:
    """All figures; ``{"skipped": why}`` where ``up`` does not come up."""
    shutil.rmtree(scratch, ignore_errors=True)
    root, port, family = scratch / "source", free_port(), Family()
    print("idle: making the tree", file=sys.stderr, flush=True)
    tree.create(root, size)
    (root / "hyperbox.toml").write_text(
        f"[app]\ncommand = [{sys.executable!r}, 'app.py', '{port}']\nport = {port}\n")
    homes = {f"XDG_{name}_HOME": str(scratch / name.lower())
             for name in ("STATE", "CONFIG", "CACHE", "DATA")}
    tool = Tool.start(["hyperbox", "up", "--json", str(root)], root, scratch / "tool.log",
                      homes | family.environment)
    print("idle: hyperbox up", file=sys.stderr, flush=True)
    try:
        if Prober(port, keep=False).until("A", START_SECONDS) is None:
            return {"skipped": f"hyperbox up did not answer:\n{tool.tail()}"}
        after_start = until_quiet(family)
        rows = watch(family, seconds)
    finally:
        tool.stop(signal.SIGINT)
    cold, warm = (scan(root, scratch / "scan-cache") for _ in range(2))
    shutil.rmtree(scratch, ignore_errors=True)
    return {"files": size.files, "seconds": seconds, "processes": rows,
            "after_start": after_start,
            "cpu_percent": _total(rows, "cpu_percent"), "pss_mb": _total(rows, "pss_mb"),
            "rss_mb": _total(rows, "rss_mb"), "scan_cold_ms": cold["ms"],
            "scan_warm_ms": warm["ms"]}
