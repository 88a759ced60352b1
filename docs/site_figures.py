"""Draws the figures of concepts.md, from the package's own arithmetic and counts: `python docs/site_figures.py`.

SVG that fits a phone's width and follows the reader's system into light or dark. Sizes are those of Wan 2.1 1.3B at
480x832 and of its adaptation to f32t4c32, as in DC-VideoGen (arXiv 2509.25182).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan

from dcvideogen.adaptation.on_meta import transformer_on_meta
from dcvideogen.adaptation.pooling import pool_ratio
from dcvideogen.adaptation.time_windows import TimeLayout, time_offset
from dcvideogen.adaptation.transformer_cost import cost_of
from dcvideogen.adaptation.wan_configs import WAN_CONFIGS
from dcvideogen.autoencoder.cost import conv_flops
from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.files import write_text
from dcvideogen.geometry import Geometry

IMAGES = Path(__file__).parent / "images"
WIDTH = 520  # units of the drawing, which is as wide as the text; letters of 15 can be read on a phone
STYLE = """
  text { font: 15px system-ui, sans-serif; fill: #1f2430; }
  .small { font-size: 13px; fill: #555d6e; }
  .line { stroke: #555d6e; stroke-width: 1.5; fill: none; }
  .a { fill: #3f6fd1; } .b { fill: #d9822b; } .c { fill: #2f9e79; } .off { fill: #d5d9e2; }
  .in { fill: #ffffff; text-anchor: middle; } .mid { text-anchor: middle; } .end { text-anchor: end; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6e9f0; } .small { fill: #a9b1c2; } .line { stroke: #a9b1c2; } .off { fill: #3d4454; }
    .a { fill: #4f7fe0; } .b { fill: #c9731c; } .c { fill: #2a9070; } .in { fill: #ffffff; }
  }
"""

F32 = Geometry(spatial_ratio=32, temporal_ratio=4, chunk_frames=40)
BASE = WAN_CONFIGS["wan2.1-t2v-1.3b"]
MOVED: dict[str, Any] = {**BASE, "in_channels": 32, "out_channels": 32, "patch_size": (1, 1, 1)}
BASE_RATIO = 8  # pixels per latent of Wan's autoencoder
FRAMES, HEIGHT, ACROSS = 80, 480, 832
TEXT_TOKENS = 512
PASSES = 50 * 2  # steps, with guidance
CHUNK_EXAMPLE = 100  # frames: two chunks and a half


def svg(title: str, height: float, parts: Iterator[str]) -> str:
    body = "\n".join(parts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img">'
    return f"{head}\n<title>{title}</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"


def rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"/>'


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{words}</text>'


def chunk_figure() -> str:
    """What one frame may depend on, by the rule for time; chunks and latents below it."""
    chunk, frames, seen_from = F32.chunk_frames, CHUNK_EXAMPLE, 50
    unit = WIDTH / frames
    end = (seen_from // chunk + 1) * chunk
    rules = (("causal", seen_from + 1), ("chunk-causal", end), ("non-causal", frames))

    def parts() -> Iterator[str]:
        yield text(0, 16, f"What frame {seen_from} of {frames} may depend on")
        for row, (name, last) in enumerate(rules):
            top = 30 + row * 48
            yield text(0, top + 12, f"{name}: frames 0 to {last - 1}", "small")
            for frame in range(frames):
                kind = "b" if frame == seen_from else "a" if frame < last else "off"
                yield rect(frame * unit, top + 18, unit - 1, 18, kind)
        top = 196
        yield text(0, top, f"{F32.num_chunks(frames)} chunks of up to {chunk} frames")
        latents = F32.num_latent_frames(frames)
        for number, begin in enumerate(range(0, frames, chunk)):
            length = min(chunk, frames - begin)
            yield rect(begin * unit, top + 10, length * unit - 2, 26, "c")
            yield text((begin + length / 2) * unit, top + 28, f"{length} frames", "in")
            if number:
                yield f'<path class="line" d="M{begin * unit - 16:.1f} {top + 46} h28 m-6 -4 l6 4 l-6 4"/>'
        yield text(0, top + 74, f"{latents} latent frames, {F32.temporal_ratio} frames each", "")
        for latent in range(latents):
            yield rect(latent * F32.temporal_ratio * unit, top + 84, F32.temporal_ratio * unit - 2, 18, "a")

    return svg("What a chunk is", 304, parts())


def windows(layout: TimeLayout, offset: int, frames: int) -> Iterator[tuple[int, int]]:
    """First frame and number of frames of each latent of a clip whose first `offset` frames are left out."""
    for latent in range(frames):
        first, behind = (layout.first_frame(one) + offset for one in (latent, latent + 1))
        if behind > frames:
            return
        yield first, behind - first


def aligned_figure() -> str:
    """Which frames and which part of the picture a base token and a new token stand for."""
    base, new, frames = TimeLayout(4, lone_first=True), TimeLayout(F32.temporal_ratio, lone_first=False), 16
    offset = time_offset(base, new)
    unit = WIDTH / frames
    rows = (
        ("Frames of a latent: base, from the first frame on", base, 0, "off"),
        (f"base, {offset} frames later", base, offset, "b"),
        ("new", new, 0, "a"),
    )
    grids = token_grids()
    ratio = pool_ratio(*grids)

    def parts() -> Iterator[str]:
        for row, (name, layout, start, kind) in enumerate(rows):
            top = row * 52
            yield text(0, top + 16, name)
            for first, length in windows(layout, start, frames):
                words = str(first) if length == 1 else f"{first}-{first + length - 1}"
                yield rect(first * unit, top + 24, length * unit - 2, 20, kind)
                shade = "mid small" if kind == "off" else "in"
                yield text((first + length / 2) * unit - 1, top + 39, words, shade)
        top, size = 178, 96
        (_, high, wide), (_, new_high, new_wide) = grids
        yield text(0, top, f"Part of the picture, {HEIGHT}x{ACROSS}")
        for x, count, kind in ((0, ratio[1], "b"), (330, 1, "a")):
            cell = size / count
            for row in range(count):
                for column in range(count):
                    yield rect(x + column * cell, top + 12 + row * cell, cell - 2, cell - 2, kind)
        yield f'<path class="line" d="M110 {top + 60} h200 m-10 -6 l10 6 l-10 6"/>'
        yield text(210, top + 48, "their mean is", "mid small")
        yield text(210, top + 82, "what one new token", "mid small")
        yield text(210, top + 100, "has to say", "mid small")
        yield text(0, top + 130, f"{ratio[1] * ratio[2]} of {high}x{wide} tokens", "small")
        yield text(330, top + 130, f"1 of {new_high}x{new_wide} tokens", "small")

    return svg("What is aligned", 320, parts())


def token_grids() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Tokens (t, h, w) of a clip for the base and for the moved model."""
    frames = FRAMES - time_offset(TimeLayout(4, lone_first=True), TimeLayout(F32.temporal_ratio, lone_first=False))
    latents = TimeLayout(4, lone_first=True).num_latents(frames)
    _, high, wide = BASE["patch_size"]
    base = latents, HEIGHT // BASE_RATIO // high, ACROSS // BASE_RATIO // wide
    return base, F32.latent_shape(FRAMES, HEIGHT, ACROSS)


def pass_flops(config: dict[str, Any], grid: tuple[int, int, int]) -> tuple[float, float]:
    """(all, those of self-attention) operations of one pass over one clip, a multiply-add counted as 2."""
    latents = (size * patch for size, patch in zip(grid, config["patch_size"], strict=True))
    given = {
        "hidden_states": torch.empty(1, config["in_channels"], *latents, device="meta"),
        "timestep": torch.empty(1, device="meta"),
        "encoder_hidden_states": torch.empty(1, TEXT_TOKENS, config["text_dim"], device="meta"),
    }
    with torch.no_grad():
        total = cost_of(transformer_on_meta(config), lambda model: model(**given, return_dict=False)[0]).forward
    tokens, width = grid[0] * grid[1] * grid[2], config["num_attention_heads"] * config["attention_head_dim"]
    return total, 4 * tokens**2 * width * config["num_layers"]


def base_decode_flops(latents: int) -> float:
    """Of the convs of Wan's autoencoder, which decodes one latent frame after the other: what one more takes is
    counted on one latent in space."""
    with torch.device("meta"):
        model = AutoencoderKLWan()
    counts: list[float] = []

    def count(module: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        counts[-1] += 2 * module.weight[0].numel() * output.numel()

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            module.register_forward_hook(count)
    with torch.no_grad():
        for length in (2, 3):
            counts.append(0)
            model.decode(torch.empty(1, model.config.z_dim, length, 1, 1, device="meta"))
    area = (HEIGHT // BASE_RATIO) * (ACROSS // BASE_RATIO)
    return area * (counts[0] + (latents - 2) * (counts[1] - counts[0]))


def decode_flops() -> float:
    """Of f32t4c32: linear in the latents, so counted on one."""
    with torch.device("meta"):
        model = make_autoencoder("f32t4c32")
    _, one = conv_flops(model, F32.temporal_ratio, F32.spatial_ratio, F32.spatial_ratio)
    t, h, w = F32.latent_shape(FRAMES, HEIGHT, ACROSS)
    return one * t * h * w


def time_figure() -> str:
    """Operations of one video: attention, the rest of the transformer, decoding."""
    grids = token_grids()
    rows = []
    decoders = base_decode_flops(grids[0][0]), decode_flops()
    for name, config, grid, decode in zip(("base", "moved"), (BASE, MOVED), grids, decoders, strict=True):
        total, attention = (PASSES * one for one in pass_flops(config, grid))
        rows.append((name, grid, (attention, total - attention, decode)))
    longest = sum(rows[0][2])
    legend = (("a", "attention"), ("c", "the rest of the transformer"), ("b", "decoding"))

    def parts() -> Iterator[str]:
        yield text(0, 16, f"Operations of one video, {FRAMES} frames of {HEIGHT}x{ACROSS}, {PASSES} passes")
        x = 0.0
        for kind, words in legend:
            yield rect(x, 28, 13, 13, kind)
            yield text(x + 18, 40, words, "small")
            x += 40 + 7.2 * len(words)
        for row, (name, grid, amounts) in enumerate(rows):
            top = 58 + row * 84
            tokens = grid[0] * grid[1] * grid[2]
            yield text(0, top + 14, f"{name}: {tokens:,} tokens, {sum(amounts) / 1e15:.1f} PFLOP")
            x = 0.0
            for (kind, _), amount in zip(legend, amounts, strict=True):
                width = WIDTH * amount / longest
                yield rect(x, top + 22, max(width - 1, 1), 26, kind)
                x += width
            shares = ", ".join(
                f"{words} {100 * amount / sum(amounts):.0f} %"
                for (_, words), amount in zip(legend, amounts, strict=True)
            )
            yield text(0, top + 64, shares, "small")

    return svg("Where the time goes", 224, parts())


FIGURES = {"chunk": chunk_figure, "aligned": aligned_figure, "time": time_figure}

if __name__ == "__main__":
    for figure_name, draw in FIGURES.items():
        write_text(IMAGES / f"concepts_{figure_name}.svg", draw())
