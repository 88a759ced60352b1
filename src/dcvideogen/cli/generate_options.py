"""Options and checks of the commands that generate videos."""

from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli.options import check_at_least_one
from dcvideogen.errors import UserError

MAX_GUIDANCE = 100

Model = Annotated[
    str, typer.Option(help="A folder, or the name of a bundled model: ours, or a base model with --adapter.")
]
Adapter = Annotated[Path | None, typer.Option(help="The adapter/ of `dcvideogen adapt`, for a base model.")]
Autoencoder = Annotated[
    str | None, typer.Option(help="Folder or name; by default the bundled one of the adapter's latent space.")
]
Height = Annotated[int | None, typer.Option(help="Pixels; any number. By default as the model was trained.")]
Width = Annotated[int | None, typer.Option(help="Pixels; any number.")]
NumFrames = Annotated[int | None, typer.Option(help="Any number.")]
Fps = Annotated[str | None, typer.Option(help="Frames per second of the file; by default the model's.")]
Steps = Annotated[int | None, typer.Option(help="Noise levels; more take longer. By default the model's.")]
Guidance = Annotated[float | None, typer.Option(help="How closely the text is followed; 1 is without.")]
ImageGuidance = Annotated[
    float | None,
    typer.Option(
        help="How closely the picture is followed, for models trained for that; 1 is without. By default theirs."
    ),
]
NegativePrompt = Annotated[str | None, typer.Option(help="What should not be seen. By default the model's.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same video.")]
Memory = Annotated[
    str, typer.Option(help="At most so much, such as 8GiB; auto: what is free. Less memory takes longer.")
]
Download = Annotated[
    bool, typer.Option("--download", help="Let --model be an id of the Hugging Face hub that is fetched.")
]


def check_numbers(
    height: int | None,
    width: int | None,
    num_frames: int | None,
    steps: int | None,
    guidance: float | None,
    image_guidance: float | None = None,
) -> None:
    """Raises UserError for a number that no video can have."""
    from dcvideogen.pipelines.sizes import VideoSize

    for name, value in (("--steps", steps), ("--num-frames", num_frames), ("--height", height), ("--width", width)):
        check_at_least_one(name, value)
    VideoSize(height or 1, width or 1, num_frames or 1)
    for name, value in (("--guidance", guidance), ("--image-guidance", image_guidance)):
        if value is not None and not 0 <= value < MAX_GUIDANCE:
            raise UserError(f"{name} {value} came; 0 to {MAX_GUIDANCE} is allowed; 1 is without guidance")
