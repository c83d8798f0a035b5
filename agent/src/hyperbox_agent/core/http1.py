"""Where HTTP/1.x messages begin and end (RFC 9112): bytes in, boundaries out, no I/O.

A relay must know boundaries and nothing else: which byte is the last of a request, whether the
answer is complete, whether the connection lives on. What is not plainly one message after another
(another protocol, both lengths at once, a length that is no number, folded lines, bare line feeds)
is *opaque*: from there on the bytes are only passed, in order, to the peer that got the first of
them. Two readers of such bytes may disagree about where a message ends, so this one never guesses.

No dataclasses here: the port holder imports this module and counts its memory in pages.
"""

from __future__ import annotations

import re

HEAD_LIMIT = 64 * 1024
"""A head (start line and fields) longer than this is opaque."""
LINE_LIMIT = 8 * 1024
"""A chunk-size line or trailer line longer than this is opaque."""

_TOKEN_CHARS = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOKEN = frozenset(_TOKEN_CHARS)
_HEX_CHARS = b"0123456789abcdefABCDEF"
_TEXT_CHARS = bytes(c for c in range(256) if c == 9 or (c >= 32 and c != 127))
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) [^ \r\n]+ HTTP/1\.([01])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r\n]*)?\r\n")
_METHOD_LIMIT = 32
_LENGTH_DIGITS = 18

# The fields that say where a message ends, and folded lines. One pass over the lower-cased head
# costs a quarter of a search for each name.
_DECIDING = re.compile(
    rb"\n([ \t]|content-length|transfer-encoding|connection|expect)([^\n]*)\r"
)
_EVENT_STREAM = b"\r\ncontent-type: text/event-stream"

_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))


class _UnclearError(ValueError):
    """The head has no single reading."""


class Length:
    """A body of a stated number of bytes."""

    __slots__ = ("broken", "done", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.done = left == 0
        self.broken = False

    def take(self, data: bytes, at: int) -> int:
        """The index in ``data`` just after this body's bytes, which begin or go on at ``at``."""
        have = len(data) - at
        if have < self.left:
            self.left -= have
            return len(data)
        end = at + self.left
        self.left = 0
        self.done = True
        return end


class UntilClose:
    """A body that ends with the connection."""

    __slots__ = ("broken", "done")

    def __init__(self) -> None:
        self.done = False
        self.broken = False

    def take(self, data: bytes, at: int) -> int:
        """All of it."""
        return max(len(data), at)


class Chunked:
    """A chunked body with its extensions and trailers. ``broken`` once it is not one."""

    __slots__ = ("_expect", "_left", "_line", "broken", "done")

    _SIZE, _DATA_END, _TRAILER = range(3)

    def __init__(self) -> None:
        self._left = 0
        self._line = b""
        self._expect = self._SIZE
        self.done = False
        self.broken = False

    def take(self, data: bytes, at: int) -> int:
        """The index just after this body's bytes; the rest of ``data`` once it is broken."""
        end = len(data)
        while at < end and not self.done:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
                continue
            stop = data.find(b"\n", at) + 1
            line = self._line + data[at:stop or end]
            if len(line) > LINE_LIMIT:
                self.broken = True
            elif stop:
                self._line = b""
                self._end_of_line(line)
            else:
                self._line = line
            at = stop or end
            if self.broken:
                return end
        return at

    def _end_of_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            self.broken = True
        elif self._expect == self._TRAILER:
            self.done = line == b"\r\n"
        elif self._expect == self._DATA_END:
            self._expect = self._SIZE
            self.broken = line != b"\r\n"
        else:
            self._begin_chunk(line)

    def _begin_chunk(self, line: bytes) -> None:
        digits = line[:-2].partition(b";")[0].rstrip(b" \t")
        if not digits or len(digits) > _LENGTH_DIGITS or digits.translate(None, _HEX_CHARS):
            self.broken = True
            return
        self._left = int(digits, 16)
        self._expect = self._DATA_END if self._left else self._TRAILER


Body = Length | Chunked | UntilClose


def _read_fields(head: bytes, minor: int) -> tuple[Body | None, bool, bool]:
    """What a lower-cased head says: the body that it announces, keep, expects.

    Raises _UnclearError at everything that readers take in different ways.
    """
    # One pass leaves the controls; they must be nothing but the line ends.
    if len(head.translate(None, _TEXT_CHARS)) != 2 * head.count(b"\r\n"):
        raise _UnclearError
    keep = minor == 1
    closes = expects = False
    coding: bytes | None = None
    length: bytes | None = None
    for name, rest in _DECIDING.findall(head):
        if rest[:1] != b":":
            _check_other(name, rest)
        elif name == b"connection":
            options = [option.strip(b" \t") for option in rest[1:].split(b",")]
            closes = closes or b"close" in options
            keep = keep or b"keep-alive" in options
        elif name == b"expect":
            expects = True
        elif name == b"content-length" and length is None:
            length = rest[1:].strip(b" \t")
        elif name == b"transfer-encoding" and coding is None:
            coding = rest[1:].strip(b" \t")
        else:
            raise _UnclearError  # said twice, or a folded line
    body = None if coding is length is None else _announced(coding, length, minor)
    return body, keep and not closes, expects


def _check_other(name: bytes, rest: bytes) -> None:
    """Another field whose name begins like ``name`` is none of ours; all else is unclear."""
    if not rest or rest[0] not in _TOKEN or name in b" \t":
        raise _UnclearError  # no colon, a space before it, or a folded line


def _announced(coding: bytes | None, length: bytes | None, minor: int) -> Body:
    """The body that a Transfer-Encoding or a Content-Length announces. Raises _UnclearError."""
    if coding is not None:
        last = coding.rpartition(b",")[2].strip(b" \t")
        if length is not None or minor == 0 or last != b"chunked" or coding.count(last) > 1:
            raise _UnclearError
        return Chunked()
    if length is None or not length.isdigit() or len(length) > _LENGTH_DIGITS:
        raise _UnclearError
    return Length(int(length))


def may_be_request(data: bytes) -> bool:
    """Whether ``data``, which has no complete head, can still become an HTTP/1.x request."""
    start = _past_blank_lines(data)
    if start == len(data):
        return True
    if b"\n" in data[start:]:
        if _REQUEST_LINE.match(data, start) is None:
            return False
        return b"\n\n" not in data and b"\n\r\n" not in data[start:-1]
    method, space, rest = data[start:].partition(b" ")
    if len(method) > _METHOD_LIMIT or not method or method.translate(None, _TOKEN_CHARS):
        return data[start:] == b"\r"
    _target, space, version = rest.partition(b" ")
    return not space or b"HTTP/1.0\r".startswith(version) or b"HTTP/1.1\r".startswith(version)


def _past_blank_lines(data: bytes) -> int:
    """Where the request line begins: old clients send an empty line after a body."""
    start = 0
    while data.startswith(b"\r\n", start):
        start += 2
    return start


class RequestTracker:
    """Follows the requests of one connection, one at a time.

    ``feed`` until ``done``, then ``next``. After ``opaque`` became true it stays.
    """

    __slots__ = ("body", "done", "expects", "keep", "method", "opaque")

    def __init__(self) -> None:
        self.opaque = False
        self.next()

    def next(self) -> None:
        """Begin a new message."""
        self.method = b""
        self.keep = False
        self.expects = False
        self.done = False
        self.body: Body | None = None

    @property
    def idempotent(self) -> bool:
        """Whether doing it twice is doing it once."""
        return self.method in _IDEMPOTENT

    def feed(self, data: bytes) -> int:
        """How many bytes at the start of ``data`` belong to the message.

        0: its head is not complete; feed the same bytes again with more behind them.
        """
        at = 0
        if not self.method:
            at = self._take_head(data)
            if at == 0 or self.opaque:
                return at
        body = self.body
        if body is None:
            self.done = True
            return at
        end = body.take(data, at)
        self.done = body.done
        self.opaque = body.broken
        return end

    def _take_head(self, data: bytes) -> int:
        start = _past_blank_lines(data) if data[:1] == b"\r" else 0
        end = data.find(b"\r\n\r\n", start) + 4
        if end == 3:
            if len(data) < HEAD_LIMIT and not self.opaque and may_be_request(data):
                return 0
        elif end <= HEAD_LIMIT and not self.opaque and self._parse(data[start:end]):
            return end
        self.opaque = True
        return len(data)

    def _parse(self, head: bytes) -> bool:
        line = _REQUEST_LINE.match(head)
        if line is None or line[1] == b"CONNECT":
            return False
        try:
            self.body, self.keep, self.expects = _read_fields(head.lower(), int(line[2]))
        except _UnclearError:
            return False
        self.method = line[1]
        return True


class ResponseTracker:
    """Follows the answer to one request: interim heads, the final head, its body.

    ``begin`` for each request, then ``feed`` until ``done``. ``opaque``: an upgrade (101), or bytes
    that are no clear answer. ``until_close``: only the end of the connection ends it.
    """

    __slots__ = ("_head_only", "body", "done", "events", "keep", "opaque", "status", "until_close")

    def __init__(self) -> None:
        self.begin(b"")

    def begin(self, method: bytes) -> None:
        """Await the answer to a request of this method."""
        self._head_only = method == b"HEAD"
        self.status = 0
        self.keep = False
        self.done = False
        self.opaque = False
        self.until_close = False
        self.events = False
        self.body: Body | None = None

    def feed(self, data: bytes) -> int:
        """As RequestTracker.feed. An interim answer (1xx) is taken with nothing done."""
        at = 0
        while self.status < 200:
            end = self._take_head(data, at)
            if end == at or self.opaque:
                return end
            at = end
        if self.body is None:
            self.done = True
            return at
        end = self.body.take(data, at)
        self.done = self.body.done
        self.opaque = self.body.broken
        return end

    def _take_head(self, data: bytes, at: int) -> int:
        if self.opaque:
            return len(data)
        end = data.find(b"\r\n\r\n", at) + 4
        if end == 3:
            if len(data) - at < HEAD_LIMIT and _may_be_response(data[at:]):
                return at
        elif end - at <= HEAD_LIMIT and self._parse(data[at:end] if at else data[:end]):
            return end
        self.opaque = True
        return len(data)

    def _parse(self, head: bytes) -> bool:
        line = _STATUS_LINE.match(head)
        if line is None:
            return False
        self.status = status = int(line[2])
        if status < 200:
            return status != 101
        lowered = head.lower()
        try:
            self.body, self.keep, _ = _read_fields(lowered, int(line[1]))
        except _UnclearError:
            return False
        if self._head_only or status in (204, 304):
            self.body = None
        elif self.body is None:
            self.body = UntilClose()
            self.until_close = True
            self.keep = False
        self.events = _EVENT_STREAM in lowered
        return True


def _may_be_response(data: bytes) -> bool:
    if b"\n" not in data:
        return b"HTTP/1.".startswith(data[:7]) and len(data) < LINE_LIMIT
    return _STATUS_LINE.match(data) is not None and b"\n\n" not in data
