"""What recipes and `dcvideogen data check` say about data: which files are usable, and how clips are cut from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(gt=0)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckSettings(Frozen):
    """What a file must be to be trained on. Levels are of 256, on thumbnails of 36 lines.

    min_frames: of a video, or of the part of it that a manifest names. min_side: shorter side in pixels.
    codecs: FFmpeg's names of the only codecs to take (h264, vp9, png, ...); all that can be decoded when empty.
    black_levels: a frame is black when 99 % of its pixels are darker. max_black_share: of a file's frames.
    static_levels: two neighbouring frames are the same when no pixel differs by more. max_static_share: of such pairs.
    cut_levels: the mean difference of the two frames at a scene cut is at least this, and `cut_ratio` times each of
    the two differences before and after it.
    scan_frames: so many frames are decoded from the start of each file, where cuts, black and static shares are
    measured; of a longer file, `sample_frames` in the middle and at the end besides.
    """

    min_frames: int = Field(default=8, gt=0)
    min_side: int = Field(default=32, gt=0)
    codecs: tuple[str, ...] = ()
    black_levels: float = Field(default=24, ge=0, le=255)
    max_black_share: Share = 0.9
    static_levels: float = Field(default=3, ge=0, le=255)
    max_static_share: Share = 0.95
    cut_levels: float = Field(default=12, gt=0)
    cut_ratio: float = Field(default=1.5, ge=1)
    scan_frames: int = Field(default=1200, gt=1)
    sample_frames: int = Field(default=16, gt=0)


class DataSettings(Frozen):
    """Which files, and how clips are cut from them.

    source: a folder of videos, images and tar shards, at any depth; a manifest (.jsonl, .csv); or one tar shard.
    index: the folder that `dcvideogen data check SOURCE -o` wrote; None: where it writes by default, or an index that
    this run makes in its cache. check: what a file must be; the run then makes the index in any case.
    cache: where decoded frames are kept; None: in the output folder. max_frames: kept of each video, from its start.
    short_side: pixels to which videos are decoded (a smaller one stays as it is); photo_short_side: images.

    videos, photographs: names (with or without suffix) of the files to train on; without either all of the index.
    held_out: measured on and never trained on: names, or a number of files, or a share of them (at most 8), chosen
    by a hash of their paths. `held_out_frames` frames from the start, `held_out_size` pixels square from the centre.

    short_sides: the shorter side that a source is scaled to before a crop is taken, smallest and largest.
    strides: frames from one frame of a clip to the next, drawn from these. fps: frame rates to draw from instead, with
    the nearest frames; a source that is slower gives all its frames.
    split_at_cuts: no clip goes across a scene cut. mirror, reverse: how often a clip is flipped left to right, and in
    time. brightness: standard deviation of the logarithm of the factor on the pixels (0 leaves them alone).
    photo_share: of the clips of video batches that are a camera over a photograph; cut_probability: of a cut in them.
    """

    source: Path
    index: Path | None = None
    check: CheckSettings | None = None
    cache: Path | None = None
    max_frames: int = Field(default=300, gt=0)
    short_side: Pixels = 288
    photo_short_side: Pixels = 640

    videos: tuple[str, ...] = ()
    photographs: tuple[str, ...] = ()
    held_out: tuple[str, ...] | int | float = ()
    held_out_frames: int = Field(default=80, gt=0)
    held_out_size: Pixels = 256

    short_sides: tuple[Pixels, Pixels] = (200, 330)
    strides: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(1, 1, 2), min_length=1)
    fps: tuple[Annotated[float, Field(gt=0)], ...] = ()
    split_at_cuts: bool = False
    mirror: Share = 0.5
    reverse: Share = 0.25
    brightness: float = Field(default=0.1, ge=0)
    photo_share: Share = 0.15
    cut_probability: Share = 0.15

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.index is not None and self.check is not None:
            raise ValueError("index and check came; check is for an index that the run makes; leave one of them out")
        if self.short_sides[0] > self.short_sides[1]:
            raise ValueError(f"short_sides {list(self.short_sides)} came; the smallest comes first")
        number = self.held_out if isinstance(self.held_out, int | float) else 0
        if number < 0 or (isinstance(number, float) and not 0 < number < 1):
            raise ValueError(
                f"held_out {number} came; names, a number of files (0 or more) or a share of them (between 0 and 1) "
                "is allowed"
            )
        return self


class BatchSettings(Frozen):
    """One kind of batch.

    share: how often it comes relative to the others. batch_size: clips per step, over all processes together.
    num_frames: of each clip. size: pixels of a square, or (height, width). chunk_frames: how the model cuts the clip.
    image: single images (num_frames 1): from image files, or from frames of videos where there are none.
    short_sides: instead of those of the data, for this kind.
    """

    share: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=1, gt=0)
    num_frames: int = Field(gt=0)
    size: Pixels | tuple[Pixels, Pixels]
    chunk_frames: int = Field(default=40, gt=0)
    image: bool = False
    short_sides: tuple[Pixels, Pixels] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image and self.num_frames != 1:
            raise ValueError(f"num_frames {self.num_frames} came for images; 1 is allowed")
        if self.short_sides is not None and self.short_sides[0] > self.short_sides[1]:
            raise ValueError(f"short_sides {list(self.short_sides)} came; the smallest comes first")
        return self

    @property
    def height_width(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size
