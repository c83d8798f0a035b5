"""Entries and changes as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import Files, Link, manifest_of, trees

from hyperbox_agent.core.codec import (
    decode_changes,
    decode_entries,
    encode_changes,
    encode_entries,
)
from hyperbox_agent.core.entries import Entry, Kind
from hyperbox_agent.core.plan import diff
from hyperbox_agent.errors import ProtocolError


@given(trees())
def test_entries_come_back(files: Files) -> None:
    entries = list(manifest_of(files).values())
    assert decode_entries(encode_entries(entries)) == entries


@given(trees(), trees())
def test_changes_come_back(old: Files, new: Files) -> None:
    changes = diff(manifest_of(old), manifest_of(new))
    assert decode_changes(encode_changes(changes)) == changes


def test_names_that_are_no_text_and_links_to_them_come_back() -> None:
    files: Files = {"caf\udce9": b"1", "new\nline\ttab": b"2", "e\u0301": b"3", "\u00e9": b"4",
                    "link": Link("caf\udce9")}
    entries = list(manifest_of(files).values())
    assert decode_entries(encode_entries(entries)) == entries


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    """Its sizes must agree and its names be a whole zlib stream: chance does not make that."""
    for decode in (decode_changes, decode_entries):
        with pytest.raises(ProtocolError):
            decode(data)


@given(trees(), st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_gives_entries(files: Files, at: int, value: int) -> None:
    data = bytearray(encode_entries(list(manifest_of(files).values())))
    data[at % len(data)] = value
    try:
        assert all(isinstance(entry, Entry) for entry in decode_entries(bytes(data)))
    except ProtocolError:
        pass


@given(trees(), st.integers(1, 500))
def test_what_is_cut_off_is_refused(files: Files, missing: int) -> None:
    data = encode_entries(list(manifest_of(files).values()))
    with pytest.raises(ProtocolError):
        decode_entries(data[: max(0, len(data) - missing)])


def test_a_path_that_is_listed_twice_is_refused() -> None:
    entry = Entry("a", Kind.DIR)
    twice, nothing = encode_entries([entry, entry]), encode_entries([])
    sizes = len(twice).to_bytes(4, "big") + len(nothing).to_bytes(4, "big")
    with pytest.raises(ProtocolError, match="twice"):
        decode_changes(sizes + twice + nothing)
