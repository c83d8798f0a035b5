"""The op ``ahead`` on the wire: what is packed is unpacked, and nothing else is let in."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import Files, blobs_of, entry_of, manifest_of, trees

from hyperbox_agent.core.codec import encode_entries
from hyperbox_agent.core.entries import Entry, Kind
from hyperbox_agent.errors import ProtocolError
from hyperbox_agent.link.ahead import LIMIT, pack_files, unpack_files


def pairs(files: Files) -> list[tuple[Entry, bytes]]:
    contents = blobs_of(files)
    return [(entry, contents[entry.digest]) for entry in manifest_of(files).values()
            if entry.kind is Kind.FILE]


@given(files=trees(), compress=st.booleans())
def test_files_come_as_they_went(files: Files, compress: bool) -> None:
    sent = pairs(files)
    came = unpack_files(*pack_files(sent, compress=compress))
    assert [(entry, bytes(data)) for entry, data in came] == sent


@given(compress=st.booleans(), cut=st.integers(1, 60))
def test_a_payload_that_is_cut_is_refused(compress: bool, cut: int) -> None:
    body, payload = pack_files(pairs({"a.py": b"print(1)\n" * 20, "b.py": b"2"}),
                               compress=compress)
    with pytest.raises(ProtocolError):
        unpack_files(body, payload[:-cut])


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ""])
def test_a_path_that_leaves_the_root_is_refused(path: str) -> None:
    with pytest.raises(ProtocolError):
        unpack_files(*pack_files([(entry_of(path, b"1"), b"1")], compress=False))


def test_more_than_was_announced_is_never_unpacked() -> None:
    head = encode_entries([entry_of("a.py", b"1")])
    bomb = zlib.compress(bytes(50 << 20))
    with pytest.raises(ProtocolError, match="not what was announced"):
        unpack_files({"listed": len(head), "deflated": True}, head + bomb)


def test_sizes_beyond_the_limit_are_refused_before_anything_is_unpacked() -> None:
    head = encode_entries([Entry("a", Kind.FILE, 0o644, LIMIT + 1, b"d" * 32)])
    with pytest.raises(ProtocolError, match="are allowed"):
        unpack_files({"listed": len(head), "deflated": True}, head + b"x")


@pytest.mark.parametrize("body", [{}, {"listed": 10_000, "deflated": False},
                                  {"listed": "3", "deflated": False}, {"listed": 0}])
def test_a_body_that_makes_no_sense_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        unpack_files(body, b"1234")
