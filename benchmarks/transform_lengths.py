"""What a fixed transform can do at compression 96, by the number of frames it spans.

    python benchmarks/transform_lengths.py CLIPS > benchmarks/results/transform_lengths.md

Blocks of L x 32 x 32 pixels in three colours, their orthonormal 3-D DCT, and the 32 L coefficients (a latent of 128
numbers for every four frames) that hold the most energy in the clips that the bundled model was trained on. L = 4 is
the baseline of `dcvideogen evaluate`. Longer ones say how much of a clip's redundancy lies between latent frames.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from dcvideogen.recipes.recipe import AutoencoderRecipe, find_recipe, read_recipe
from dcvideogen.training.blocks import COLOURS, dct_matrix, to_blocks
from dcvideogen.video import read_video

LENGTHS = (4, 8, 20, 40)  # frames; divisors of the 80 that are measured
SIDE, NUM_FRAMES, BLOCK, LATENT_CHANNELS, TEMPORAL_RATIO = 256, 80, 32, 128, 4
CANDIDATES = 1024  # coefficients of a single frame that are looked at; the others hold 0.1 % of the energy


def spatial_coefficients(video: Tensor) -> Tensor:
    """Video (1, 3, T, H, W) -> DCT coefficients (T, blocks, 3 * 32 * 32)."""
    d = dct_matrix(BLOCK)
    blocks = to_blocks(video, 1, BLOCK).unflatten(1, (3, BLOCK, BLOCK))
    coefficients = torch.einsum("nchw,kc,uh,vw->nkuv", blocks, COLOURS, d, d)
    return coefficients.flatten(1).unflatten(0, (video.shape[2], -1))


def temporal_coefficients(coefficients: Tensor, length: int) -> Tensor:
    """(T, blocks, K) -> (T / length, blocks, length, K); frames beyond whole groups are left out."""
    groups = coefficients[: len(coefficients) // length * length].unflatten(0, (-1, length))
    return torch.einsum("glbk,fl->gbfk", groups, dct_matrix(length))


def psnr(lost: Tensor) -> float:
    """dB of the energy lost per group of frames, over videos in [-1, 1], averaged over groups."""
    return float((10 * torch.log10(4 / lost)).mean())


def main() -> None:
    folder = Path(sys.argv[1])
    recipe = read_recipe(AutoencoderRecipe, find_recipe("dcae-small-f32t4c128-bundled"))
    paths = {path.stem: path for path in sorted(folder.rglob("*")) if path.is_file()}
    clips = {
        name: spatial_coefficients(read_video(paths[name], num_frames=NUM_FRAMES, height=SIDE, width=SIDE)[0])
        for name in (*recipe.data.videos, *recipe.data.held_out)
    }
    energy = sum(clips[name].square().mean((0, 1)) for name in recipe.data.videos)
    top = energy.argsort(descending=True)[:CANDIDATES]
    print("# A fixed DCT over more frames, at compression 96\n")
    print("PSNR in dB at 256x256, first 80 frames; `benchmarks/transform_lengths.py` says what is measured.\n")
    print("| frames | coefficients |", " | ".join(recipe.data.held_out), "| mean |")
    print("|---" * (len(recipe.data.held_out) + 3) + "|")
    for length in LENGTHS:
        energy = sum(
            temporal_coefficients(clips[name][..., top], length).square().mean((0, 1)) for name in recipe.data.videos
        )
        count = LATENT_CHANNELS * length // TEMPORAL_RATIO
        kept = torch.zeros(energy.numel())
        kept[energy.flatten().argsort(descending=True)[:count]] = 1
        values = []
        for name in recipe.data.held_out:
            total = clips[name].square().sum((1, 2)).unflatten(0, (-1, length)).sum(1)
            held = temporal_coefficients(clips[name][..., top], length).square().flatten(2) @ kept
            values.append(psnr((total - held.sum(1)) / (3 * length * SIDE**2)))
        print(f"| {length} | {count} |", " | ".join(f"{v:.2f}" for v in values), f"| {sum(values) / len(values):.2f} |")


if __name__ == "__main__":
    main()
