"""index.jsonl and rejected.jsonl: one line of facts per file, and for the rejected ones the reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcvideogen.data.items import Item
from dcvideogen.errors import UserError
from dcvideogen.files import write_text

INDEX, REJECTED = "index.jsonl", "rejected.jsonl"


@dataclass(frozen=True)
class Record:
    """What is known of one item.

    name, offset, caption, start, end: as in Item. path: of the file or shard, relative to the source's folder where it
    lies in it. bytes, mtime_ns: to see whether it changed. kind: "video" or "image". width, height: pixels as
    displayed. fps: frames per second of the file (None for images). frames, duration_s: of the file, or of the part
    that start and end name, then counted from its start. codec: FFmpeg's name. scanned: frames from the start in
    which cuts are known. cuts: the first frame of each new scene. black_share: of the frames that were decoded;
    static_share: of their neighbouring pairs. measured: a digest of the settings of the measurement.
    reason, detail: why it cannot be used; None for usable ones.
    """

    name: str
    path: str
    bytes: int
    mtime_ns: int
    offset: int | None = None
    kind: str | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frames: int | None = None
    duration_s: float | None = None
    codec: str | None = None
    scanned: int | None = None
    cuts: tuple[int, ...] = ()
    black_share: float | None = None
    static_share: float | None = None
    caption: str | None = None
    start: float | None = None
    end: float | None = None
    measured: str = ""
    reason: str | None = None
    detail: str | None = None

    @classmethod
    def of(cls, item: Item, root: Path, **facts: Any) -> Record:
        path = item.path.relative_to(root) if item.path.is_relative_to(root) else item.path.absolute()
        return cls(
            item.name, path.as_posix(), item.size, item.mtime_ns, item.offset,
            caption=item.caption, start=item.start, end=item.end, **facts,
        )  # fmt: skip

    def item(self, root: Path) -> Item:
        return Item(
            self.name, root / self.path, self.bytes, self.mtime_ns, self.offset, self.caption, self.start, self.end
        )

    def line(self) -> str:
        """JSON without the fields that are None."""
        return json.dumps({key: value for key, value in dataclasses.asdict(self).items() if value is not None})


_FIELDS = {field.name for field in dataclasses.fields(Record)}


def parse_record(text: str) -> Record:
    """ValueError when it is no record."""
    values = json.loads(text)
    if not isinstance(values, dict) or not {"name", "path", "bytes", "mtime_ns"} <= values.keys() <= _FIELDS:
        raise ValueError("no line of an index")
    return Record(**{**values, "cuts": tuple(values.get("cuts", ()))})


def read_records(path: Path) -> list[Record]:
    """UserError that names the line when the file is broken."""
    records: list[Record] = []
    try:
        with path.open(encoding="utf-8") as file:
            for text in file:
                records.append(parse_record(text))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); `dcvideogen data check` writes it") from error
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}, line {len(records) + 1}: not readable ({error}); remove it and check the data again"
        ) from error
    return records


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Writes under a temporary name and renames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(record.line() + "\n" for record in records))


def fingerprint(records: Sequence[Record]) -> str:
    """Digest of what decides which clips are drawn: names, sizes, lengths and cuts, in order; not dates and places."""
    digest = hashlib.sha256()
    for record in records:
        facts = (record.name, record.bytes, record.kind, record.frames, record.fps, record.cuts, record.start)
        digest.update(json.dumps(facts).encode() + b"\n")
    return digest.hexdigest()[:16]
