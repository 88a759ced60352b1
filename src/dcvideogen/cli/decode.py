"""`dcvideogen decode`: a latents file back to a video."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli import options
from dcvideogen.cli.console import out
from dcvideogen.errors import UserError
from dcvideogen.weights import bundled_models

SUFFIXES = (".mp4", ".mkv", "")


def decode(
    input_path: Annotated[Path, typer.Argument(metavar="LATENTS", help="A file that `dcvideogen encode` wrote.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="*.mp4 (H.264), *.mkv (FFV1, bit exact), or a folder of PNG files.")
    ],
    model: Annotated[
        str | None, typer.Option(help=f"{options.MODEL_HELP} The one that encoded, if it is bundled.")
    ] = None,
    rows_per_step: options.RowsPerStep = None,
    offload_state: options.OffloadState = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    crf: options.Crf = 18,
) -> None:
    """Decode a latents file to a video of the size, length and rate that went in."""
    options.check_run(rows_per_step, dtype, device)
    options.check_crf(crf)
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(f"-o {output.name} came; *.mp4, *.mkv or a folder (a name without a suffix) are allowed")

    import torch

    from dcvideogen.autoencoder.loading import load_autoencoder
    from dcvideogen.cli.progress import StageProgress
    from dcvideogen.data.latents_file import read_latents
    from dcvideogen.pipelines.streaming import RunOptions, decode_pieces, latent_space_id, model_name
    from dcvideogen.video import BackgroundWriter, VideoWriter, video_to_frames
    from dcvideogen.video.metadata import SETTINGS_KEY

    latents, info = read_latents(input_path)
    if model is None:
        model = info.model
        if model not in bundled_models():
            raise UserError(
                f"{input_path} was encoded by {model!r}, which is not bundled; name its folder with --model"
            )
    chosen = options.choose_device(device)
    autoencoder = load_autoencoder(model, device=chosen, dtype=options.choose_dtype(dtype))
    own_space = latent_space_id(autoencoder)
    if info.latent_space_id != own_space:
        raise UserError(
            f"{input_path} holds latents of space {info.latent_space_id!r} (model {info.model!r}); "
            f"{model_name(model)!r} decodes space {own_space!r}; name the model that encoded with --model"
        )
    geometry = autoencoder.geometry
    expected = (autoencoder.config.latent_channels, *geometry.latent_shape(info.num_frames, info.height, info.width))
    if tuple(latents.shape) != expected:
        raise UserError(
            f"{input_path}: latents of shape {tuple(latents.shape)} came; {expected} is what {info.num_frames} frames "
            f"of {info.width}x{info.height} have; encode the clip again"
        )
    pieces = (piece[None].to(chosen) for piece in latents.split(geometry.chunk_latent_frames, dim=1))
    left = info.num_frames
    metadata = None if info.generation is None else {SETTINGS_KEY: json.dumps(info.generation)}
    with (
        torch.inference_mode(),
        StageProgress(input_path.name, ("decoding", "writing"), info.num_frames) as progress,
        BackgroundWriter(VideoWriter(output, fps=info.fps, crf=crf, metadata=metadata)) as writer,
    ):
        run = RunOptions(rows_per_step, offload_state)
        for video in decode_pieces(autoencoder, pieces, run, info.height, info.width):
            frames = video_to_frames(video[:, :, :left])
            progress.advance("decoding", len(frames))
            for frame in frames:
                writer.write(frame)
                progress.advance("writing")
            left -= len(frames)
    out.print(
        f"{output}: {info.num_frames} frames of {info.width}x{info.height} at {info.fps} frames per second",
        markup=False,
        soft_wrap=True,
    )
