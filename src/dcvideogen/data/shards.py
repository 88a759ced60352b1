"""WebDataset shards: uncompressed tar files whose members are found again by their offset, so nothing is unpacked.

Members with the same path up to the first dot of the last part are one sample (the convention of WebDataset): its
video or image, and what is said about it in .txt (the caption) or .json (caption, start, end).
"""

from __future__ import annotations

import json
import math
import tarfile
from pathlib import Path
from typing import Any

from dcvideogen.data.items import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Item

_MAX_TEXT_BYTES = 1 << 20


def list_shard(shard: Path, name: str) -> list[Item]:
    """The videos and images of a shard, called "NAME/MEMBER"; other members but .txt and .json become problems.

    A shard that cannot be read on is one more item with a problem, behind those before the break.
    """
    stat = shard.stat()
    media: list[tuple[str, tarfile.TarInfo]] = []
    names: set[str] = set()
    items: list[Item] = []
    described: dict[str, dict[str, Any]] = {}

    def problem(member: str, reason: str, detail: str) -> None:
        items.append(Item(f"{name}/{member}" if member else name, shard, 0, stat.st_mtime_ns, problem=(reason, detail)))

    try:
        # "r:" reads uncompressed files alone: offsets in others lead nowhere.
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                suffix = Path(member.name).suffix.lower()
                if member.isdir():
                    continue
                if not member.isreg():
                    problem(member.name, "other", "a link in a shard; only plain members can be used")
                elif member.offset_data + member.size > stat.st_size:
                    problem(member.name, "truncated", "the shard ends inside it")
                elif member.name in names:
                    problem(f"{member.name} (again)", "duplicate", "a second member of this name")
                elif suffix in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
                    names.add(member.name)
                    media.append((_sample(member.name), member))
                elif suffix in (".txt", ".json") and member.size <= _MAX_TEXT_BYTES:
                    text = tar.extractfile(member).read().decode("utf-8", "replace")
                    said = {"caption": text.strip()} if suffix == ".txt" else _said(text)
                    if said is None:
                        problem(member.name, "other", "no JSON object")
                    described.setdefault(_sample(member.name), {}).update(said or {})
                else:
                    problem(member.name, "other", f"a {suffix or 'nameless'} member, by its name no video and no image")
    except tarfile.TarError as error:
        problem("", "truncated" if media or items else "unreadable", f"not a whole uncompressed tar file ({error})")
    except OSError as error:
        problem("", "unreadable", f"cannot be read ({error.strerror or error})")
    for sample, member in media:
        items.append(_item(shard, name, member, stat.st_mtime_ns, described.get(sample, {})))
    return items


def _sample(member: str) -> str:
    folder, slash, file = member.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _said(text: str) -> dict[str, Any] | None:
    try:
        said = json.loads(text)
    except json.JSONDecodeError:
        return None
    return {key: said[key] for key in ("caption", "start", "end") if key in said} if isinstance(said, dict) else None


def _item(shard: Path, name: str, member: tarfile.TarInfo, mtime_ns: int, said: dict[str, Any]) -> Item:
    problem = None
    for key in ("start", "end"):
        value = said.get(key)
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
            problem = ("range", f"{key} {value!r} in its .json; seconds, 0 or more, are allowed")
    start, end = (None, None) if problem else (said.get("start"), said.get("end"))
    if end is not None and end <= (start or 0):
        problem = ("range", f"end {end:g} in its .json is not behind start {start or 0:g}")
    return Item(
        name=f"{name}/{member.name}",
        path=shard,
        size=member.size,
        mtime_ns=mtime_ns,
        offset=member.offset_data,
        caption=None if said.get("caption") is None else str(said["caption"]),
        start=start,
        end=end,
        problem=problem,
    )
