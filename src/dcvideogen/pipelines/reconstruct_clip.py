"""One clip through the autoencoder and back: the files that `dcvideogen reconstruct` and the server write."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from dcvideogen.adaptation.device_speed import device_name
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.data.latents_file import LatentsInfo, write_latents
from dcvideogen.errors import UserError
from dcvideogen.evaluation.dct_baseline import DctBaselineMetrics
from dcvideogen.evaluation.reconstruction import ReconstructionMetrics
from dcvideogen.evaluation.strip import Strip
from dcvideogen.files import write_json
from dcvideogen.pipelines.resources import PeakMemory, Stopwatch
from dcvideogen.pipelines.streaming import (
    ClipOptions,
    RunOptions,
    StageProgress,
    counted,
    decode_pieces,
    encode_pieces,
    latent_space_id,
    video_pieces,
)
from dcvideogen.video import BackgroundWriter, VideoWriter, prefetch, video_to_frames

STAGES = ("reading", "encoding", "decoding", "writing")


@dataclass(frozen=True)
class Outputs:
    """The files of one clip."""

    folder: Path
    lossless: bool = False

    @property
    def reconstruction(self) -> Path:
        return self.folder / ("reconstruction.mkv" if self.lossless else "reconstruction.mp4")

    @property
    def side_by_side(self) -> Path:
        return self.folder / "side_by_side.mp4"

    @property
    def latents(self) -> Path:
        return self.folder / "latents.safetensors"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def strip(self) -> Path:
        return self.folder / "strip.png"


class Measures:
    """What is measured on pairs of input and reconstruction; a sink, so that it has a thread of its own."""

    def __init__(self, metrics: ReconstructionMetrics) -> None:
        self.metrics, self.baseline, self.strip = metrics, DctBaselineMetrics(), Strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def write(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        """One pair of uint8 frames (H, W, 3)."""
        self.metrics.update(*pair)
        self.baseline.update(pair[0])
        self.strip.update(*pair)


@torch.inference_mode()
def reconstruct_clip(
    model: AutoencoderDCV,
    name: str,
    path: Path,
    outputs: Outputs,
    clip: ClipOptions,
    run: RunOptions,
    crf: int,
    show: Callable[[str, tuple[str, ...], int | None], StageProgress],
) -> dict[str, Any]:
    """Reads, encodes, decodes, measures and writes one clip; returns what metrics.json holds.

    show: (title, stages, frames of the clip or None) -> what is told of progress; whatever it raises ends the work.
    Pixels pass through: at most the frames of about one chunk are held, besides the latents. Raises UserError for a
    file that cannot be read, and then leaves no file of its own behind.
    """
    if path.resolve() in {outputs.reconstruction.resolve(), outputs.side_by_side.resolve()}:
        raise UserError(f"{path} would be overwritten by its own reconstruction; choose another -o")
    total, fps = clip.expected(path)
    device = model.device
    memory, watch = PeakMemory(device), Stopwatch()
    measures = Measures(ReconstructionMetrics(model.geometry.chunk_frames, model.geometry.temporal_ratio))
    waiting: deque[np.ndarray] = deque()  # frames that were read and whose reconstruction is still to come
    held: list[torch.Tensor] = []

    with ExitStack() as stack:
        progress = stack.enter_context(show(path.name, STAGES, total))
        source = stack.enter_context(closing(prefetch(clip.frames(path))))
        frames = remembered(counted(source, progress, "reading"), waiting)
        first = next(frames)
        height, width = first.shape[:2]
        writer = stack.enter_context(BackgroundWriter(VideoWriter(outputs.reconstruction, fps=fps, crf=crf)))
        measuring = stack.enter_context(BackgroundWriter(measures))
        beside = stack.enter_context(BackgroundWriter(VideoWriter(outputs.side_by_side, fps=fps, crf=crf)))

        def kept(latents: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
            for piece in latents:
                held.append(piece[0].cpu())
                progress.advance("encoding", piece.shape[2] * model.geometry.temporal_ratio)
                yield piece

        videos = watch.iterate("read", video_pieces(chain([first], frames), model.geometry.chunk_frames, device))
        latents = watch.iterate("encode", kept(encode_pieces(model, videos, run)))
        pieces = map(video_to_frames, decode_pieces(model, latents, run, height, width))
        for piece in watch.iterate("decode", pieces):
            # The last piece may hold frames that only fill up the last latent.
            for reconstruction in piece[: len(waiting)]:
                frame = waiting.popleft()
                progress.advance("decoding")
                writer.write(reconstruction)
                beside.write(np.concatenate([frame, reconstruction], axis=1))
                measuring.write((frame, reconstruction))
                progress.advance("writing")

    joined = torch.cat(held, dim=1)
    report = measures.metrics.report()
    info = LatentsInfo(height, width, report["num_frames"], fps, latent_space_id(model), name)
    with named_errors(outputs.folder):
        write_latents(outputs.latents, joined, info)
        measures.strip.save(outputs.strip)
    result = {
        "input": path.name,
        "model": name,
        "latent_space_id": info.latent_space_id,
        "device": device_name(device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "options": {**asdict(clip), "fps": clip.fps and str(clip.fps), **asdict(run), "crf": crf},
        "height": height,
        "width": width,
        "num_frames": info.num_frames,
        "fps": f"{fps.numerator}/{fps.denominator}",
        "latent_shape": list(joined.shape),
        "compression_ratio": model.compression_ratio,
        "compression_ratio_with_padding": 3 * info.num_frames * height * width / joined.numel(),
        **{key: value for key, value in report.items() if key != "num_frames"},
        "dct_baseline": measures.baseline.report(),
        "seconds": {"total": watch.total_s, **watch.seconds},
        "peak_memory": memory.report(),
    }
    with named_errors(outputs.folder):
        write_json(outputs.metrics, result)
    return result


@contextmanager
def named_errors(folder: Path) -> Iterator[None]:
    """Full disks and forbidden folders under the name that the user gave, not that of a temporary file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}; free some space or choose another place"
        ) from error


def remembered(frames: Iterable[np.ndarray], waiting: deque[np.ndarray]) -> Iterator[np.ndarray]:
    """Passes frames on and appends each to `waiting`."""
    for frame in frames:
        waiting.append(frame)
        yield frame
