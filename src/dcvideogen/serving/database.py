"""The one SQLite file of a data folder: made as a whole, opened by many, written in short transactions."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dcvideogen.errors import UserError

FILE = "serving.sqlite3"
VERSION = 1
# How long a transaction waits for that of another process. Ours take milliseconds, so that only a stuck disk or a
# stopped process is ever waited for; then sqlite3.OperationalError, which a server answers with 503.
BUSY_S = 10.0
# The key under which a server that is bound to loopback works: it has no secret, so nobody can present it.
LOCAL_KEY = "local"
_APPLICATION = 0x64637667  # "dcvg": tells our file from other SQLite files

_SCHEMA = f"""
CREATE TABLE keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, salt BLOB, hash BLOB,
    created REAL NOT NULL, last_used REAL, revoked REAL,
    queued_at_once INTEGER, videos_per_day INTEGER
) STRICT;
INSERT INTO keys (id, name, created) VALUES ('{LOCAL_KEY}', 'this machine', unixepoch());

-- Kept when a job is deleted: otherwise deleting would lift the daily limit.
CREATE TABLE daily_videos (
    key_id TEXT NOT NULL REFERENCES keys (id), day INTEGER NOT NULL, videos INTEGER NOT NULL,
    PRIMARY KEY (key_id, day)
) STRICT;

CREATE TABLE uploads (
    id TEXT PRIMARY KEY, key_id TEXT NOT NULL REFERENCES keys (id),
    facts TEXT NOT NULL, created REAL NOT NULL
) STRICT;
CREATE INDEX uploads_of_key ON uploads (key_id);

CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    key_id TEXT NOT NULL REFERENCES keys (id), model TEXT NOT NULL, request TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'in_progress', 'completed', 'failed', 'cancelled')),
    created REAL NOT NULL, started REAL, finished REAL, seconds REAL,
    stage TEXT, done INTEGER, total INTEGER, preview INTEGER NOT NULL DEFAULT 0,
    cancel INTEGER NOT NULL DEFAULT 0, claims INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0,
    device TEXT, owner_place TEXT, owner_pid INTEGER, owner_started INTEGER, lease_until REAL,
    error_code TEXT, error_message TEXT, error_hint TEXT, num_bytes INTEGER
) STRICT;
CREATE INDEX jobs_in_order ON jobs (status, number);
CREATE INDEX jobs_of_key ON jobs (key_id, number);
CREATE INDEX jobs_by_end ON jobs (status, finished);

-- For metrics: they must not fall when jobs are removed.
CREATE TABLE totals (status TEXT PRIMARY KEY, jobs INTEGER NOT NULL) STRICT;
CREATE TRIGGER count_ends AFTER UPDATE OF status ON jobs
WHEN old.status IN ('queued', 'in_progress') AND new.status NOT IN ('queued', 'in_progress')
BEGIN
    INSERT INTO totals VALUES (new.status, 1) ON CONFLICT (status) DO UPDATE SET jobs = jobs + 1;
END;

PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {VERSION};
"""


class Database:
    """The database of a data folder; both are made if they are not there, readable by this user alone.

    One connection, shared by the threads of the process, one transaction at a time (a fraction of a millisecond each;
    durable ones take a flush of the disk, some milliseconds): call it from worker threads, not in an event loop.
    The folder must lie on a local disk: SQLite's write-ahead log does not work over a network.
    UserError: the folder cannot be written, the file is no database of ours, or one of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.RLock()
        self._left_behind: list[sqlite3.Connection] = []
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self.path.exists():
                _make(self.path)
            self._connection, self._pid = _opened(self.path), os.getpid()
        except (OSError, sqlite3.OperationalError) as error:
            raise UserError(f"{folder} cannot be a data folder ({error}); use one on a local disk") from error

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Inside, all is read as it was at one moment. Rows can be asked by column name."""
        yield from self._transaction("BEGIN")

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Inside, nobody else writes; an exception takes everything back.

        What was written survives the death of the process in any case, and with `durable` that of the machine.
        """
        yield from self._transaction("BEGIN IMMEDIATE", "FULL" if durable else "NORMAL")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _transaction(self, begin: str, synchronous: str | None = None) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._pid != os.getpid():
                # Forked: a connection must neither be used nor closed by the child (sqlite.org/howtocorrupt.html).
                self._left_behind.append(self._connection)
                self._connection, self._pid = _opened(self.path), os.getpid()
            connection = self._connection
            if synchronous is not None:
                connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute(begin)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _make(path: Path) -> None:
    """Made beside it and then linked: when several processes make it at once, the first one's is kept."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    temporary.unlink(missing_ok=True)
    try:
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")  # stays with the file
            connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        finally:
            connection.close()
        temporary.chmod(0o600)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.DatabaseError as error:
        connection.close()
        raise UserError(f"{path} is no database ({error}); move it away, or use another data folder") from error
    if application != _APPLICATION or version > VERSION:
        connection.close()
        found = f"of version {version}" if application == _APPLICATION else "of another program"
        raise UserError(
            f"{path} is a database {found}; up to version {VERSION} of our own can be read; use the newer dcvideogen, "
            "or another data folder"
        )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def utc_day(now: float | None = None) -> int:
    """Days since 1970 in UTC, by which videos per day are counted."""
    return int((time.time() if now is None else now) // 86_400)
