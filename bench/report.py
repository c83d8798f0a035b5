"""``docs/benchmarks.json`` and the Markdown tables made from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

HEAD = """# Benchmarks

<!-- Written by `./dev bench`; figures are in `benchmarks.json`. -->

HyperBox beside the tools that people use today, on one machine in one run. Times are milliseconds
unless another unit is named. Other work on the machine makes figures worse, never better.

To make this page again: `{command}`
"""


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; the first column is left as it is, the others are aligned to the right."""
    lines = ["| " + " | ".join(columns) + " |",
             "|" + "|".join(["---"] + ["--:"] * (len(columns) - 1)) + "|"]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1 or value == 0 else f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _failed(failed: Mapping[str, int]) -> str:
    if not failed:
        return "0"
    return f"{sum(failed.values()):,} ({', '.join(sorted(failed))})"


def _skipped(rows: Sequence[Row]) -> str:
    lines = [f"- {row['subject']}: {row['skipped']}" for row in rows if "skipped" in row]
    return "\nNot measured in this run:\n\n" + "\n".join(lines) if lines else ""


def _measured(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if "skipped" not in row]


def reload_section(rows: Sequence[Row]) -> str:
    """Edit → new answer."""
    quiet = table(
        ["", "app", "p50", "p95", "max", "p50, new connection", "p50, kept connection",
         "never seen"],
        [[row["subject"], row["framework"], *(row["quiet"]["edit_ms"].get(key)
                                              for key in ("p50", "p95", "max")),
          row["quiet"]["new_connection_ms"].get("p50"),
          row["quiet"]["kept_connection_ms"].get("p50"), row["quiet"]["lost"]]
         for row in _measured(rows)])
    load = table(
        ["", "app", "edits", "single, p50", "save-all, p50", "failed requests", "of", "wait p99.9",
         "longest wait", "mixed answers", "broken saves held"],
        [[row["subject"], row["framework"], load["edits"], load["single_ms"].get("p50"),
          load["save_all_ms"].get("p50"), _failed(load["failed"]), load["sent"],
          load["wait_ms"]["p999"], load["wait_ms"]["max"], load["mixed_answers"],
          f"{load['broken_held']} of {load['broken']}" if load["broken"] else None]
         for row in _measured(rows) for load in [row["load"]]])
    stream = table(
        ["", "app", "p50", "max", "the open stream stops the reload"],
        [[row["subject"], row["framework"], row["stream"]["edit_ms"].get("p50"),
          row["stream"]["edit_ms"].get("max"), "yes" if row["stream"]["stopped"] else "no"]
         for row in _measured(rows)])
    return f"""## A save goes live

From just before the write to the last byte of the first answer that shows it.

{quiet}

Under 300 requests a second from a process of its own (half on new, half on kept connections; a
wait runs from when the request was due). Single saves alternate with save-alls of 2–10 files
1–30 ms apart; *mixed* answers show a save-all half done. HyperBox's edits include broken ones (a
syntax error, an exception at import), and an event stream and a websocket client are open beside
its load.

{load}

Single saves while one client reads an event stream (*yes*: not live after 15 s):

{stream}
{_skipped(rows)}"""


def sync_section(rows: Sequence[Row]) -> str:
    """Source → mirrored tree."""
    size = next(iter(_measured(rows)), {"files": 0, "mb": 0, "branch": 0, "ignored_files": 0})
    columns = ["", "first sync, s", "edit → file, p50", "p95",
               f"{size['branch']:,}-file checkout, s", "mixed window", "mixed reads",
               "missing reads", f"{size['ignored_files']:,} ignored: CPU s",
               "edit meanwhile, p50", "idle CPU, %", "PSS, MB"]
    cells = [[row["subject"], row["first_s"], row["edit_ms"].get("p50"), row["edit_ms"].get("p95"),
              row["checkout"]["seconds"], row["checkout"]["mixed_window_ms"],
              row["checkout"]["mixed"], row["checkout"]["missing"], row["ignored"]["cpu_s"],
              row["ignored"]["edit_ms"].get("p50"), row["idle"]["cpu_percent"],
              row["idle"]["pss_mb"]] for row in _measured(rows)]
    managed = [f"\nThe managed program of {row['subject']}, which reads 60 of the files at each "
               f"request, gave {row['checkout']['managed_mixed']} mixed of "
               f"{row['checkout']['managed_answers']:,} answers during the checkout."
               for row in _measured(rows) if row["checkout"].get("managed_answers")]
    return f"""## A mirrored tree

{size['files']:,} files, {size['mb']:,} MB, from one folder to another over a pipe. *Mixed* reads
are those of an outside reader that looks at 60 of the checkout's files again and again, between the
two branches.

{table(columns, cells)}
{''.join(managed)}
{_skipped(rows)}"""


def idle_section(figures: Row) -> str:
    """What `up` costs while nothing happens."""
    if "skipped" in figures:
        return f"## Idle\n\nNot measured in this run: {figures['skipped']}"
    processes = table(["process", "PSS, MB", "RSS, MB", "CPU, %"],
                      [[row["name"], row["pss_mb"], row["rss_mb"], row["cpu_percent"]]
                       for row in figures["processes"]])
    return f"""## Idle

`hyperbox up` on {figures['files']:,} files over {figures['seconds']:.0f} s without a save; the
program and its prepared parent aside: {figures['cpu_percent']} % CPU, {figures['pss_mb']} MB PSS
({figures['rss_mb']} MB RSS). After the first start it is at work for
{figures['after_start']['seconds']} s ({figures['after_start']['cpu_s']} s of CPU), to keep the
contents for a way back. Scan of the tree: cold {figures['scan_cold_ms']} ms, warm
{figures['scan_warm_ms']} ms.

{processes}"""


def cli_section(rows: Sequence[Row]) -> str:
    """How long verbs take."""
    cells = [[row["command"], row["ms"].get("min"), row["ms"].get("p50"), row["ms"].get("p95")]
             for row in _measured(rows)]
    return f"## The command line\n\n{table(['', 'min', 'p50', 'p95'], cells)}\n"


def machine_section(machine: Row) -> str:
    """The machine and the versions."""
    versions = [f"{name} {version}"
                for group in ("packages", "programs") for name, version in machine[group].items()]
    return f"""## The machine

{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux
{machine['kernel']}, {machine['file_system']}, Python {machine['python']}; load
{machine['load_at_start']} at the start; {machine['date']}. Versions: {', '.join(versions)}.
"""


def relay_section(figures: Row) -> str:
    """What the port's relay costs."""
    price, ways = figures["price_ms"], ("direct", "relayed")
    rows = [[way, *(figures[way][key] for key in sorted(figures["direct"]))] for way in ways]
    return f"""## The relay's price

The agent holds the port and passes requests on: +{price['kept']:.3f} ms a request on a kept
connection, +{price['new']:.3f} ms on a new one, at the median, against an echo server.

{table(['', *(key.replace('_', ' ') for key in sorted(figures['direct']))], rows)}"""


SECTIONS: dict[str, Callable[[Any], str]] = {
    "reload": reload_section, "relay": relay_section, "sync": sync_section, "idle": idle_section,
    "cli": cli_section}


def markdown(results: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [HEAD.format(command=results["command"])]
    remarks = results.get("remarks", {})
    parts += [f"{section(results[name])}\n\n{remarks.get(name, '')}"
              for name, section in SECTIONS.items() if name in results]
    return "\n\n".join(part.strip() for part in [*parts, machine_section(results["machine"])]) + (
        "\n")


def _same_machine(one: Row, other: Row) -> bool:
    return all(one.get(key) == other.get(key)
               for key in ("processor", "cores", "kernel", "python"))


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write both files; parts not run this time stay, if they come from the same machine.

    So do ``remarks`` on them (part → text), written into the JSON by hand: what changed since.
    """
    data = folder / "benchmarks.json"
    old = json.loads(data.read_text()) if data.exists() else {}
    if not _same_machine(old.get("machine", {}), results["machine"]):
        old = {}
    remarks = {part: text for part, text in old.get("remarks", {}).items() if part not in results}
    merged = {**old, **results, "remarks": remarks}
    data.write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    (folder / "benchmarks.md").write_text(markdown(merged))
