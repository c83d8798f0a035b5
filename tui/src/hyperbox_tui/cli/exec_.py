"""`hyperbox exec`: a command beside the program, with the person's own terminal where asked."""

from __future__ import annotations

import json
import os
from collections import deque

from hyperbox_devcontainer.errors import NoSessionError, VerbError
from hyperbox_devcontainer.verbs.errors import error_from_json
from hyperbox_devcontainer.verbs.protocol import (
    FRAME_HEAD,
    STDIN_WINDOW,
    FrameKind,
    frame,
    parse_frame_head,
)
from hyperbox_tui.cli.exits import NOT_EXECUTABLE, NOT_FOUND, UsageError
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
HELD = 1024 * 1024
"""Bytes of output that wait here for who reads us, before the session has to wait."""
AT_ONCE = 4096
"""A pipe that says it can be written takes so many without blocking (PIPE_BUF, pipe(7)). It stays a
blocking one: it is shared with whoever gave it to us."""
_STATUS = {"ProgramMissingError": NOT_FOUND, "ProgramForbiddenError": NOT_EXECUTABLE}


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
        try:
            link, early = client.upgrade("exec", body, timeout=START_SECONDS)
        except VerbError as error:
            return _not_started(error, out)
        with terminal:
            return _Carrier(link, early, terminal, stdin=args.on("interactive")).run()


def _not_started(error: VerbError, out: Output) -> int:
    """Say why, and give a shell's status for it, for scripts tell by it."""
    from hyperbox_tui.cli.report import report
    status = _STATUS.get(error.kind)
    if status is None:
        raise error
    report(out, error)
    return status


class _Carrier:
    """Carries bytes between the terminal and the socket until the command has ended.

    It waits at one place only, for all of it: a signal is passed on whoever does not read.
    """

    def __init__(self, link: socket.socket, early: bytes, terminal: Terminal, *,
                 stdin: bool) -> None:
        self._link = link
        self._buffer = bytearray(early)
        self._terminal = terminal
        self._stdin = stdin
        self._allowed = STDIN_WINDOW
        self._sending = bytearray()
        self._output: deque[tuple[int, memoryview]] = deque()
        self._held = 0
        self._over = False
        self._status = 1
        self._error: Exception | None = None

    def run(self) -> int:
        self._link.setblocking(False)
        self._take_frames()
        while self._output or not self._over:
            self._step()
        if self._error is not None:
            raise self._error
        return self._status

    def _step(self) -> None:
        import select
        link, shown = self._link.fileno(), self._output[0][0] if self._output else -1
        reads = [self._terminal.wakeups]
        if not self._over and self._held < HELD:
            reads.append(link)
        if self._stdin and not self._over and self._allowed and not self._sending:
            reads.append(0)
        writes = [shown] * (shown >= 0) + [link] * bool(self._sending)
        readable, writable, _ = select.select(reads, writes, [])
        if self._terminal.wakeups in readable:
            self._tell_signals()
        if 0 in readable:
            self._read_stdin()
        if self._sending:
            self._send()
        if shown in writable:
            self._show()
        if link in readable:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._link.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # reset: it was killed with something of ours unread
        if not data:
            self._over, self._error = True, NoSessionError("the session ended while the command "
                                                           "ran")
        self._buffer += data
        self._take_frames()

    def _take_frames(self) -> None:
        while len(self._buffer) >= FRAME_HEAD and not self._over:
            kind, length = parse_frame_head(bytes(self._buffer[:FRAME_HEAD]))
            if len(self._buffer) < FRAME_HEAD + length:
                return
            payload = bytes(self._buffer[FRAME_HEAD:FRAME_HEAD + length])
            del self._buffer[:FRAME_HEAD + length]
            self._take(kind, payload)

    def _take(self, kind: FrameKind, payload: bytes) -> None:
        if kind in (FrameKind.STDOUT, FrameKind.STDERR):
            self._output.append((1 if kind is FrameKind.STDOUT else 2, memoryview(payload)))
            self._held += len(payload)
        elif kind is FrameKind.TAKEN:
            self._allowed += int(json.loads(payload)["bytes"])
        elif kind is FrameKind.EXIT:
            self._over, self._status = True, int(json.loads(payload)["status"]) & 0xFF
        elif kind is FrameKind.ERROR:
            self._over, self._error = True, error_from_json(json.loads(payload))

    def _show(self) -> None:
        descriptor, data = self._output.popleft()
        try:
            written = os.write(descriptor, data[:AT_ONCE])
        except BlockingIOError:
            written = 0  # whoever shares it with us made it so
        self._held -= written
        if written < len(data):
            self._output.appendleft((descriptor, data[written:]))

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, min(PIECE, self._allowed))
        except OSError:
            data = b""  # a background job of a terminal, or a terminal that has gone: its end
        self._stdin = bool(data)
        self._allowed -= len(data)
        self._sending += frame(FrameKind.STDIN, data)

    def _tell_signals(self) -> None:
        size, signals = self._terminal.happened()
        if size is not None:
            self._sending += frame(FrameKind.SIZE, json.dumps(
                {"rows": size[0], "columns": size[1]}).encode())
        for number in signals:
            self._sending += frame(FrameKind.SIGNAL, json.dumps({"number": number}).encode())

    def _send(self) -> None:
        try:
            del self._sending[:self._link.send(self._sending)]
        except BlockingIOError:
            return
        except OSError:
            # Its end was reached first; the last frames are still read.
            self._stdin = False
            self._sending.clear()
