"""What a dataset is: a folder, a manifest or tar shards. All three become one list of items, sorted or as written."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dcvideogen.data.items import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Item
from dcvideogen.data.shards import list_shard
from dcvideogen.errors import UserError

log = logging.getLogger(__name__)

MANIFEST_SUFFIXES = (".jsonl", ".csv")
MANIFEST_KEYS = ("path", "caption", "start", "end")
# What the check and training write themselves.
OWN_FILES = ("index.jsonl", "rejected.jsonl", "quarantine.jsonl")
# Marks a folder that a run wrote.
RUN_FILE = "run.json"
_ALLOWED = "a folder of videos, images or tar shards, a manifest (.jsonl, .csv) or a shard (.tar) is allowed"


def list_items(source: Path) -> list[Item]:
    """Everything that a source offers, in a fixed order; UserError when it is none, or a manifest is not readable."""
    if source.is_dir():
        return _folder(source)
    check_exists(source)
    if source.suffix.lower() in MANIFEST_SUFFIXES:
        return _manifest(source)
    if source.suffix.lower() == ".tar":
        return list_shard(source, source.name)
    raise UserError(f"{source}: a {source.suffix or 'nameless'} file came; {_ALLOWED}")


def source_root(source: Path) -> Path:
    """The folder to which the paths of a source are relative."""
    return source if source.is_dir() else source.parent


def index_folder(source: Path) -> Path:
    """Where the index of a source lies unless somebody says otherwise: in it, or beside a manifest or shard."""
    return source if source.is_dir() else source.with_name(f"{source.name}.index")


def check_exists(source: Path) -> None:
    """UserError when there is no such source."""
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; {_ALLOWED}")


def _folder(folder: Path) -> list[Item]:
    items: list[Item] = []
    for place, folders, files in os.walk(folder):
        if RUN_FILE in files and Path(place) != folder:
            folders.clear()  # what training wrote: reconstructions are no data
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            path = Path(place) / file
            name = path.relative_to(folder).as_posix()
            if file.startswith(".") or file in OWN_FILES:
                continue
            if path.suffix.lower() == ".tar":
                items += list_shard(path, name)
            else:
                items.append(file_item(path, name))
    return sorted(items, key=lambda item: item.name)


def file_item(path: Path, name: str, **described: Any) -> Item:
    """The item of a plain file; `described`: caption, start, end."""
    try:
        stat = path.stat()
    except OSError as error:
        problem = ("missing", f"cannot be read ({error.strerror})")
        return Item(name, path, 0, 0, problem=problem, **described)
    problem = None
    if path.is_dir():
        problem = ("other", "a folder; only files can be named")
    elif path.suffix.lower() not in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
        problem = ("other", f"a {path.suffix.lower() or 'nameless'} file, by its name no video and no image")
    return Item(name, path, stat.st_size, stat.st_mtime_ns, problem=problem, **described)


def _manifest(manifest: Path) -> list[Item]:
    items: dict[str, Item] = {}
    ignored: set[str] = set()
    for line, row in _rows(manifest):
        ignored |= row.keys() - set(MANIFEST_KEYS)
        item = _described(manifest, line, row)
        if item.name in items:
            name = f"{item.name} (line {line})"
            item = Item(name, item.path, item.size, item.mtime_ns, problem=("duplicate", f"named before, {item.name}"))
        items[item.name] = item
    if ignored:
        log.info("%s: %s not used; %s are", manifest, ", ".join(sorted(ignored)), ", ".join(MANIFEST_KEYS))
    return list(items.values())


def _rows(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a manifest, empty fields left out."""
    with manifest.open(encoding="utf-8-sig", newline="") as file:
        try:
            if manifest.suffix.lower() == ".csv":
                reader = csv.DictReader(file)
                if "path" not in (reader.fieldnames or ()):
                    raise UserError(
                        f"{manifest}: its first line names {', '.join(reader.fieldnames or ()) or 'nothing'}; a column "
                        f"'path' is needed, {', '.join(MANIFEST_KEYS[1:])} are optional"
                    )
                for row in reader:
                    if None in row:
                        raise UserError(f"{manifest}, line {reader.line_num}: more fields than columns; quote commas")
                    yield reader.line_num, {key: value for key, value in row.items() if value not in (None, "")}
                return
            for line, text in enumerate(file, 1):
                if text.strip():
                    row = json.loads(text)
                    if not isinstance(row, dict):
                        raise UserError(f"{manifest}, line {line}: {text.strip()[:40]} came; one object per line")
                    yield line, {key: value for key, value in row.items() if value is not None}
        except UnicodeDecodeError as error:
            raise UserError(f"{manifest}: not UTF-8 text ({error.reason} at byte {error.start})") from error
        except json.JSONDecodeError as error:
            raise UserError(
                f"{manifest}, line {line}: no JSON object ({error.msg}); one per line is allowed"
            ) from error


def _described(manifest: Path, line: int, row: dict[str, Any]) -> Item:
    path = row.get("path")
    if not isinstance(path, str) or not path:
        raise UserError(f"{manifest}, line {line}: no path; each row needs one")
    place = f"{manifest}, line {line}"
    start, end = _seconds(place, row, "start"), _seconds(place, row, "end")
    if end is not None and end <= (start or 0):
        raise UserError(f"{manifest}, line {line}: end {end:g} is not behind start {start or 0:g}; both are seconds")
    caption = row.get("caption")
    name = path if start is None and end is None else f"{path}#{start or 0:g}-{'' if end is None else f'{end:g}'}"
    return file_item(
        manifest.parent / path, name, caption=None if caption is None else str(caption), start=start, end=end
    )


def _seconds(place: str, row: dict[str, Any], key: str) -> float | None:
    """A number of seconds of a row, or None; UserError that begins with `place` unless it is 0 or more."""
    if row.get(key) is None:
        return None
    try:
        value = float(row[key])
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{place}: {key} {row[key]!r} came; seconds from the beginning, 0 or more, are allowed")
    return value
