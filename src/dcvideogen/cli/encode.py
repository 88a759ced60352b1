"""`dcvideogen encode`: a video file to a latents file."""

from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli import options
from dcvideogen.cli.console import out
from dcvideogen.weights import DEFAULT_AUTOENCODER


def encode(
    input_path: Annotated[Path, typer.Argument(metavar="INPUT", help="A video file, image or folder of images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The latents file, *.safetensors.")],
    model: Annotated[str, typer.Option(help=options.MODEL_HELP)] = DEFAULT_AUTOENCODER,
    height: options.Height = None,
    width: options.Width = None,
    num_frames: options.NumFrames = None,
    fps: options.Fps = None,
    rows_per_step: options.RowsPerStep = None,
    offload_state: options.OffloadState = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    on_error: options.OnError = "raise",
) -> None:
    """Compress a video to a latents file."""
    options.check_size(height, width)
    options.check_at_least_one("--num-frames", num_frames)
    options.check_run(rows_per_step, dtype, device)
    options.check_choice("--on-error", on_error, options.ON_ERROR)
    options.check_latents_output(output)
    rate = options.parse_fps(fps)
    options.check_inputs_exist([input_path])

    from contextlib import closing

    import torch

    from dcvideogen.autoencoder.loading import load_autoencoder
    from dcvideogen.cli.progress import StageProgress
    from dcvideogen.data.latents_file import LatentsInfo, write_latents
    from dcvideogen.pipelines.streaming import (
        ClipOptions,
        RunOptions,
        counted,
        encode_pieces,
        latent_space_id,
        model_name,
        video_pieces,
    )
    from dcvideogen.video import prefetch

    chosen = options.choose_device(device)
    clip, run = ClipOptions(height, width, num_frames, rate, on_error), RunOptions(rows_per_step, offload_state)
    total, clip_fps = clip.expected(input_path)
    autoencoder = load_autoencoder(model, device=chosen, dtype=options.choose_dtype(dtype))
    geometry, latents, size = autoencoder.geometry, [], {}
    with (
        torch.inference_mode(),
        StageProgress(input_path.name, ("reading", "encoding"), total) as progress,
        closing(prefetch(clip.frames(input_path))) as source,
    ):

        def noted(frames):
            for frame in frames:
                size["height"], size["width"] = frame.shape[:2]
                size["num_frames"] = size.get("num_frames", 0) + 1
                yield frame

        videos = video_pieces(noted(counted(source, progress, "reading")), geometry.chunk_frames, chosen)
        for piece in encode_pieces(autoencoder, videos, run):
            latents.append(piece[0].cpu())
            progress.advance("encoding", piece.shape[2] * geometry.temporal_ratio)
    joined = torch.cat(latents, dim=1)
    info = LatentsInfo(fps=clip_fps, latent_space_id=latent_space_id(autoencoder), model=model_name(model), **size)
    write_latents(output, joined, info)
    numbers = 3 * info.num_frames * info.height * info.width
    out.print(
        f"{output}: {info.num_frames} frames of {info.width}x{info.height} as latents {tuple(joined.shape)}, "
        f"{numbers / joined.numel():.1f} pixel values per latent value",
        markup=False,
        soft_wrap=True,
    )
