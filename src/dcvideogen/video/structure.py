"""Whether all the bytes of a video file that its container promises are there, without decoding anything.

A decoder does not notice that a file was cut: it sees fewer packets. The containers say how long their parts are:
ISO 14496-12 (mp4, mov) boxes, RFC 8794/9559 (Matroska, WebM) elements, RIFF (avi) chunks, ASF (wmv) objects and
packets, and the blocks of GIF89a.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

_ISO_FIRST = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx"}

# (offset up to which all is well, offset where it is not, None while it is)
_Steps = Iterator[tuple[int, int | None]]

_EBML_HEADER, _SEGMENT, _CLUSTER, _VOID, _CRC = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xEC, 0xBF
# Everything RFC 9559 allows directly in a segment (seek head, info, tracks, cues, tags, chapters, attachments) ...
_IN_SEGMENT = {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469}
# ... and in a cluster (timestamp, silent tracks, position, previous size, simple block, block group, encrypted block).
_IN_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF}
_EBML_KNOWN = {_EBML_HEADER, _SEGMENT, _CLUSTER, _VOID, _CRC} | _IN_SEGMENT | _IN_CLUSTER

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA_HEADER_BYTES = 50


class Structure:
    """Walks through the parts of a file, as far as it is asked to; a context manager.

    `container`: FFmpeg's name of the format, for example "mov,mp4,m4a,3gp,3g2,mj2". `begin`: what lies before this
    offset is only checked by its length. `trust_decoder`: a checksum of many frames that is wrong is reported behind
    them, since the decoder will say which one it is. `promises` is False for formats that tell nothing; those are never
    damaged.
    """

    def __init__(self, path: Path, container: str, begin: int = 0, *, trust_decoder: bool = False) -> None:
        walk = next((walk for name, walk in _WALKS.items() if name in container.split(",")), None)
        self.promises = walk is not None
        self._file = path.open("rb")
        self._steps = walk(self._file, path.stat().st_size, begin, trust_decoder) if walk else iter(())
        self._checked = 0
        self._damage: int | None = None

    def damage_before(self, end: int | None = None) -> int | None:
        """Offset before `end` (the end of the file by default) where the file is not what it promises, or None."""
        while self._damage is None and (end is None or self._checked < end):
            step = next(self._steps, None)
            if step is None:
                break
            self._checked, self._damage = step
        return self._damage if self._damage is not None and (end is None or self._damage < end) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _walk_iso(file: BinaryIO, size: int, _begin: int, _late: bool) -> _Steps:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        if kind not in _ISO_FIRST if position == 0 else not kind.isalnum():
            return  # another kind of file, or padding behind the last box, which players ignore
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        if length == 0:
            return  # "to the end of the file"
        if position + length > size:
            yield size, size
        position += max(length, 8)
        yield position, None


def _walk_matroska(file: BinaryIO, size: int, begin: int, late: bool) -> _Steps:
    position, cut = 0, False
    suspect: tuple[int, int] | None = None  # end and begin of a cluster with a wrong checksum
    while position < size:
        if suspect is not None and position >= suspect[0]:
            yield suspect
        file.seek(position)
        identifier, length, used = _ebml_head(file.read(12))
        container = identifier in (_SEGMENT, _CLUSTER)
        if identifier not in _EBML_KNOWN or (length is None and not container):
            yield position, position
        after = None if length is None else position + used + length
        if after is not None and after > size:
            cut = True  # the walk goes on inside, to find the block in which it was cut
            if not container:
                yield position, position
        elif identifier == _CLUSTER and after is not None and after > begin and not _fits(file, position + used, after):
            suspect = after, position
            if not late:
                yield position, position
        if identifier == _SEGMENT or after is None or (identifier == _CLUSTER and after > begin):
            position += used
        else:
            position = after
        yield position, None
    if cut or suspect is not None:
        yield size, size if suspect is None else suspect[1]


def _fits(file: BinaryIO, begin: int, end: int) -> bool:
    """Whether an element's content agrees with the CRC-32 element that may stand first in it (RFC 8794, 11.3.1)."""
    file.seek(begin)
    head = file.read(6)
    if head[:2] != b"\xbf\x84":
        return True
    checksum, left = 0, end - begin - 6
    while left > 0 and (piece := file.read(min(left, 1 << 20))):
        checksum = zlib.crc32(piece, checksum)
        left -= len(piece)
    return checksum == int.from_bytes(head[2:], "little")


def _ebml_head(head: bytes) -> tuple[int, int | None, int]:
    """(identifier, length, bytes used by both) of an EBML element; the length is None where it says "unknown"."""
    head = head.ljust(12, b"\0")
    id_bytes = 9 - head[0].bit_length()
    if id_bytes > 4:
        return 0, None, 1
    length_bytes = 9 - head[id_bytes].bit_length()
    if length_bytes > 8:
        return 0, None, 1
    mask = (1 << 7 * length_bytes) - 1
    length = int.from_bytes(head[id_bytes : id_bytes + length_bytes]) & mask
    return int.from_bytes(head[:id_bytes]), None if length == mask else length, id_bytes + length_bytes


def _walk_riff(file: BinaryIO, size: int, _begin: int, _late: bool) -> _Steps:
    position = 0
    while position + 12 <= size:
        file.seek(position)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF":
            return
        if position + 8 + length > size or length == 0:
            yield size, size
        position += 8 + length + length % 2
        yield position, None


def _walk_asf(file: BinaryIO, size: int, begin: int, _late: bool) -> _Steps:
    head = file.read(24)
    if head[:16] != _ASF_HEADER or len(head) < 24:
        return
    (data,) = struct.unpack("<Q", head[16:])
    file.seek(data)
    head = file.read(_ASF_DATA_HEADER_BYTES)
    if len(head) < _ASF_DATA_HEADER_BYTES or head[:16] != _ASF_DATA:
        yield min(data, size), min(data, size)
    length, packets = struct.unpack("<Q16xQ", head[16:48])
    first = data + _ASF_DATA_HEADER_BYTES
    step = (length - _ASF_DATA_HEADER_BYTES) // packets if packets else 0
    mark = file.read(1)
    # Packets have one length, and all start with the same error-correction flags (0x82 wherever there are any). A
    # frame may go on in the next packet, so that the packet before a damaged one counts as damaged.
    for position in range(first, min(size, data + length), step) if step else ():
        file.seek(position)
        if (position >= begin and file.read(1) != mark) or position + step > size:
            yield position, max(first, position - step)
        yield position, None
    if data + length > size:
        yield size, size


def _walk_gif(file: BinaryIO, size: int, _begin: int, _late: bool) -> _Steps:
    head = file.read(13)
    position = 13 + _colour_table_bytes(head[10]) if len(head) == 13 else size
    while position < size:
        file.seek(position)
        head = file.read(10)
        if head[:1] == b";":
            return
        if head[:1] == b"!":
            after = position + 2
        elif head[:1] == b"," and len(head) == 10:
            after = position + 11 + _colour_table_bytes(head[9])
        else:
            break
        # A block's data comes in pieces of at most 255 bytes; a piece of none ends it.
        length = None
        while length != 0 and after < size:
            file.seek(after)
            (length,) = file.read(1)
            after += 1 + length
        if length != 0:
            break
        position = after
        yield position, None
    yield size, min(position, size)


def _colour_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_WALKS: dict[str, Callable[[BinaryIO, int, int, bool], _Steps]] = {
    "mp4": _walk_iso,
    "matroska": _walk_matroska,
    "avi": _walk_riff,
    "asf": _walk_asf,
    "gif": _walk_gif,
}
