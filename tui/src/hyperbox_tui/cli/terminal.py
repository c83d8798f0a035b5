"""The person's terminal while `exec` has it: raw, watched for its size, always given back."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Terminal:
    """A context: inside it keys go to the command as they are (``raw``), and signals are collected.

    ``wakeups`` becomes readable when something happened.
    """

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._saved: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._pending: list[int] = []
        self.wakeups = -1
        self._waker = -1

    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        for descriptor in (1, 0, 2):
            try:
                columns, rows = os.get_terminal_size(descriptor)
            except OSError:
                continue
            if rows and columns:
                return rows, columns
        return 24, 80

    def happened(self) -> tuple[tuple[int, int] | None, list[int]]:
        """The new size, if it changed, and the signals to pass on."""
        try:
            os.read(self.wakeups, 512)
        except BlockingIOError:
            pass
        pending, self._pending = self._pending, []
        size = self.size() if signal.SIGWINCH in pending else None
        return size, [number for number in pending if number != signal.SIGWINCH]

    def __enter__(self) -> Terminal:
        self.wakeups, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGWINCH, *_PASSED_ON):
            self._handlers[number] = signal.signal(number, self._caught)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        if self._raw:
            import termios
            import tty
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._saved is not None:
            import termios
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self.wakeups)
        os.close(self._waker)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self._pending.append(number)


