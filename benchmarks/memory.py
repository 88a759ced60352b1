"""Peak memory of encoding and decoding: whole chunks against strips of rows, short clips against long ones.

Each case runs in a fresh process. Its figure is the high-water mark of resident memory during the run minus what was
resident before it (libraries and weights), results being discarded as they come. It is also given in units of one
frame of the shallowest stage (its channels at half the height and width), which carries over to other widths.

    python benchmarks/memory.py -o benchmarks/results/memory_cpu.md
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from fresh_process import arguments, reset_peak, resident_bytes, run_case

QUARTER, EIGHTH = "f32t4c32-quarter", "f32t4c32-narrow"  # the published depths, these shares of the widths
PIECE = 4  # frames that are made at a time, so that the clip itself is never held


def measure(preset: str, direction: str, size: int, num_frames: int, rows: int | None, dtype: str) -> dict:
    """Runs one case in this process."""
    import torch

    from dcvideogen.autoencoder.presets import make_autoencoder

    torch.manual_seed(0)
    precision = getattr(torch, dtype)
    model = make_autoencoder(preset).eval().to(precision).to(memory_format=torch.channels_last_3d)
    geometry, channels = model.geometry, model.config.latent_channels

    def videos(total: int, side: int) -> Iterator[torch.Tensor]:
        for _ in range(0, total, PIECE):
            yield torch.rand(1, 3, PIECE, side, side, dtype=precision) * 2 - 1

    def latents(total: int, side: int) -> Iterator[torch.Tensor]:
        side //= geometry.spatial_ratio
        for _ in range(geometry.num_latent_frames(total)):
            yield torch.randn(1, channels, 1, side, side, dtype=precision)

    def run(pieces: Iterator[torch.Tensor], total: int) -> None:
        if total > model.config.chunk_frames:
            stream = model.encode_stream if direction == "encode" else model.decode_stream
            for _ in stream(pieces, rows_per_step=rows):
                pass
        else:  # the whole clip is known, so there is no next chunk to keep frames for
            call = model.encode if direction == "encode" else model.decode
            call(torch.cat(list(pieces), dim=2), rows_per_step=rows)

    source = videos if direction == "encode" else latents
    with torch.inference_mode():
        run(source(4, 32), 4)  # loads the kernels
        reset_peak()
        before, start = resident_bytes("VmRSS"), time.process_time()
        run(source(num_frames, size), num_frames)
    peak = resident_bytes("VmHWM") - before
    unit = model.config.block_out_channels[0] * (size // 2) ** 2 * torch.finfo(precision).bits // 8
    return {"peak_mib": peak / 2**20, "units": peak / unit, "cpu_seconds": time.process_time() - start}


def published_table(strip_units: float, whole_units: float) -> list[str]:
    """What follows for the published f32 decoder in bf16 from units measured on one chunk: GiB, weights included."""
    weights = 1222e6 * 2 / 2**30
    state = 23.4  # frames that the convs keep between chunks, in units (one per conv)
    video, video_at_an_eighth = 1.9, 15.0  # a chunk of video coming out, in units
    lines = [
        "| f32 decoder, bf16, with weights, GiB | whole chunks | 16 rows per step | same, state in host memory |",
        "|---|---|---|---|",
    ]
    for height, width in ((480, 832), (704, 1280), (1088, 1920), (2176, 3840)):
        unit = 256 * (height // 2) * (width // 2) * 2 / 2**30
        # Rows at work or waiting do not grow with the height, and the unit does; measured at 704 lines.
        strips = (strip_units - video_at_an_eighth) * 704 / height + video
        whole, resident, offloaded = (weights + u * unit for u in (whole_units + state, strips + state, strips))
        lines.append(f"| {height}x{width} | {whole:.1f} | {resident:.1f} | {offloaded:.1f} |")
    return lines


def main() -> None:
    given = arguments(__doc__, "2 cores of an AMD EPYC, 24 GiB", measure)
    lines = [
        f"# Memory of encoding and decoding, fp32, {given.hardware}",
        "",
        "Made by `python benchmarks/memory.py`. Unit: a frame of the shallowest stage. 80 and 400 frames are streams: "
        "the frames between chunks (23.4 units) count. 40 frames are one `encode` or `decode`. A chunk of video "
        "is 15 units at an eighth of the widths, 7.5 at a quarter, 1.9 at the published ones, going in or coming out.",
        "",
        "| preset | direction | size | frames | rows per step | peak MiB | units | of whole chunk | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    units: dict[tuple, float] = {}
    for direction in ("encode", "decode"):
        for preset, size, num_frames, rows in (
            (EIGHTH, 128, 80, None),
            (EIGHTH, 128, 400, None),
            (EIGHTH, 128, 80, 16),
            (EIGHTH, 128, 400, 16),
            (EIGHTH, 256, 40, None),
            (EIGHTH, 256, 40, 16),
            (QUARTER, 256, 40, None),
            (QUARTER, 256, 40, 16),
            (EIGHTH, 704, 40, None),
            (EIGHTH, 704, 40, 16),
        ):
            result = run_case(__file__, (preset, direction, size, num_frames, rows, "float32"))
            units[preset, direction, size, num_frames, rows] = result["units"]
            whole = units[preset, direction, size, num_frames, None]
            ratio = f"{result['units'] / whole:.0%}" if rows else ""
            lines.append(
                f"| {preset} | {direction} | {size}x{size} | {num_frames} | {rows or 'all'} | {result['peak_mib']:.0f} "
                f"| {result['units']:.1f} | {ratio} | {result['cpu_seconds']:.0f} |"
            )
            print(lines[-1], flush=True)
    lines += ["", *published_table(units[EIGHTH, "decode", 704, 40, 16], units[QUARTER, "decode", 256, 40, None])]
    if given.output:
        given.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines[-7:]))


if __name__ == "__main__":
    main()
