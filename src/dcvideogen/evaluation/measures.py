"""All that is measured on one clip, a pair of frames at a time."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from dcvideogen.evaluation.blocks import BlockDistribution, WorstBlocks
from dcvideogen.evaluation.i3d import I3D, ClipFeatures, load_i3d
from dcvideogen.evaluation.lpips import SMALLEST_SIDE, Lpips, load_lpips
from dcvideogen.evaluation.reconstruction import ReconstructionMetrics
from dcvideogen.evaluation.strip import Strip, save_png
from dcvideogen.evaluation.subjects import Traits
from dcvideogen.evaluation.vmaf import Vmaf, find_ffmpeg
from dcvideogen.video import frames_to_video

NO_LPIPS = "no weights: give --lpips-backbone and --lpips-heads"
NO_I3D = "no weights: give --i3d"
CPU = torch.device("cpu")
PICTURES = 3  # frames of a clip that are shown


@dataclass(frozen=True)
class Networks:
    """The metrics that need files of the user's; None where they were not given. key: changes with the files."""

    lpips: Lpips | None = None
    i3d: I3D | None = None
    ffmpeg: str | None = field(default_factory=find_ffmpeg)
    device: torch.device = CPU
    key: str = ""


def load_networks(backbone: Path | None, heads: Path | None, i3d: Path | None, device: torch.device) -> Networks:
    """Reads the files that are given: LPIPS (Alex) from both of its two, I3D from its one. UserError as they say."""
    lpips = None if backbone is None or heads is None else load_lpips("alex", backbone, heads).to(device)
    classifier = None if i3d is None else load_i3d(i3d).to(device)
    paths = [path for path in (backbone, heads, i3d) if path is not None]
    key = " ".join(hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths)
    ffmpeg = find_ffmpeg()
    return Networks(lpips, classifier, ffmpeg, device, f"{key} {'vmaf' if ffmpeg else ''}")


class LpipsSeries:
    """LPIPS of pairs of frames, one by one."""

    def __init__(self, model: Lpips | None, device: torch.device) -> None:
        self._model, self._device = model, device
        self._reason = None if model else NO_LPIPS
        self._values: list[float] = []

    def update(self, frame: np.ndarray, reconstruction: np.ndarray) -> None:
        if self._model is not None and min(frame.shape[:2]) < (smallest := SMALLEST_SIDE[self._model.network]):
            self._reason = f"frame smaller than {smallest} x {smallest} pixels"
        if self._reason is None:
            one, other = (frames_to_video([picture])[:, :, 0].to(self._device) for picture in (frame, reconstruction))
            with torch.inference_mode():
                self._values.append(float(self._model(one, other)))

    def report(self) -> dict[str, Any]:
        mean = float(np.mean(self._values)) if self._values else None
        return {"mean": mean, "per_frame": self._values, "reason": self._reason}


class ClipMeasures:
    """Context manager and sink: `write` takes pairs of uint8 frames (H, W, 3) of one clip.

    Everything is of fixed size but one number per frame and metric, the I3D features (both clips at 224 x 224) and the
    temporary files of VMAF.
    """

    def __init__(self, traits: Traits, networks: Networks) -> None:
        self._metrics = ReconstructionMetrics(traits.chunk_frames, traits.temporal_ratio, num_worst_blocks=0)
        self._lpips = LpipsSeries(networks.lpips, networks.device)
        self._vmaf = Vmaf(networks.ffmpeg)
        self._features = None if networks.i3d is None else ClipFeatures(networks.i3d, networks.device)
        self._blocks, self._worst, self._strip = BlockDistribution(), WorstBlocks(), Strip(columns=PICTURES)
        self._stack = ExitStack()
        self.size = (0, 0)

    def __enter__(self) -> Self:
        self._stack.enter_context(self._vmaf)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        number = self._metrics.num_frames
        self._metrics.update(*pair)
        self._blocks.update(self._metrics.block_errors)
        self._worst.update(number, *pair, self._metrics.block_errors)
        self._strip.update(*pair)
        self._lpips.update(*pair)
        self._vmaf.update(*pair)
        if self._features is not None:
            self._features.update(*pair)
        self.size = pair[0].shape[:2]

    def report(self) -> dict[str, Any]:
        """Plain JSON values; to be called before the context is left."""
        report = self._metrics.report()
        del report["worst_blocks"]  # those with pictures take their place
        features = {"input": None, "reconstruction": None, "reason": NO_I3D}
        return {
            "height": self.size[0],
            "width": self.size[1],
            **report,
            "lpips": self._lpips.report(),
            "vmaf": self._vmaf.report(),
            "blocks": self._blocks.report(),
            "i3d": features if self._features is None else self._features.report(),
        }

    def save_pictures(self, folder: Path) -> dict[str, Any]:
        """Writes PNG files: whole frames and worst blocks, as input, reconstruction and error; returns their names."""
        kinds = ("input", "reconstruction", "error")
        frames, worst = [], []
        for number, pictures in self._strip.chosen():
            names = {kind: f"frame_{number:06d}_{kind}.png" for kind in kinds}
            for name, picture in zip(names.values(), pictures, strict=True):
                save_png(folder / name, Image.fromarray(picture))
            frames.append({"frame": number, **names})
        for rank, block in enumerate(self._worst.worst()):
            name = f"worst_{rank:02d}.png"
            save_png(folder / name, Image.fromarray(np.concatenate(block.crops, axis=1)))
            worst.append({**block.as_json(), "picture": name})
        return {"frames": frames, "worst_blocks": worst}
