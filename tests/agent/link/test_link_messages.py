from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox_agent.core.bundle import BundleReader, pack_blobs
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.errors import ProtocolError
from hyperbox_agent.link.messages import (
    Configure,
    Configured,
    ExecRequest,
    GenerationRequest,
    RollbackRequest,
    SettleRequest,
    SupersedeRequest,
    Wanted,
    entry_from_json,
    entry_json,
    pack_manifest,
    unpack_manifest,
)
from hyperbox_agent.link.paths import check_path
from hyperbox_agent.store.pruning import Keep

DIGEST = hashlib.sha256(b"x").digest()
FILE = Entry("a/b.py", Kind.FILE, 0o755, 1, DIGEST)
LINK = Entry("l", Kind.LINK, 0o777, 0, DIGEST, "a/b.py")
FOLDER = Entry("a", Kind.DIR, 0o755)

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1,
                max_size=20).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
ENTRIES = st.builds(
    lambda path, mode, size, digest: Entry(path, Kind.FILE, mode, size, digest),
    PATHS, st.integers(0, 0o7777), st.integers(0, 2**50),
    # No content has the digest of 32 zeros; in the compact form it stands for none.
    st.binary(min_size=32, max_size=32).filter(any))


def through_json(data: object) -> Any:
    return json.loads(json.dumps(data))


@pytest.mark.parametrize("message", [
    Configure("s1", "p", "mirror", "/srv/p", {"name": "app", "port": 8000}, Keep(5, 10),
              ("*.lock",)),
    Configured(True, 7, "recreated", 6, {"python": "3.11"}),
    Configured(False, 0, "new"),
    SettleRequest(4), SupersedeRequest(4, 5), RollbackRequest(9, 3),
    ExecRequest(("sh", "-c", "x"), True, 50, 132, {"A": "1"}, "sub/dir"),
    Wanted("a/b.py", FILE), Wanted("gone", None),
])
def test_a_message_comes_back_as_it_was(message: Any) -> None:
    assert type(message).from_json(through_json(message.as_json())) == message


@pytest.mark.parametrize(("kind", "body", "key"), [
    (Configure, {"session": "s"}, "root"),
    (Configure, {"session": "s", "project": "p", "mode": "both", "root": "/r", "app": {}}, "mode"),
    (Configure, {"session": "s", "project": "p", "mode": "mirror", "root": "r", "app": {}}, "root"),
    (Configure, {"session": 1, "project": "p", "mode": "mirror", "root": "/r", "app": {}},
     "session"),
    (Configured, {"adopted": 1, "number": 0, "state": "new"}, "adopted"),
    (SettleRequest, {"number": 0}, "number"),
    (SettleRequest, {"number": True}, "number"),
    (SettleRequest, {"number": 1.5}, "number"),
    (SupersedeRequest, {"number": 2**70}, "number"),
    (ExecRequest, {"argv": []}, "argv"),
    (ExecRequest, {"argv": ["a\0b"]}, "argv"),
    (ExecRequest, {"argv": "sh"}, "argv"),
    (ExecRequest, {"argv": ["sh"], "rows": 0}, "rows"),
    (ExecRequest, {"argv": ["sh"], "env": {"A": 1}}, "env"),
])
def test_what_is_wrong_in_a_message_is_named(kind: Any, body: object, key: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        kind.from_json(body)
    assert caught.value.key == key


@pytest.mark.parametrize("body", [None, [], "x", 3])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(ProtocolError, match="an object was expected"):
        SettleRequest.from_json(body)


@pytest.mark.parametrize("entry", [FILE, LINK, FOLDER])
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    assert entry_from_json(entry.path, through_json(entry_json(entry))) == entry


@pytest.mark.parametrize("data", [
    {"k": "fifo"}, {"k": "file", "m": 0o644, "s": 1}, {"k": "dir", "d": "00" * 32},
    {"k": "link", "d": "00" * 32}, {"k": "link", "d": "00" * 32, "t": ""},
    {"k": "link", "d": "00" * 32, "t": "a\0b"}, {"k": "file", "d": "zz"}, {"k": "file", "d": "00"},
    {"k": "file", "d": "00" * 32, "m": -1}, {"k": "file", "d": "00" * 32, "m": 0o10000},
    {"k": "file", "d": "00" * 32, "s": -1}, [],
])
def test_an_entry_that_makes_no_sense_is_refused(data: object) -> None:
    with pytest.raises(ProtocolError):
        entry_from_json("x", data)


HOSTILE = ["", "/etc/evil", "../evil", "a/../../evil", "..", ".", "a//b", "a/", "./a", "a/./b",
           "a\0b", "x" * 256, "/".join(["x" * 200] * 30), "\ud800"]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_that_could_leave_the_root_is_refused_everywhere(path: str) -> None:
    with pytest.raises(ProtocolError):
        check_path(path)
    with pytest.raises(ProtocolError):
        Wanted.from_json({"path": path, "new": None})
    if path.isprintable():
        with pytest.raises(ProtocolError):
            unpack_manifest(pack_manifest({path: Entry(path, Kind.DIR)}))
        many = [Wanted(f"x{number}", None) for number in range(1000)]
        body, head = GenerationRequest(1, 0, (
                *many, Wanted(path, Entry(path, Kind.FILE, digest=DIGEST)))).pack()
        assert head
        with pytest.raises(ProtocolError):
            GenerationRequest.unpack(body, head)
    body, _ = GenerationRequest(1, 0, (Wanted(path, None),)).pack()
    with pytest.raises(ProtocolError):
        GenerationRequest.unpack(body)


@pytest.mark.parametrize("path", [
    "uv.lock", "migrations/0001.py", ".github/x.yml", ".gitignore", "a b", "ü/é", "ab:c.txt",
    "x" * 255, "\udcff\udc80.bin"])
def test_ordinary_paths_pass(path: str) -> None:
    assert check_path(path) == path


@given(st.lists(ENTRIES, max_size=30, unique_by=lambda entry: entry.path))
def test_a_manifest_comes_back_as_it_was(entries: list[Entry]) -> None:
    manifest = {entry.path: entry for entry in entries}
    back = unpack_manifest(pack_manifest(manifest))
    assert back == manifest


def test_a_bomb_is_not_unpacked() -> None:
    whole = pack_manifest({"a" * 9: Entry("a" * 9, Kind.DIR, 0o755)})
    packed = zlib.compress(b"a" * 9 + b"\0", 1)
    assert packed in whole
    assert unpack_manifest(whole)
    bomb = zlib.compress(bytes(50_000_000), 9)
    head = struct.pack(">IIII", 1, len(bomb), 10, 0)
    with pytest.raises(ProtocolError, match="does not hold what it declares"):
        unpack_manifest(head + whole[16:].replace(packed, bomb))
    with pytest.raises(ProtocolError, match="was announced"):
        unpack_manifest(struct.pack(">IIII", 1, len(bomb), 1 << 29, 0) + bomb)


def generation(count: int) -> GenerationRequest:
    changes = tuple(Wanted(f"pkg/module_{number:05}.py", Entry(
        f"pkg/module_{number:05}.py", Kind.FILE, 0o644, number, DIGEST)) for number in range(count))
    return GenerationRequest(3, 2, (Wanted("old", None, Kind.DIR), *changes), settled=False,
                             paths_pull=("uv.lock",))


@pytest.mark.parametrize(("count", "inline"), [(0, True), (10, True), (20_000, False)])
def test_a_generation_travels_in_the_body_or_at_the_head_of_its_payload(count: int,
                                                                        inline: bool) -> None:
    asked = generation(count)
    body, head = asked.pack()
    body = through_json(body)
    assert (head == b"") is inline
    assert GenerationRequest.head_length(body) == len(head)
    assert len(json.dumps(body)) < 300_000
    assert GenerationRequest.unpack(body, head) == asked


def test_a_deletion_is_listed_also_where_nobody_knows_what_stood_there() -> None:
    asked = GenerationRequest(1, 0, tuple(Wanted(f"x{number}", None) for number in range(1000)))
    back = GenerationRequest.unpack(*asked.pack())
    assert {(one.path, one.new) for one in back.changes} == {
        (one.path, one.new) for one in asked.changes}


def test_a_generation_that_names_a_path_twice_is_refused() -> None:
    body, _ = GenerationRequest(1, 0, (Wanted("a", None), Wanted("a", FOLDER))).pack()
    with pytest.raises(ProtocolError, match="twice"):
        GenerationRequest.unpack(body)


def test_two_way_is_refused_by_name_until_it_is_spoken() -> None:
    body, _ = GenerationRequest(1, 0, ()).pack()
    with pytest.raises(ProtocolError) as caught:
        GenerationRequest.unpack({**body, "direction": "two-way"})
    assert caught.value.key == "direction"


def test_changes_get_their_old_side_from_the_base() -> None:
    new = Entry("a/b.py", Kind.FILE, 0o644, 2, hashlib.sha256(b"y").digest())
    asked = GenerationRequest.of(2, 1, [Change("a/b.py", FILE, new), Change("gone", FILE, None),
                                        Change("never", FILE, None)])
    base = {"a/b.py": FILE, "gone": LINK}
    assert asked.against(base) == (Change("a/b.py", FILE, new), Change("gone", LINK, None))


RECORDS = st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.binary(max_size=400)),
                   max_size=12)


@given(RECORDS, st.integers(1, 97))
def test_a_bundle_comes_back_however_it_is_cut(records: list[tuple[bytes, bytes]],
                                              size: int) -> None:
    wire = b"".join(pack_blobs(records))
    reader, got = BundleReader(), []
    for at in range(0, len(wire), size):
        got += reader.feed(wire[at:at + size])
    reader.end()
    assert got == records


def test_a_bundle_with_big_records_is_not_copied_and_comes_back() -> None:
    records = [(bytes([n]) * 32, bytes([n]) * size)
               for n, size in enumerate((10, 300_000, 0, 128 * 1024, 5, 5, 900_000))]
    pieces = list(pack_blobs(records))
    assert any(piece is records[1][1] for piece in pieces)
    reader = BundleReader()
    assert [one for piece in pieces for one in reader.feed(piece)] == records
    reader.end()


def test_a_bundle_that_is_cut_or_too_big_is_refused() -> None:
    wire = b"".join(pack_blobs([(DIGEST, b"abc")]))
    for cut in range(1, len(wire)):
        reader = BundleReader()
        assert reader.feed(wire[:cut]) == []
        with pytest.raises(ProtocolError, match="cut"):
            reader.end()
    with pytest.raises(ProtocolError, match="the limit is 2"):
        BundleReader(limit=2).feed(wire)
    with pytest.raises(ProtocolError, match="can't be shipped"):
        list(pack_blobs([(b"short", b"")]))
