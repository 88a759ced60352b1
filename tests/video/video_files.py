"""Small video files for tests: each frame shows its number, so that order and seeking can be checked."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 8


def numbered_frame(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame (H, W, 3) with `number` as 8 vertical bars, dark for 0 and bright for 1, slightly coloured."""
    bars = np.array([200 if number >> bit & 1 else 40 for bit in range(BITS)], dtype=np.uint8)
    row = bars[np.arange(width) * BITS // width]
    frame = np.repeat(np.repeat(row[None, :, None], height, axis=0), 3, axis=2)
    frame[: height // 2, :, 2] += 20
    # Noise, so that every frame has some bytes: otherwise a file's head is half of it.
    return frame + np.random.default_rng(number).integers(0, 24, frame.shape, dtype=np.uint8)


def number_of(frame: np.ndarray) -> int:
    """The number that a numbered frame of any size shows."""
    width = frame.shape[1]
    centres = (2 * np.arange(BITS) + 1) * width // (2 * BITS)
    bright = frame[frame.shape[0] // 2, centres].mean(axis=1) > 120
    return sum(1 << bit for bit in range(BITS) if bright[bit])


def make_file(
    path: Path,
    num_frames: int = 20,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    fps: Fraction | int = 25,
    stamps: Sequence[int] | None = None,
    size: tuple[int, int] = (48, 64),
    rotation: int = 0,
    sound: bool = False,
    pictures: Sequence[av.VideoFrame] | None = None,
    colour: dict[str, int] | None = None,
) -> Path:
    """Writes numbered frames, or `pictures`, with any encoder. `stamps`: presentation times in milliseconds."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        for name, value in (colour or {}).items():
            setattr(stream.codec_context, name, value)
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for index in range(num_frames if pictures is None else len(pictures)):
            if pictures is None:
                picture = av.VideoFrame.from_ndarray(numbered_frame(index, *size), format="rgb24")
                picture = picture.reformat(format=pixel_format)
            else:
                picture = pictures[index]
            picture.pts = index if stamps is None else stamps[index]
            picture.time_base = 1 / Fraction(fps) if stamps is None else Fraction(1, 1000)
            container.mux(stream.encode(picture))
        if audio is not None:
            sound_frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            sound_frame.sample_rate, sound_frame.pts, sound_frame.time_base = 16000, 0, Fraction(1, 16000)
            for plane in sound_frame.planes:
                plane.update(bytes(plane.buffer_size))
            container.mux(audio.encode(sound_frame))
            container.mux(audio.encode(None))
        container.mux(stream.encode(None))
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    """Cuts a file to a share of its bytes, in place."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
