"""How verbs and the session talk: JSON objects, one a line, on an owner-only unix socket.

Both ends begin with a hello::

    {"hyperbox": "verbs", "version": 1, ...}

A request names a verb and the root of the project that it is about; answers echo its id, which is
the client's choice::

    → {"id": 1, "verb": "flush", "project": "/home/me/shop", "args": {"timeout": 10}}
    ← {"id": 1, "ok": true, "result": {...}}
    ← {"id": 1, "ok": false, "error": {"kind", "message", "file", "line", "key", "hint"}}

A null ``project`` is whichever is there; one that is not there is refused.

A stream answers with events that carry the session's sequence numbers, until the client leaves or
``done`` comes. What a client could not be given any more is told::

    ← {"id": 1, "seq": 17, "event": {...}}
    ← {"id": 1, "lost": 40, "seq": 57}
    ← {"id": 1, "done": true}

``exec`` turns its connection into bytes: after the ``ok`` line both ends send frames of
``kind u8, length u32 (big endian), payload``.

Part of the quick verbs' start: imports stay few.
"""

from __future__ import annotations

import json
from enum import IntEnum

from hyperbox_devcontainer.errors import VerbError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NAME = "verbs"
VERSION = 1
MAX_LINE = 4 * 1024 * 1024
"""Longest line that is read. A peer that sends more is not ours."""
MAX_FRAME = 1024 * 1024
FRAME_HEAD = 5
STDIN_WINDOW = 256 * 1024
"""Bytes of standard input that a client of ``exec`` may have sent without being told that they
were taken: the session reads every frame at once, so a signal never waits behind them."""


class FrameKind(IntEnum):
    """What a frame of ``exec`` carries."""

    STDIN = 0
    """Bytes for standard input; empty: its end."""
    STDOUT = 1
    STDERR = 2
    SIZE = 3
    """``{"rows", "columns"}``"""
    SIGNAL = 4
    """``{"number"}``"""
    EXIT = 5
    """``{"status"}``, the last frame."""
    ERROR = 6
    """An error object, the last frame."""
    TAKEN = 7
    """``{"bytes"}``: so many more of standard input may be sent."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One line. ASCII only: names that are not UTF-8 survive as escaped surrogates."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The object of a line. Raises VerbError for anything else."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        shown = line[:60].decode("ascii", "backslashreplace").rstrip()
        raise VerbError(f"the other end does not speak our protocol: {shown!r}")
    return message


def hello(**facts: Any) -> dict[str, Any]:
    """The first message of either end."""
    return {"hyperbox": NAME, "version": VERSION, **facts}


def check_hello(message: Mapping[str, Any]) -> None:
    """Raise VerbError where the other end is not ours or speaks another version."""
    if message.get("hyperbox") != NAME:
        raise VerbError("the other end of the socket is not a HyperBox session")
    if message.get("version") != VERSION:
        raise VerbError(f"the session speaks version {message.get('version')} of the protocol, "
                        f"this command speaks {VERSION}",
                        hint="end it with the hyperbox that started it, then `hyperbox up`")


def check_project(message: Mapping[str, Any], ours: str | None) -> None:
    """Raise VerbError where the request is about another project than ``ours`` (None: any)."""
    asked = message.get("project")
    if asked is not None and ours is not None and asked != ours:
        raise VerbError(f"this session is of {ours}, not of {str(asked)[:200]}",
                        hint="`hyperbox status --all` shows which are up")


def frame(kind: FrameKind, payload: bytes) -> bytes:
    """One frame of ``exec``."""
    return bytes((kind,)) + len(payload).to_bytes(4, "big") + payload


def parse_frame_head(head: bytes) -> tuple[FrameKind, int]:
    """Kind and length of the frame that ``head`` begins. Raises VerbError."""
    length = int.from_bytes(head[1:FRAME_HEAD], "big")
    try:
        kind = FrameKind(head[0])
    except ValueError as error:
        raise VerbError(f"frame of unknown kind {head[0]}") from error
    if length > MAX_FRAME:
        raise VerbError(f"frame of {length} bytes is over the limit")
    return kind, length
