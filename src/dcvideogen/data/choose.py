"""Which files of an index are trained on and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

from dcvideogen.data.index import Record
from dcvideogen.data.settings import DataSettings
from dcvideogen.errors import UserError

_NAMES_SHOWN = 30
MOST_BY_SHARE = 8


def choose(
    settings: DataSettings, usable: Sequence[Record], rejected: Sequence[Record]
) -> tuple[list[Record], list[Record]]:
    """(trained on, held out), in the order of the index; files that are named, in the order of their names.

    Raises UserError for a name that is not there or was left out by the check, for one that is both trained on and
    held out, and when nothing is left to train on.
    """
    if isinstance(settings.held_out, tuple):
        held_out = find(settings.held_out, usable, rejected)
        held_paths = {_file(record) for record in held_out}
    else:
        held_paths = _chosen_by_hash(settings.held_out, usable)
        held_out = [record for record in usable if _file(record) in held_paths]
    named = find((*settings.videos, *settings.photographs), usable, rejected)
    both = [record.name for record in named if _file(record) in held_paths]
    if both and isinstance(settings.held_out, tuple):
        raise UserError(f"{both[0]} is both trained on and held out; name it once")
    train = [record for record in named or usable if _file(record) not in held_paths]
    if not train:
        raise UserError(f"all {len(held_out)} usable files are held out; hold out fewer, or add files")
    return train, held_out


def find(names: Sequence[str], usable: Sequence[Record], rejected: Sequence[Record]) -> list[Record]:
    """The records with these names: full ones, or file names with or without suffix; all parts of a named file."""
    return [record for name in names for record in _find_one(name, usable, rejected)]


def _find_one(name: str, usable: Sequence[Record], rejected: Sequence[Record]) -> list[Record]:
    for names_of in (lambda r: (r.name, _file(r)), lambda r: (PurePosixPath(_file(r)).name,), _stems):
        found = [record for record in usable if name in names_of(record)]
        if len({_file(record) for record in found}) > 1:
            raise UserError(f"{name} could be {', '.join(record.name for record in found)}; give the whole name")
        if found:
            return found
    for record in rejected:
        if name in (record.name, PurePosixPath(_file(record)).name, *_stems(record)):
            raise UserError(f"{record.name} was left out by the check ({record.reason}: {record.detail}); mend it")
    known = ", ".join(record.name for record in usable[:_NAMES_SHOWN])
    more = f", and {len(usable) - _NAMES_SHOWN} more" if len(usable) > _NAMES_SHOWN else ""
    raise UserError(f"no file {name!r} in the data; it holds: {known or 'nothing'}{more}")


def _stems(record: Record) -> tuple[str, ...]:
    file = PurePosixPath(_file(record))
    return file.stem, file.with_suffix("").as_posix()


def _file(record: Record) -> str:
    """The media file; parts of one file share it, so that none of them is held out alone."""
    return record.path if record.offset is None else record.name


def _chosen_by_hash(number: float, usable: Sequence[Record]) -> set[str]:
    """A share stays true to the files it chose when others are added; at least one file is chosen, at most
    MOST_BY_SHARE, for they are all in memory when they are measured."""
    # Videos, where there are any: a photograph says nothing about motion.
    videos = {_file(record) for record in usable if record.kind == "video"}
    files = videos or {_file(record) for record in usable}
    order = sorted(files, key=_place)
    if isinstance(number, int):
        return set(order[:number])
    return {file for file in order[:MOST_BY_SHARE] if _place(file) < number} or set(order[:1])


def _place(file: str) -> float:
    return int.from_bytes(hashlib.sha256(file.encode()).digest()[:8]) / 2**64
