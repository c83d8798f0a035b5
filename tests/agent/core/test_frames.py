"""Frames survive any cut of the stream, and what is no frame is refused at once."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox_agent.core.frames import HEADER_SIZE, MAX_PAYLOAD, Frame, FrameDecoder, encode
from hyperbox_agent.errors import ProtocolError

FRAMES = st.lists(st.builds(Frame, st.integers(0, 255), st.integers(0, 2**32 - 1),
                            st.binary(max_size=300)), max_size=12)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=30))
def test_any_cut_of_the_stream_gives_the_same_frames(frames: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(encode(frame.kind, frame.channel, frame.payload) for frame in frames)
    decoder = FrameDecoder()
    got = [frame for piece in pieces_of(stream, cuts) for frame in decoder.feed(piece)]
    assert got == frames
    assert decoder.pending == 0
    decoder.finish()


@given(FRAMES)
def test_byte_by_byte(frames: list[Frame]) -> None:
    stream = b"".join(encode(frame.kind, frame.channel, frame.payload) for frame in frames)
    decoder = FrameDecoder()
    got = [frame for byte in stream for frame in decoder.feed(bytes((byte,)))]
    assert got == frames


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_garbage_is_refused_or_awaited_and_never_held_beyond_the_limit(data: bytes,
                                                                       cuts: list[int]) -> None:
    decoder = FrameDecoder(limit=64, kinds=frozenset({1, 2, 3}))
    try:
        for piece in pieces_of(data, cuts):
            for frame in decoder.feed(piece):
                assert frame.kind in (1, 2, 3)
                assert len(frame.payload) <= 64
            assert decoder.pending < HEADER_SIZE + 64
    except ProtocolError:
        with pytest.raises(ProtocolError):
            decoder.feed(b"x")


def test_a_hostile_length_is_refused_before_its_payload_is_awaited() -> None:
    with pytest.raises(ProtocolError, match="4294967295"):
        FrameDecoder().feed(struct.pack(">IBI", 0xFFFF_FFFF, 1, 0))


def test_frames_before_a_broken_header_are_lost_with_the_stream() -> None:
    decoder = FrameDecoder(limit=10)
    with pytest.raises(ProtocolError):
        decoder.feed(encode(1, 0, b"fine") + struct.pack(">IBI", 11, 1, 0))


def test_a_stream_that_ends_inside_a_frame_says_so() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(encode(1, 2, b"abc")[:-1]) == []
    with pytest.raises(ProtocolError, match="11 bytes"):
        decoder.finish()


def test_the_largest_payload_passes_and_one_byte_more_is_refused() -> None:
    data = bytes(MAX_PAYLOAD)
    assert FrameDecoder().feed(encode(7, 9, data)) == [Frame(7, 9, data)]
    with pytest.raises(ValueError, match="at most"):
        encode(7, 9, data + b"x")
    with pytest.raises(ValueError, match="out of range"):
        encode(256, 0)
