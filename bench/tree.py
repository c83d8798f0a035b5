"""The tree that the sync benchmarks work on: 50,000 files, 200 MB, in a git repository."""

from __future__ import annotations

import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE_OF_PROGRAM = '''
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # one segment an answer: two would wait for a delayed acknowledgement

    def log_message(self, *args):
        pass

    def do_GET(self):
        seen = set()
        for n in range({sampled}):
            with open(f"branch/{{n * {step} // 100:03}}/{{n * {step} % 100:03}}.txt") as file:
                seen.add(file.read(1))
        data = "".join(sorted(seen)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
'''
SAMPLED = 60
"""How many of the changed files a reader looks at each time."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large the tree is; ``branch`` of its files differ between the two branches."""

    files: int = 50_000
    branch: int = 3_000
    ignored: int = 30_000
    bytes_per_file: int = 4_096


def git(root: Path, *args: str) -> None:
    """Run git in the tree, with an identity of its own."""
    subprocess.run(["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c",
                    "gc.auto=0", "-c", "core.fsync=none", *args], cwd=root, check=True,
                   capture_output=True)


def branch_file(number: int) -> str:
    """The path of one of the files that differ between the branches."""
    return f"branch/{number // 100:03}/{number % 100:03}.txt"


def data_file(number: int) -> str:
    """The path of one of the other files: fifty in each folder."""
    return f"data/{number // 50:04}/{number % 50:02}.bin"


def sampled_files(size: Size) -> list[str]:
    """The files that readers look at, spread over the whole branch."""
    return [branch_file(n * (size.branch // SAMPLED)) for n in range(SAMPLED)]


def _write_branch(root: Path, size: Size, letter: str) -> None:
    rng = random.Random(letter)
    for number in range(size.branch):
        path = root / branch_file(number)
        if number % 100 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(letter + rng.randbytes(size.bytes_per_file // 2).hex()[:-1])


def create(root: Path, size: Size) -> None:
    """Make the tree, with both branches committed and ``main`` checked out."""
    rng = random.Random(0)
    root.mkdir(parents=True)
    for number in range(size.files - size.branch - 3):
        path = root / data_file(number)
        if number % 50 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(rng.randbytes(size.bytes_per_file))
    program = SOURCE_OF_PROGRAM.format(sampled=SAMPLED, step=size.branch // SAMPLED)
    (root / "app.py").write_text(program)
    (root / ".gitignore").write_text("node_modules/\n__pycache__/\n")
    (root / "hyperbox.toml").write_text("")
    git(root, "init", "-q", "-b", "main")
    # Only the branch files are committed: git's own work is not what is measured.
    _write_branch(root, size, "A")
    git(root, "add", "branch")
    git(root, "commit", "-qm", "main")
    git(root, "checkout", "-q", "-b", "other")
    _write_branch(root, size, "B")
    git(root, "commit", "-qam", "other")
    git(root, "checkout", "-q", "main")


def count_files(root: Path) -> int:
    """How many files stand below ``root``; one that vanishes meanwhile is not counted."""
    total = 0
    folders = [str(root)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        total += 1
                    elif entry.name not in (".git", ".stfolder", "node_modules"):
                        folders.append(entry.path)
        except FileNotFoundError:
            continue
    return total
