"""A changed file as the smallest record, and what a hostile record can't do."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import sha

from hyperbox_agent.core import delta
from hyperbox_agent.errors import ProtocolError

BYTES = st.binary(max_size=2000)
ALIKE = st.tuples(BYTES, BYTES, BYTES, BYTES).map(
    lambda parts: (parts[0] + parts[1] + parts[2], parts[0] + parts[3] + parts[2]))


@given(st.one_of(ALIKE, st.tuples(BYTES, BYTES)), st.booleans())
def test_what_was_encoded_comes_back(pair: tuple[bytes, bytes], compress: bool) -> None:
    old, new = pair
    record = delta.encode(new, old, sha(old), compress=compress)
    assert delta.old_digest(record) in (None, sha(old))
    assert delta.decode(record, old, size=len(new)) == new
    assert len(record) <= len(new) + 1
    alone = delta.encode(new, compress=compress)
    assert delta.old_digest(alone) is None
    assert delta.decode(alone, size=len(new)) == new


def common(one: bytes, other: bytes) -> int:
    return next((at for at, (left, right) in enumerate(zip(one, other, strict=False))
                 if left != right), min(len(one), len(other)))


@given(ALIKE)
def test_a_delta_is_the_longest_common_prefix_and_suffix(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    made = delta.make(old, new)
    prefix = common(old, new)
    rest = min(len(old), len(new)) - prefix
    suffix = min(rest, common(old[::-1], new[::-1]))
    if made is None:
        assert prefix == suffix == 0
    else:
        assert (made.prefix, made.suffix) == (prefix, suffix)


def test_one_line_in_a_large_file_is_41_bytes_and_the_line() -> None:
    old = b"".join(b"line %d\n" % number for number in range(20_000))
    new = old.replace(b"line 10000\n", b"line 1000X\n")
    record = delta.encode(new, old, sha(old))
    assert len(record) == 41 + 1
    assert delta.decode(record, old) == new


def test_whichever_form_is_smallest_is_taken() -> None:
    text, noise = b"the same line\n" * 1000, os.urandom(10_000)
    assert len(delta.encode(text)) < 200
    assert len(delta.encode(noise)) == 10_001
    assert len(delta.encode(text, noise, sha(noise))) < 200
    assert len(delta.encode(text, compress=False)) == len(text) + 1
    grown = noise + text
    assert 41 < len(delta.encode(grown, noise, sha(noise))) < 200
    assert len(delta.encode(b"new", b"old!" * 100, sha(b"old!" * 100))) == 4


def test_the_common_ends_of_large_files_are_found_quickly() -> None:
    # Its first and last byte are none of the edit's: the ends would reach into that by chance.
    old = (b"\0" + os.urandom((1 << 20) - 2) + b"\0") * 32
    new = old[: 16 << 20] + b"edit" + old[16 << 20 :]
    begun = time.process_time()
    made = delta.make(old, new)
    assert time.process_time() - begun < 10.0
    assert made == delta.Delta(16 << 20, 16 << 20, b"edit")


HOSTILE = {
    "empty": b"",
    "unknown form": b"\x09abc",
    "zlib cut off": b"\x01\x00",
    "zlib that declares a terabyte": struct.pack(">BQ", 1, 1 << 40) + zlib.compress(b"x"),
    "zlib that holds less": struct.pack(">BQ", 1, 900) + zlib.compress(bytes(800)),
    "zlib that holds more": struct.pack(">BQ", 1, 900) + zlib.compress(bytes(100_000)),
    "zlib and something behind it": struct.pack(">BQ", 1, 900) + zlib.compress(bytes(900)) + b"x",
    "no zlib": struct.pack(">BQ", 1, 900) + b"garbage",
    "delta cut off": b"\x02\x00\x00",
    "delta beyond the old file": struct.pack(">BII32s", 2, 3, 3, sha(b"12345")),
    "delta of another size": struct.pack(">BII32s", 2, 1, 1, sha(b"12345")) + b"x",
    "deflated delta cut off": struct.pack(">BII32s", 3, 1, 1, sha(b"12345")) + b"\x00",
    "deflated delta, a bomb": (struct.pack(">BII32sI", 3, 1, 1, sha(b"12345"), 898)
                               + zlib.compress(bytes(50_000_000))),
    "deflated delta that declares much": (
        struct.pack(">BII32sI", 3, 1, 1, sha(b"12345"), 0xFFFF_FFFF) + zlib.compress(b"x")),
}


@pytest.mark.parametrize("record", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_record_is_refused_and_takes_no_memory(record: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            delta.decode(record, b"12345", size=900)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_delta_for_a_file_that_is_not_here_is_refused() -> None:
    record = delta.encode(b"x" * 1000 + b"y", b"x" * 1000, sha(b"x" * 1000), compress=False)
    assert delta.old_digest(record) == sha(b"x" * 1000)
    with pytest.raises(ProtocolError, match="not here"):
        delta.decode(record)


@given(st.binary(max_size=200), BYTES, st.integers(0, 3000))
def test_garbage_gives_bytes_of_the_size_asked_for_or_an_error(record: bytes, old: bytes,
                                                              size: int) -> None:
    try:
        assert len(delta.decode(record, old, size=size)) == size
    except ProtocolError:
        pass
