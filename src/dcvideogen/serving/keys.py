"""API keys: shown once, kept as hashes, checked in microseconds."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from dcvideogen.errors import UserError
from dcvideogen.serving.database import LOCAL_KEY, Database
from dcvideogen.serving.request_error import RequestError

# A public part, by which the row is found, and 256 random bits.
_FORM = re.compile(r"dcvk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
# The last use is written at most this often: a write per request would make readers wait for the disk.
_USE_NOTED_S = 60.0
_MAX_NAME = 100


@dataclass(frozen=True)
class Key:
    """What is known of a key; not the key. Times are Unix seconds.

    last_used: None or true to a minute. revoked: None while it is valid. queued_at_once, videos_per_day: its quota;
    None: the server's `Limits`.
    """

    id: str
    name: str
    created: float
    last_used: float | None
    revoked: float | None
    queued_at_once: int | None
    videos_per_day: int | None


class Keys:
    """The keys of a data folder.

    What is stored is sha256(salt + secret) with 16 random bytes of salt per key, not a slow hash: slowness protects
    words that can be guessed, and 2^256 random secrets cannot be, however fast one tries, while every request has to
    be checked. The comparison takes the same time whatever is wrong, so answers tell nothing about stored hashes; the
    public part, by which the row is looked up, is no secret.
    """

    def __init__(self, folder: Path) -> None:
        self._database = Database(folder)

    def add(
        self, name: str, *, queued_at_once: int | None = None, videos_per_day: int | None = None
    ) -> tuple[Key, str]:
        """A new key and its text `dcvk_...`, which is stored nowhere: show it now, it cannot be had again.

        UserError: a name that is empty, too long, or that a valid key has; a quota below 0.
        """
        if not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
            raise UserError(f"a key's name {name[:_MAX_NAME]!r} came; 1 to {_MAX_NAME} printable characters are needed")
        for quota in (queued_at_once, videos_per_day):
            if quota is not None and quota < 0:
                raise UserError(f"a quota of {quota} came; 0 and more is allowed, or none for the server's limits")
        public, secret, salt = secrets.token_hex(8), secrets.token_urlsafe(32), secrets.token_bytes(16)
        key = Key(f"key_{public}", name, time.time(), None, None, queued_at_once, videos_per_day)
        with self._database.write(durable=True) as db:
            if db.execute("SELECT 1 FROM keys WHERE name = ? AND revoked IS NULL", (name,)).fetchone():
                raise UserError(f"there is a key named {name!r}; choose another name, or revoke that one first")
            db.execute(
                "INSERT INTO keys (id, name, salt, hash, created, queued_at_once, videos_per_day) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (key.id, name, salt, _digest(salt, secret), key.created, queued_at_once, videos_per_day),
            )
        return key, f"dcvk_{public}_{secret}"

    def list_keys(self) -> list[Key]:
        """All that were ever added, revoked ones too, oldest first."""
        with self._database.read() as db:
            return [_key(row) for row in db.execute("SELECT * FROM keys WHERE id != ? ORDER BY rowid", (LOCAL_KEY,))]

    def revoke(self, name_or_id: str) -> Key:
        """From now on the key is refused; its queued jobs are cancelled, its running ones stop.

        UserError: no valid key of that name or id.
        """
        with self._database.write(durable=True) as db:
            row = db.execute(
                "SELECT * FROM keys WHERE (id = ?1 OR name = ?1) AND revoked IS NULL AND id != ?2",
                (name_or_id, LOCAL_KEY),
            ).fetchone()
            if row is None:
                raise UserError(f"there is no valid key {name_or_id!r}; `dcvideogen keys list` shows them")
            now = time.time()
            db.execute("UPDATE keys SET revoked = ? WHERE id = ?", (now, row["id"]))
            db.execute(
                "UPDATE jobs SET status = 'cancelled', finished = ? WHERE key_id = ? AND status = 'queued'",
                (now, row["id"]),
            )
            db.execute("UPDATE jobs SET cancel = 1 WHERE key_id = ? AND status = 'in_progress'", (row["id"],))
            return _key(db.execute("SELECT * FROM keys WHERE id = ?", (row["id"],)).fetchone())

    def check(self, text: str | None) -> Key:
        """The key that a client presents (without "Bearer "). RequestError 401, the same for whatever is wrong."""
        form = _FORM.fullmatch(text or "")
        public, secret = form.groups() if form else ("", "")
        with self._database.read() as db:
            row = db.execute("SELECT * FROM keys WHERE id = ?", (f"key_{public}",)).fetchone()
        salt, stored = (row["salt"], row["hash"]) if row else (bytes(16), bytes(32))
        right = hmac.compare_digest(_digest(salt, secret), stored)
        if row is None or not right or row["revoked"] is not None:
            raise RequestError(
                "invalid_key", "this API key is not valid here", "send a valid one as `Authorization: Bearer dcvk_...`",
                401,
            )  # fmt: skip
        now = time.time()
        if row["last_used"] is None or now - row["last_used"] > _USE_NOTED_S:
            with self._database.write() as db:
                db.execute("UPDATE keys SET last_used = ? WHERE id = ?", (now, row["id"]))
        return _key(row)

    def close(self) -> None:
        self._database.close()


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(salt + secret.encode()).digest()


def _key(row: sqlite3.Row) -> Key:
    names = ("id", "name", "created", "last_used", "revoked", "queued_at_once", "videos_per_day")
    return Key(*(row[name] for name in names))
