"""The demo's web app, as text. Standard library only; it tells when its files do not fit together.
"""

from __future__ import annotations

import os

PARTS = 300
APP = '''\
"""A small web app: a greeting, and three hundred parts that must all be of one edition."""
import importlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from greeting import TEXT

EDITIONS = sorted({importlib.import_module(f"parts.part_{n:03}").EDITION for n in range(PARTS)})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body leave in one packet, so that none waits for the other's ACK

    def do_GET(self):
        body = json.dumps({"text": TEXT, "editions": EDITIONS}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
'''.replace("range(PARTS)", f"range({PARTS})")
GREETING = '''\
TEXT = "{text}"
'''
BROKEN = '''\
TEXT = ("good evening"
'''
PART = '''\
EDITION = {edition}
'''
CONFIG = '''\
[app]
command = [{command}]
port = {port}
'''


def write_app(folder: str, command: list[str], port: int) -> None:
    """The whole app in its first edition."""
    os.mkdir(os.path.join(folder, "parts"))
    quoted = ", ".join("'" + word.replace("'", "") + "'" for word in [*command, str(port)])
    write(folder, "hyperbox.toml", CONFIG.format(command=quoted, port=port))
    write(folder, "app.py", APP)
    write(folder, "parts/__init__.py", "")
    write_greeting(folder, "hello")
    write_parts(folder, 1)


def write_greeting(folder: str, text: str) -> None:
    """Save one file."""
    write(folder, "greeting.py", GREETING.format(text=text))


def break_greeting(folder: str) -> None:
    """Save a file that no Python compiles."""
    write(folder, "greeting.py", BROKEN)


def write_parts(folder: str, edition: int) -> None:
    """Save three hundred files, one after the other, as a switch of branches does."""
    for number in range(PARTS):
        write(folder, f"parts/part_{number:03}.py", PART.format(edition=edition))


def write(folder: str, name: str, text: str) -> None:
    """Save a file."""
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)
