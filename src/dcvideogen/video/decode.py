"""Decodes the pictures of an open video file, frame exact from any start, and says at which frame a file breaks."""

from bisect import bisect_left
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from dcvideogen.errors import UserError
from dcvideogen.video.seek import SeekPoint, find_seek_point
from dcvideogen.video.source import Source, logger
from dcvideogen.video.structure import Structure

# Frames by which an mp4 with all its bytes and no damage may fall short of its index.
FRAMES_OF_GRACE = 2
# Decoders that notice most damage when they are told to. Others (FFV1, VP8) cover it up or cannot know.
CAREFUL_CODECS = ("h264", "hevc", "mpeg4", "vp9", "av1")


class SeekMissed(Exception):
    """The picture after a seek is not the expected one: read from the start instead. Raised before any picture."""


class Decoded(NamedTuple):
    """One picture: its number from 0 in order of display, seconds since the first one (None: no usable stamp)."""

    index: int
    seconds: Fraction | None
    picture: VideoFrame


def decode(
    source: Source,
    start: int = 0,
    stop: int | None = None,
    *,
    start_seconds: Fraction | None = None,
    keep_broken: bool = False,
    seek: bool = True,
) -> Iterator[Decoded]:
    """Pictures start <= index < stop of a file that was just opened.

    `start_seconds` may leave out pictures before the last one at or before that time. A file that is damaged, or ends
    before `stop` where its container promises more, raises a UserError that names the frame, after the good pictures
    before it; damage behind `stop` is not looked for. `keep_broken` delivers every picture that can be had (indices
    then count these) and logs one warning instead. SeekMissed is only raised with `seek`.
    """
    point = find_seek_point(source, start, start_seconds) if seek and not keep_broken else None
    delivered = False
    try:
        for decoded in _Run(source, keep_broken, point).pictures():
            if decoded.index >= start:
                delivered = True
                yield decoded
            if stop is not None and decoded.index + 1 >= stop:
                return
    except UserError as error:
        if point is None or delivered:
            raise
        # Some key frames are none (intra refresh), and what lies before the start may be damaged.
        raise SeekMissed from error


class _Run:
    """One pass through a file."""

    def __init__(self, source: Source, keep_broken: bool, point: SeekPoint | None) -> None:
        self.source = source
        self.keep_broken = keep_broken
        self.point = point
        self.count = 0  # index of the next picture
        self.damaged = 0  # packets that could not be decoded, and pictures marked as damaged
        self.reason: str | None = None  # why there are no more pictures, when it is the file's fault
        self.structure: Structure | None = None

    def pictures(self) -> Iterator[Decoded]:
        stream = self.source.stream
        if not self.keep_broken:
            # Without it decoders conceal damage and say nothing.
            stream.codec_context.options = {"err_detect": "explode"}
        if self.point is not None:
            self.source.container.seek(self.point.key_stamp, stream=stream)
        first: int | None = None
        previous: int | None = None
        try:
            for picture in self._all_pictures():
                if first is None:
                    first = self._locate(picture) if self.point is not None else picture.pts
                stamped = picture.pts is not None and (previous is None or picture.pts > previous)
                seconds = (picture.pts - first) * stream.time_base if stamped and first is not None else None
                previous = picture.pts
                self.count += 1
                yield Decoded(self.count - 1, seconds, picture)
        finally:
            if self.structure is not None:
                self.structure.__exit__(None, None, None)

    def _locate(self, picture: VideoFrame) -> int:
        """Sets the number of the first picture after a seek; returns the time stamp of picture 0."""
        stamps = self.point.stamps
        self.count = len(stamps) if picture.pts is None else bisect_left(stamps, picture.pts)
        if self.count == len(stamps) or stamps[self.count] != picture.pts:
            raise SeekMissed
        return stamps[0]

    def _all_pictures(self) -> Iterator[VideoFrame]:
        last: VideoFrame | None = None
        for picture in self._until_broken():
            # A decoder that is emptied at a break may hold pictures that follow on missing ones.
            if self.reason and last is not None and self._gap(last, picture):
                break
            if picture.is_corrupt:
                self._broken("its data is damaged")
                if self.reason:
                    break
            last = picture
            yield picture
        self._end()

    def _until_broken(self) -> Iterator[VideoFrame]:
        packets = self.source.container.demux(self.source.stream)
        while self.reason is None:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if packet.size and self._is_good(packet):
                    yield from packet.decode()
            except av.FFmpegError as error:
                self._broken(f"its data is damaged ({error.strerror})")
        if self.reason is None and not self.keep_broken:
            self._check_structure(0, None)
        try:
            yield from self.source.stream.codec_context.decode(None)
        except av.FFmpegError as error:
            self._broken(f"its data is damaged ({error.strerror})")

    def _is_good(self, packet: Packet) -> bool:
        if self.point is not None and packet.pts is not None and packet.pts < self.point.key_stamp:
            return False  # shown before the key frame, made from frames that the seek left out
        if packet.is_corrupt:
            self._broken("its data is cut off or damaged")
        elif not self.keep_broken and packet.pos is not None and packet.pos > 0:
            # Matroska and ASF readers go on behind a hole: it shows in the structure alone.
            self._check_structure(packet.pos, packet.pos + packet.size)
        return self.reason is None and not packet.is_corrupt

    def _broken(self, reason: str) -> None:
        if self.keep_broken:
            self.damaged += 1
        elif self.reason is None:
            self.reason = reason

    def _check_structure(self, begin: int, end: int | None) -> None:
        if self.structure is None:
            # What lies before the first packet that was read is not asked for.
            careful = self.source.stream.codec_context.name in CAREFUL_CODECS
            self.structure = Structure(self.source.path, self.source.format_name, begin, trust_decoder=careful)
        damage = self.structure.damage_before(end)
        if damage is not None:
            self.reason = f"the file is cut off or damaged from byte {damage} on"

    def _end(self) -> None:
        """After the last picture: raises or logs what is missing."""
        promised = self.source.promised
        if self.keep_broken:
            self._check_structure(0, None)
        if self.reason is None and promised is not None and self.count + FRAMES_OF_GRACE < promised:
            self.reason = "the rest cannot be decoded"
        if self.reason is None and self._ends_early():
            self.reason = f"its {self.source.container.duration / av.time_base:.2f} s are not all there"
        if self.reason is None and self.count == 0:
            self.reason = "no picture can be decoded"
        if self.keep_broken and self.count:
            if self.reason or self.damaged:
                logger.warning(
                    "%s: damaged%s; %d frames%s could be read and are used", self.source.path,
                    f" ({self.reason})" if self.reason else "", self.count, f" of {promised}" if promised else "",
                )  # fmt: skip
        elif self.reason is not None:
            raise UserError(
                f"{self.source.path}: breaks at frame {self.count}{f' of {promised}' if promised else ''}: "
                f"{self.reason}; give an intact file, ask for fewer frames, or use what can be read with --on-error "
                "keep (on_error='keep')"
            )

    def _gap(self, before: VideoFrame, after: VideoFrame) -> bool:
        if before.pts is None or after.pts is None:
            return False
        return (after.pts - before.pts) * self.source.stream.time_base * self.source.fps > Fraction(3, 2)

    def _ends_early(self) -> bool:
        # Where a container promises no bytes its duration is all there is. It may be the sound's, so only without any.
        duration = self.source.container.duration
        if self.structure is None or self.structure.promises or not duration or len(self.source.container.streams) > 1:
            return False
        return self.count / self.source.fps < Fraction(duration, av.time_base) * Fraction(9, 10) - Fraction(1, 4)
