"""The history of a project: its generations as the event stream gave them, in SQLite.

One writer (the session) and any number of readers at the same time. A file that is damaged is
moved aside by the writer, never deleted: the project goes on with an empty history and says so.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time

from hyperbox_devcontainer.errors import HistoryError
from hyperbox_devcontainer.paths import private_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SCHEMA = 1
KEEP = 10_000
PRUNE_EVERY = 500
"""Rows between two looks at whether there are more than KEEP."""
BUSY_MS = 2_000
_SIDE_FILES = ("", "-wal", "-shm")
_CREATE = """
CREATE TABLE IF NOT EXISTS generations (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    number INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    event TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_number ON generations (target, number);
"""


class History:
    """The writer's end. Raises HistoryError from every call that fails."""

    def __init__(self, path: str) -> None:
        """Open or make the file at ``path``; its folder becomes the owner's alone."""
        self.path = path
        self.moved_aside: str | None = None
        """Where a damaged file was put, or None: say it to the user."""
        private_dir(os.path.dirname(path))
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            return _prepared(self.path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise HistoryError(f"the history can't be opened: {error}",
                                   file=self.path) from error
            self.moved_aside = _move_aside(self.path)
            return _prepared(self.path)

    def append(self, event: Mapping[str, Any]) -> None:
        """Keep a generation event; now and then the oldest are dropped."""
        row = (str(event.get("target", "")), int(event["number"]), str(event["verdict"]),
               json.dumps(event, separators=(",", ":")))
        try:
            self._insert(row)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise HistoryError(f"the history can't be written: {error}",
                                   file=self.path) from error
            self._db.close()
            self.moved_aside = _move_aside(self.path)
            self._db = _prepared(self.path)
            self._insert(row)

    def _insert(self, row: tuple[str, int, str, str]) -> None:
        done = self._db.execute("INSERT INTO generations (target, number, verdict, event) "
                                "VALUES (?, ?, ?, ?)", row)
        if (done.lastrowid or 0) % PRUNE_EVERY == 0:
            self.prune()

    def latest(self, limit: int, target: str | None = None) -> list[dict[str, Any]]:
        """The last generations, newest first."""
        return _latest(self._db, self.path, limit, target)

    def last_number(self) -> int:
        """The highest number ever given, 0 for none: numbers go on from it."""
        try:
            row = self._db.execute("SELECT max(number) FROM generations").fetchone()
        except sqlite3.DatabaseError as error:
            raise HistoryError(f"the history can't be read: {error}", file=self.path) from error
        return int(row[0] or 0)

    def prune(self, keep: int = KEEP) -> int:
        """Drop all but the newest ``keep``; returns how many went."""
        try:
            done = self._db.execute(
                "DELETE FROM generations WHERE id <= (SELECT id FROM generations "
                "ORDER BY id DESC LIMIT 1 OFFSET ?)", (max(1, keep),))
        except sqlite3.DatabaseError as error:
            raise HistoryError(f"the history can't be pruned: {error}", file=self.path) from error
        return done.rowcount

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def read_history(path: str, limit: int, target: str | None = None) -> list[dict[str, Any]]:
    """The last generations, newest first, without a session; empty where there is no file.

    Never changes the file. Raises HistoryError where it can't be read.
    """
    if not os.path.exists(path):
        return []
    from urllib.parse import quote
    try:
        db = sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", uri=True,
                             timeout=BUSY_MS / 1000)
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error
    try:
        return _latest(db, path, limit, target)
    finally:
        db.close()


def _latest(db: sqlite3.Connection, path: str, limit: int,
            target: str | None) -> list[dict[str, Any]]:
    try:
        rows = db.execute(
            "SELECT event FROM generations WHERE ? IS NULL OR target = ? "
            "ORDER BY id DESC LIMIT ?", (target, target, limit)).fetchall()
        return [json.loads(row[0]) for row in rows]
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> HistoryError:
    return HistoryError(f"the history can't be read: {error}", file=path,
                        hint="the next `hyperbox up` moves it aside if it is damaged")


def _prepared(path: str) -> sqlite3.Connection:
    # Made by us first, so that the store's secrets in it are never readable to others.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    db = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
    try:
        # WAL: a reader never waits for the session, nor the session for a reader.
        db.execute("PRAGMA journal_mode = WAL")
        # Without an fsync for each save: a power cut may cost the last rows, never the file.
        db.execute("PRAGMA synchronous = NORMAL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise HistoryError("the history was written by a newer version of HyperBox",
                               file=path, hint=f"update HyperBox, or: mv {path} {path}.newer")
        db.executescript(_CREATE)
        db.execute(f"PRAGMA user_version = {SCHEMA}")
        db.execute("SELECT id FROM generations ORDER BY id DESC LIMIT 1").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is broken, and not just busy, full or out of reach."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _move_aside(path: str) -> str:
    aside = f"{path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    try:
        for suffix in _SIDE_FILES:
            if os.path.exists(path + suffix):
                os.replace(path + suffix, aside + suffix)
    except OSError as error:
        raise HistoryError(f"the damaged history can't be moved aside: {error.strerror}",
                           file=path) from error
    return aside
