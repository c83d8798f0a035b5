"""`hyperbox exec`: a command beside the program, with the person's own terminal where asked."""

from __future__ import annotations

import json
import os

from hyperbox_devcontainer.errors import NoSessionError
from hyperbox_devcontainer.verbs.errors import error_from_json
from hyperbox_devcontainer.verbs.protocol import FRAME_HEAD, FrameKind, frame, parse_frame_head
from hyperbox_tui.cli.exits import UsageError
from hyperbox_tui.cli.project import project_of
from hyperbox_tui.cli.reach import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args
    from hyperbox_tui.cli.terminal import Terminal

START_SECONDS = 30.0
PIECE = 65536


def run(args: Args, out: Output) -> int:
    """Run it and pass its exit status through."""
    from hyperbox_tui.cli.terminal import Terminal
    if not args.rest:
        raise UsageError("exec: say what to run", hint="hyperbox exec -it -- bash")
    tty = args.on("tty")
    if tty and not os.isatty(0):
        raise UsageError("exec: -t needs a terminal as standard input",
                         hint="leave out -t in scripts")
    terminal = Terminal(raw=tty)
    rows, columns = terminal.size()
    body = {"argv": list(args.rest), "tty": tty, "stdin": args.on("interactive"), "rows": rows,
            "columns": columns,
            "env": {"TERM": out.environ.get("TERM", "xterm")} if tty else {}}
    with connect(project_of(args, out.environ), out.environ) as client:
        link, early = client.upgrade("exec", body, timeout=START_SECONDS)
        with terminal:
            return _Carrier(link, early, terminal, stdin=args.on("interactive")).run()


class _Carrier:
    """Carries bytes between the terminal and the socket until the command has ended."""

    def __init__(self, link: socket.socket, early: bytes, terminal: Terminal, *,
                 stdin: bool) -> None:
        self._link = link
        self._buffer = bytearray(early)
        self._terminal = terminal
        self._stdin = stdin
        self._status: int | None = None

    def run(self) -> int:
        import select
        self._take_frames()
        while self._status is None:
            link = self._link.fileno()
            ready, _, _ = select.select([link, self._terminal.wakeups, *((0,) * self._stdin)],
                                        [], [])
            if self._terminal.wakeups in ready:
                self._tell_signals()
            if 0 in ready:
                self._send_stdin()
            if link in ready:
                self._receive()
        return self._status

    def _receive(self) -> None:
        data = self._link.recv(PIECE)
        if not data:
            raise NoSessionError("the session ended while the command ran")
        self._buffer += data
        self._take_frames()

    def _take_frames(self) -> None:
        while len(self._buffer) >= FRAME_HEAD:
            kind, length = parse_frame_head(bytes(self._buffer[:FRAME_HEAD]))
            if len(self._buffer) < FRAME_HEAD + length:
                return
            payload = bytes(self._buffer[FRAME_HEAD:FRAME_HEAD + length])
            del self._buffer[:FRAME_HEAD + length]
            self._take(kind, payload)

    def _take(self, kind: FrameKind, payload: bytes) -> None:
        if kind is FrameKind.STDOUT:
            _write(1, payload)
        elif kind is FrameKind.STDERR:
            _write(2, payload)
        elif kind is FrameKind.EXIT:
            self._status = int(json.loads(payload)["status"]) & 0xFF
        elif kind is FrameKind.ERROR:
            raise error_from_json(json.loads(payload))

    def _send_stdin(self) -> None:
        try:
            data = os.read(0, PIECE)
        except OSError:
            data = b""  # a background job of a terminal, or a terminal that has gone: its end
        self._stdin = bool(data)
        self._send(frame(FrameKind.STDIN, data))

    def _tell_signals(self) -> None:
        size, signals = self._terminal.happened()
        if size is not None:
            self._send(frame(FrameKind.SIZE, json.dumps(
                {"rows": size[0], "columns": size[1]}).encode()))
        for number in signals:
            self._send(frame(FrameKind.SIGNAL, json.dumps({"number": number}).encode()))

    def _send(self, data: bytes) -> None:
        try:
            self._link.sendall(data)
        except OSError:
            self._stdin = False  # its end was reached first; the last frames are still read


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]


