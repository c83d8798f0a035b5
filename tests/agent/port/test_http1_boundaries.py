from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox_agent.core.http1 import HEAD_LIMIT, RequestTracker, ResponseTracker, may_be_request


def follow_requests(pieces: list[bytes]) -> tuple[list[bytes], bytes, bool]:
    """Feed pieces as a relay does: whole messages, what is left, whether it became opaque."""
    tracker = RequestTracker()
    messages, current, waiting = [], b"", b""
    for piece in pieces:
        waiting += piece
        while waiting:
            taken = tracker.feed(waiting)
            assert 0 <= taken <= len(waiting)
            current, waiting = current + waiting[:taken], waiting[taken:]
            if tracker.done:
                messages.append(current)
                current = b""
                tracker.next()
            elif taken == 0 or tracker.opaque:
                break
    return messages, current + waiting, tracker.opaque


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({min(it, len(data)) for it in at} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


tokens = st.text("abcXYZ-09", min_size=1, max_size=8).map(str.encode)
values = st.text("abc ,;=/\t:éß", max_size=12).map(lambda text: text.encode("latin-1").strip())
fields = st.lists(st.tuples(tokens.map(b"X-".__add__), values), max_size=4).map(
    lambda found: b"".join(name + b": " + value + b"\r\n" for name, value in found))


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    body = b""
    for data in draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4)):
        extension = draw(st.sampled_from([b"", b";a=b", b' ; q="x;y"']))
        body += b"%x" % len(data) + extension + b"\r\n" + data + b"\r\n"
    return body + b"0\r\n" + draw(fields) + b"\r\n"


@st.composite
def framed(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Fields that announce a body, and the body."""
    if draw(st.booleans()):
        data = draw(st.binary(max_size=80))
        names = [b"Content-Length:", b"content-length: ", b"CONTENT-LENGTH:\t"]
        return draw(st.sampled_from(names)) + b"%d\r\n" % len(data), data
    name = draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked",
                                 b"Transfer-Encoding: gzip, chunked"]))
    return name + b"\r\n", draw(chunked())


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PURGE", b"M-SEARCH"]))
    extra, body = draw(st.one_of(st.just((b"", b"")), framed()))
    lead = draw(st.sampled_from([b"", b"", b"\r\n"]))
    before, after = draw(fields), draw(fields)
    head = lead + method + b" /p?q HTTP/1.1\r\nHost: a\r\n" + before + extra + after
    return head + b"\r\n" + body


@settings(max_examples=60, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=4), st.lists(st.integers(0, 900), max_size=20))
def test_any_cutting_of_a_stream_gives_the_same_requests(sent: list[bytes], at: list[int]) -> None:
    messages, rest, opaque = follow_requests(cut(b"".join(sent), at))
    assert (messages, rest, opaque) == (sent, b"", False)


@settings(max_examples=40, deadline=None)
@given(requests())
def test_a_stream_of_single_bytes_gives_the_same_request(sent: bytes) -> None:
    assert follow_requests([bytes([byte]) for byte in sent]) == ([sent], b"", False)


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A method, and a whole answer to it that keeps the connection."""
    method = draw(st.sampled_from([b"GET", b"HEAD"]))
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n",
                                    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]))
    status = draw(st.sampled_from([b"200 OK", b"204 None", b"304 Not Modified", b"404 ", b"500"]))
    extra, body = draw(framed())
    if method == b"HEAD" or status[:3] in (b"204", b"304"):
        body = b""
    return method, interim + b"HTTP/1.1 " + status + b"\r\n" + draw(fields) + extra + b"\r\n" + body


@settings(max_examples=60, deadline=None)
@given(responses(), st.binary(max_size=5), st.lists(st.integers(0, 600), max_size=12))
def test_any_cutting_of_an_answer_gives_the_same_end(
    exchange: tuple[bytes, bytes], behind: bytes, at: list[int],
) -> None:
    method, sent = exchange
    tracker = ResponseTracker()
    tracker.begin(method)
    waiting, taken_all = b"", 0
    for piece in cut(sent + behind, at):
        waiting += piece
        if tracker.done:
            continue
        taken = tracker.feed(waiting)
        taken_all += taken
        waiting = waiting[taken:]
    assert tracker.done
    assert tracker.keep
    assert (taken_all, waiting) == (len(sent), behind)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"GET / HTTP/1.1\r\n", b"Content-Length: 5\r\n", b"\r\n\r\n", b"\n", b"0\r\n",
                     b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 200 OK\r\n", b"\r", b" "]),
), max_size=12))
def test_garbage_never_raises_and_loses_no_byte(pieces: list[bytes]) -> None:
    messages, rest, _opaque = follow_requests(pieces)
    assert b"".join(messages) + rest == b"".join(pieces)
    answer = ResponseTracker()
    answer.begin(b"GET")
    waiting = b""
    for piece in pieces:
        waiting += piece
        taken = answer.feed(waiting)
        assert 0 <= taken <= len(waiting)
        waiting = waiting[taken:]


@pytest.mark.parametrize("head", [
    b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding\t: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nX: a\r\n Content-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nX: a\r\n\tb\r\n\r\n",
    b"POST / HTTP/1.1\r\nX: a\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nX: a\rContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\nContent-Length: 5\n\n",
    b"GET / HTTP/1.1\r\nX: \0\r\n\r\n",
    b"GET / HTTP/1.1\r\nConnection\r\n\r\n",
    b"GET / HTTP/2.0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET  / HTTP/1.1\r\n\r\n",
    b" GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"\0",
])
def test_what_has_no_single_reading_is_opaque(head: bytes) -> None:
    tracker = RequestTracker()
    assert tracker.feed(head) == len(head)
    assert tracker.opaque
    assert not tracker.done
    assert tracker.feed(b"more") == 4


@pytest.mark.parametrize(("head", "keep"), [
    (b"GET / HTTP/1.1\r\n\r\n", True),
    (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
    (b"GET / HTTP/1.1\r\nConnection: Close, TE\r\n\r\n", False),
    (b"GET / HTTP/1.1\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", False),
    (b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nConnection-Id: close\r\n\r\n", True),
    (b"GET / HTTP/1.0\r\n\r\n", False),
    (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
])
def test_a_request_says_whether_its_connection_lives_on(head: bytes, keep: bool) -> None:
    tracker = RequestTracker()
    tracker.feed(head)
    assert (tracker.done, tracker.keep) == (True, keep)


@pytest.mark.parametrize("data", [
    b"", b"\r", b"\r\n", b"G", b"GET", b"GET ", b"GET /x", b"GET /x H", b"GET /x HTTP/1.",
    b"GET /x HTTP/1.1\r", b"GET /x HTTP/1.1\r\n", b"GET /x HTTP/1.1\r\nA: b\r\n", b"\r\nGET /",
    b"GET /x HTTP/1.1\r\nA: b\r\n\r",
])
def test_a_part_of_a_request_is_waited_for(data: bytes) -> None:
    assert may_be_request(data)
    assert RequestTracker().feed(data) == 0


@pytest.mark.parametrize("data", [
    b"\x16", b"{", b"GET\r\n", b"GET / FTP", b"GET / HTTP/2", b"x" * 40, b"GET / HTTP/1.1\n\n",
])
def test_what_can_never_be_a_request_is_not_waited_for(data: bytes) -> None:
    assert not may_be_request(data)


def test_a_head_over_the_limit_is_opaque() -> None:
    head = b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_LIMIT
    tracker = RequestTracker()
    tracker.feed(head)
    assert tracker.opaque


@pytest.mark.parametrize("body", [
    b"5\n", b"5;\nhello", b"g\r\n", b"\r\n", b"-1\r\n", b"5\r\nhelloX\r\n", b"1_0\r\n",
    b"0\r\nA: b\n\r\n", b"1" * 9000,
])
def test_a_chunked_body_that_is_none_is_opaque(body: bytes) -> None:
    tracker = RequestTracker()
    tracker.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert tracker.opaque


@pytest.mark.parametrize(("answer", "kind"), [
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "opaque"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "opaque"),
    (b"SSH-2.0-OpenSSH\r\n", "opaque"),
    (b"hello", "opaque"),
    (b"HTTP/1.1 200 OK\r\n\r\n", "until_close"),
    (b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\n", "until_close"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", "events"),
])
def test_answers_without_a_length(answer: bytes, kind: str) -> None:
    tracker = ResponseTracker()
    tracker.begin(b"GET")
    tracker.feed(answer)
    assert getattr(tracker, kind)
    assert not tracker.done
