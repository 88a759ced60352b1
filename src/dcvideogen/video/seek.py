"""Where to start decoding so that a seek is frame exact: a pass over the packets, without decoding."""

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction

import av
from av.packet import Packet

from dcvideogen.errors import UserError
from dcvideogen.video.source import Source, open_source

# The pass and the restart of the decoder cost about as much as decoding so many frames of 480 lines.
MIN_FRAMES_TO_SEEK = 24
# Pictures may be shown in another order than they are stored: how far to look ahead (HEVC and H.264 allow 16).
REORDER_FRAMES = 64


@dataclass(frozen=True)
class SeekPoint:
    """`stamps`: time stamps of the frames from the first one to some way behind the wanted one, in order of display.

    `key_stamp`: that of the key frame to start at.
    """

    stamps: list[int]
    key_stamp: int


def find_seek_point(source: Source, start: int, seconds: Fraction | None = None) -> SeekPoint | None:
    """Where to seek to for frame `start`, or, if given, for the last frame at or before `seconds`.

    None where packets do not tell which frame they are, or where nothing would be saved. The caller must check that
    the first picture has one of the stamps.
    """
    wanted = start if seconds is None else seconds * source.fps
    if wanted < MIN_FRAMES_TO_SEEK or not {"mp4", "matroska"} & set(source.format_name.split(",")):
        return None
    stamps: list[int] = []
    keys: list[int] = []
    ahead = 0
    try:
        with open_source(source.path) as other:
            for packet in other.container.demux(other.stream):
                if packet.size == 0 or packet.is_discard or _is_hidden(packet, other):
                    continue
                if packet.pts is None or packet.is_corrupt:
                    break
                if packet.is_keyframe:
                    keys.append(packet.pts)
                stamps.append(packet.pts)
                behind = len(stamps) > start if seconds is None else _seconds(packet, stamps[0]) > seconds
                ahead += behind
                if ahead > REORDER_FRAMES:
                    break
    except (av.FFmpegError, UserError):
        return None  # decoding from the start will say where it breaks
    stamps.sort()
    # Frames shown before the first key frame cannot be decoded: packets and pictures would count differently.
    if len(set(stamps)) < len(stamps) or not keys or keys[0] > stamps[0]:
        return None
    if seconds is not None:
        start = max(0, bisect_right(stamps, stamps[0] + seconds / source.stream.time_base) - 1)
    if start >= len(stamps):
        return None
    key_stamp = max(key for key in keys if key <= stamps[start])
    return SeekPoint(stamps, key_stamp) if key_stamp > stamps[0] else None


def _seconds(packet: Packet, first: int) -> Fraction:
    return (packet.pts - first) * packet.time_base


def _is_hidden(packet: Packet, source: Source) -> bool:
    # VP8 (RFC 6386, 9.1) has packets that are never shown; bit 4 of the first byte says so.
    return source.stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10
