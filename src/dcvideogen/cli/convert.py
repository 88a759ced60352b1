"""`dcvideogen convert`: an official checkpoint to a model folder."""

from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli import options
from dcvideogen.cli.console import print_facts
from dcvideogen.errors import UserError
from dcvideogen.files import whole_folder


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="An official DC-AE-V checkpoint (.pt).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write; new or empty.")],
    scaling_factor: Annotated[
        float | None,
        typer.Option(help="Latents are multiplied by it; known for published variants; 1.0 means raw latents."),
    ] = None,
    chunk_frames: Annotated[int, typer.Option(help="Frames per chunk that the weights were trained with.")] = 40,
) -> None:
    """Turn an official checkpoint into a model folder (config.json and safetensors)."""
    options.check_at_least_one("--chunk-frames", chunk_frames)
    if scaling_factor is not None and not 0 < scaling_factor < float("inf"):
        raise UserError(f"--scaling-factor {scaling_factor} came; a number above 0 is allowed")
    if not checkpoint.is_file():
        kind = "a folder" if checkpoint.is_dir() else "no such file"
        raise UserError(f"{checkpoint}: {kind}; give an official checkpoint (.pt)")
    options.check_new_folder(output)

    from safetensors import SafetensorError

    from dcvideogen.autoencoder.model import AutoencoderDCV
    from dcvideogen.cli.describe import model_facts

    model = AutoencoderDCV.from_official_checkpoint(checkpoint, scaling_factor, chunk_frames)
    try:
        with whole_folder(output) as temporary:
            model.save_pretrained(temporary)
    except SafetensorError as error:  # its name for a full disk
        raise UserError(f"cannot write {output}: {error}; free some space or choose another place") from error
    print_facts(f"{output}: an autoencoder", model_facts(model))
