"""Rebuilds the table of the fixed DCT baseline and measures it on the six clips that nothing is trained on.

    DCVIDEOGEN_CLIPS=DIR python benchmarks/dct_table.py            measure the committed table
    DCVIDEOGEN_CLIPS=DIR python benchmarks/dct_table.py --write    rebuild it first

Every clip: first 80 frames, shorter side resized to 256 by area averaging and centre-cropped to 256 x 256. The
resize is done here, exactly, because a sharper one costs every method PSNR (this baseline 27.2 dB; 26.6 with a
bicubic kernel) and numbers are only comparable under one. The energy of a coefficient is its mean square per clip,
averaged over the training clips, so that long clips do not dominate.
"""

import argparse
import json
import os
import sys
from functools import cache
from pathlib import Path

import numpy as np

from dcvideogen.evaluation.dct_baseline import BLOCK, BLOCK_SIZE, CHANNELS, DctBaseline, frames_to_blocks, transform
from dcvideogen.evaluation.reconstruction import psnr
from dcvideogen.video import iterate_frames
from dcvideogen.video.frames import centre_crop, covering_size

NUM_COEFFICIENTS = 128
NUM_FRAMES, SIDE = 80, 256
HELD_OUT = (
    "aws_glass_facade",
    "cosmos_robot_handover",
    "intel_bottles",
    "maxine_man_face",
    "mdn_stream_of_water",
    "sam2_pour_coffee",
)
TABLE = Path(__file__).parents[1] / "src/dcvideogen/evaluation/dct_table.json"


def read_clip(path: Path, num_frames: int = NUM_FRAMES, side: int = SIDE) -> np.ndarray:
    """The clip under the protocol above, uint8 (T, side, side, 3)."""
    return np.stack([area_resize(frame, side) for frame in iterate_frames(path, num_frames=num_frames)])


def area_resize(frame: np.ndarray, side: int) -> np.ndarray:
    """Shorter side -> `side` by averaging over the area that each new pixel covers, then the centre square."""
    height, width = covering_size(*frame.shape[:2], side, side)
    rows = area_weights(frame.shape[0], height) @ frame.reshape(frame.shape[0], -1).astype(np.float32)
    resized = area_weights(frame.shape[1], width) @ rows.reshape(height, frame.shape[1], 3)
    return np.ascontiguousarray(centre_crop(resized, side, side).round().clip(0, 255).astype(np.uint8))


@cache
def area_weights(size: int, new_size: int) -> np.ndarray:
    """(new_size, size): the share of each old pixel in each new one; rows sum to 1."""
    edges = np.arange(new_size + 1)[:, None] * size / new_size
    overlap = np.minimum(edges[1:], np.arange(1, size + 1)) - np.maximum(edges[:-1], np.arange(size))
    return (overlap.clip(0) * new_size / size).astype(np.float32)


def mean_energy(frames: np.ndarray) -> np.ndarray:
    """Mean square of every coefficient over a clip's blocks, (3, 4096)."""
    total, count = np.zeros((len(CHANNELS), BLOCK_SIZE)), 0
    for start in range(0, len(frames), BLOCK[0]):
        coefficients = transform(frames_to_blocks(frames[start : start + BLOCK[0]]))
        total += np.square(coefficients, dtype=np.float64).sum(axis=1)
        count += coefficients.shape[1]
    return total / count


def build(paths: list[Path]) -> dict[str, list[int]]:
    energy = np.mean([mean_energy(read_clip(path)) for path in paths], axis=0).flatten()
    kept = sorted(np.argsort(-energy, kind="stable")[:NUM_COEFFICIENTS].tolist())
    size = len(energy) // len(CHANNELS)
    return {name: [k - i * size for k in kept if k // size == i] for i, name in enumerate(CHANNELS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="rebuild the table from the training clips")
    write = parser.parse_args().write
    folder = os.environ.get("DCVIDEOGEN_CLIPS")
    if not folder:
        sys.exit("DCVIDEOGEN_CLIPS is not set; set it to the folder of clips")
    clips = sorted(path for path in Path(folder).iterdir() if path.is_file())
    if write:
        table = build([path for path in clips if path.stem not in HELD_OUT])
        text = ",\n".join(f'  "{name}": {indices}' for name, indices in table.items())
        temporary = TABLE.with_suffix(".partial")
        temporary.write_text(f'{{\n  "block": {json.dumps(BLOCK)},\n{text}\n}}\n', encoding="utf-8")
        temporary.replace(TABLE)
        print(f"{TABLE.name}: " + ", ".join(f"{len(indices)} {name}" for name, indices in table.items()))
    baseline, means = DctBaseline(), []
    for path in clips:
        if path.stem in HELD_OUT:
            frames = read_clip(path)
            pairs = zip(frames, baseline.stream(frames), strict=True)
            means.append(float(np.mean([psnr(frame, kept) for frame, kept in pairs])))
            print(f"{path.stem:24s} {means[-1]:6.2f} dB")
    print(f"{'mean':24s} {np.mean(means):6.2f} dB")


if __name__ == "__main__":
    main()
