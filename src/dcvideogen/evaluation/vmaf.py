"""VMAF, by an ffmpeg that has libvmaf: on the PATH, or the one that the package imageio-ffmpeg brings."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from dcvideogen.video import VideoWriter

MIN_SIDE = 32  # pixels; libvmaf's features need so many
FPS = 24  # any rate: time stamps are replaced by frame numbers
SECONDS_PER_CLIP = 3600
NO_FFMPEG = "no ffmpeg with libvmaf: put one on the PATH, or pip install imageio-ffmpeg"
_NAMES = ("input.mkv", "reconstruction.mkv", "vmaf.json")


@cache
def find_ffmpeg() -> str | None:
    """The first ffmpeg that lists the filter libvmaf; None when there is none."""
    candidates = [shutil.which("ffmpeg")]
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        with contextlib.suppress(RuntimeError):  # the package is there without a binary for this machine
            candidates.append(imageio_ffmpeg.get_ffmpeg_exe())
    for candidate in candidates:
        if candidate is not None:
            command = [candidate, "-hide_banner", "-filters"]
            listed = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            if " libvmaf " in listed.stdout:
                return candidate
    return None


class Vmaf:
    """Context manager that takes pairs of frames, keeps them in lossless temporary files, and has them compared.

    Both inputs get `settb=1/24,setpts=N`, so that frames are paired by number: by time stamps, which a container
    rounds, neighbours are compared and a near-lossless clip scores 71. RGB becomes BT.709, limited range, 4:2:0 before
    it is compared, the form that the model (libvmaf's default, vmaf_v0.6.1) was made for.
    """

    def __init__(self, ffmpeg: str | None) -> None:
        self._ffmpeg = ffmpeg
        self._folder: tempfile.TemporaryDirectory | None = None
        self._writers: list[VideoWriter] = []
        self._reason = None if ffmpeg else NO_FFMPEG

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the files if nobody has, and removes them."""
        stopped = error or RuntimeError("not reported")
        for writer in self._writers:
            writer.__exit__(type(stopped), stopped, None)
        if self._folder is not None:
            self._folder.cleanup()

    def update(self, frame: np.ndarray, reconstruction: np.ndarray) -> None:
        """One pair of uint8 frames (H, W, 3)."""
        if min(frame.shape[:2]) < MIN_SIDE:
            self._reason = self._reason or f"frame smaller than {MIN_SIDE} x {MIN_SIDE} pixels"
        if self._reason:
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="dcvideogen-vmaf-")
            paths = [Path(self._folder.name) / name for name in _NAMES[:2]]
            self._writers = [VideoWriter(path, fps=FPS).__enter__() for path in paths]
        for writer, picture in zip(self._writers, (frame, reconstruction), strict=True):
            writer.write(picture)

    def report(self) -> dict[str, Any]:
        """`mean` (0 to 100), `per_frame` and `reason`, why they are null."""
        if self._folder is None:
            return {"mean": None, "per_frame": [], "reason": self._reason or "no frames"}
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.__exit__(None, None, None)
        return self._compare(Path(self._folder.name))

    def _compare(self, folder: Path) -> dict[str, Any]:
        prepared = "settb=1/24,setpts=N,scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
        graph = (
            f"[0:v]{prepared}[distorted];[1:v]{prepared}[reference];"
            f"[distorted][reference]libvmaf=log_fmt=json:log_path={_NAMES[2]}"
        )
        command = [self._ffmpeg, "-hide_banner", "-nostdin", "-i", _NAMES[1], "-i", _NAMES[0]]
        command += ["-lavfi", graph, "-f", "null", "-"]
        # In the folder, because paths inside a filter graph have rules of their own.
        options = {"cwd": folder, "capture_output": True, "text": True, "errors": "replace"}
        try:
            done = subprocess.run(command, check=False, timeout=SECONDS_PER_CLIP, stdin=subprocess.DEVNULL, **options)
        except subprocess.TimeoutExpired:
            return {"mean": None, "per_frame": [], "reason": f"ffmpeg took over {SECONDS_PER_CLIP} s"}
        if done.returncode:
            told = " ".join(done.stderr.strip().splitlines()[-1:])[:200]
            return {"mean": None, "per_frame": [], "reason": f"ffmpeg failed: {told}"}
        content = json.loads((folder / _NAMES[2]).read_text())
        values = [float(frame["metrics"]["vmaf"]) for frame in content["frames"]]
        return {"mean": float(np.mean(values)), "per_frame": values, "reason": None}
