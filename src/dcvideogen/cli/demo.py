"""`dcvideogen demo`: the bundled autoencoder on one clip, with nothing to prepare."""

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcvideogen.cli import options
from dcvideogen.cli.reconstruct import reconstruct
from dcvideogen.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SIZE, NUM_FRAMES, FPS = 256, 80, Fraction(16)  # two chunks of the bundled model


def demo(
    clip: Annotated[Path | None, typer.Argument(help="A video; a camera flight over a photograph by default.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("demo-output"),
) -> None:
    """Compress a clip 96 times with the bundled model, rebuild it, and measure what was lost."""
    if clip is not None:
        options.check_inputs_exist([clip])
    if output.is_file():
        raise UserError(f"-o {output} is a file; a folder is allowed, existing or new")
    if clip is None:
        from dcvideogen.video import write_video

        output.mkdir(parents=True, exist_ok=True)
        clip = output / "input.mkv"
        write_video(clip, camera_flight(), FPS)
    reconstruct([clip], output, height=SIZE, width=SIZE, num_frames=NUM_FRAMES)


def camera_flight() -> "Tensor":
    """Video (1, 3, 80, 256, 256) in [-1, 1]: the camera pulls back from the astronaut's face and turns a little.

    The photograph is NASA's portrait of Eileen Collins (public domain), which scikit-image ships; the bundled model
    has never seen it.
    """
    try:
        from skimage.data import astronaut
    except ImportError:
        raise UserError(
            "the demo's own clip needs scikit-image, which is not installed; "
            "name a video (dcvideogen demo CLIP), or: pip install scikit-image"
        ) from None
    import torch

    from dcvideogen.data.motion import Window, film, halved_copies

    photo = torch.from_numpy(astronaut().copy()).permute(2, 0, 1)
    face = Window(row=130, column=220, side=200, angle=-0.12)
    whole = Window(row=250, column=256, side=440, angle=0.08)
    return film(halved_copies(photo, SIZE), face, whole, NUM_FRAMES, SIZE)[None]
