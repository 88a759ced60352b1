"""`dcvideogen demo`: the whole story with the bundled models, and nothing to prepare."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcvideogen.cli import console, options
from dcvideogen.cli.heavy_imports import heavy_imports
from dcvideogen.cli.reconstruct import reconstruct
from dcvideogen.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from dcvideogen.pipelines.jobs import Job
    from dcvideogen.shapes_world import Combination

SIZE, NUM_FRAMES, FPS = 256, 80, Fraction(16)  # two chunks of the bundled autoencoder
BASE, ADAPTED, IMAGE_TO_VIDEO = "shapes-base", "shapes-dc", "shapes-i2v"
PROMPTS, IMAGES = 6, 4  # videos by each model
SEED = 0  # of all videos, and of the clips that the first pictures come from
REPORT = "report.html"


def demo(
    clip: Annotated[Path | None, typer.Argument(help="A video; a camera flight over a photograph by default.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("demo-output"),
) -> None:
    """Compress a clip, generate with a model before and after its adaptation, continue pictures, and measure it all.

    The bundled models are used, and nothing else: no network, no server. The last line is the path of the report.
    """
    if clip is not None:
        options.check_inputs_exist([clip])
    if output.is_file():
        raise UserError(f"-o {output} is a file; a folder is allowed, existing or new")
    _tell("loading the libraries")
    with heavy_imports():
        from dcvideogen.adaptation.adapter_folder import read_record
        from dcvideogen.cli.demo_videos import make_adapted, make_base
        from dcvideogen.evaluation.run_report import write_run_report
        from dcvideogen.evaluation.run_report_files import find_runs
        from dcvideogen.video import write_video
        from dcvideogen.weights import bundled_adapters, bundled_pipelines

    output.mkdir(parents=True, exist_ok=True)
    if clip is None:
        clip = output / "input.mkv"
        write_video(clip, camera_flight(), FPS)
    _tell("1 of 4: a clip through the autoencoder and back")
    folders = [output / "reconstruction"]
    reconstruct([clip], folders[0], height=SIZE, width=SIZE, num_frames=NUM_FRAMES)

    device, asked = options.choose_device("auto"), held_out(PROMPTS + IMAGES)
    _tell(f"2 of 4: {PROMPTS} videos from text by {BASE}, a model in its own latents")
    make_base(BASE, _jobs(asked[:PROMPTS], output / BASE), read_record(bundled_adapters()[ADAPTED]).adaptation, device)
    _tell(f"3 of 4: the same by {ADAPTED}, the model that it was made into")
    make_adapted(ADAPTED, [(job, None) for job in _jobs(asked[:PROMPTS], output / ADAPTED)], device)
    folders += [output / BASE, output / ADAPTED]
    if IMAGE_TO_VIDEO in {**bundled_adapters(), **bundled_pipelines()}:
        _tell(f"4 of 4: {IMAGES} pictures go on as videos by {IMAGE_TO_VIDEO}")
        folders.append(output / IMAGE_TO_VIDEO)
        make_adapted(IMAGE_TO_VIDEO, pictured(asked[PROMPTS:], folders[-1]), device)
    else:
        _tell(f"4 of 4: left out, because {IMAGE_TO_VIDEO} is not among the bundled models")

    report = output / REPORT
    write_run_report(find_runs(folders), report, "The demo of dcvideogen")
    console.out.print(str(report), markup=False, soft_wrap=True)


def held_out(count: int) -> list[Combination]:
    """Captions that no model was trained on, spread evenly: chosen by their place in the list, not by their videos."""
    from dcvideogen.shapes_world import combinations

    split = combinations("test")
    return [split[index * len(split) // count] for index in range(count)]


def pictured(asked: list[Combination], folder: Path) -> list[tuple[Job, Path]]:
    """Jobs with their first pictures, which are written: each the first frame of a clip that shows what is asked."""
    from PIL import Image

    from dcvideogen.data.shapes import render
    from dcvideogen.evaluation.strip import save_png
    from dcvideogen.video import video_to_frames

    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for job, one in zip(_jobs(asked, folder), asked, strict=True):
        picture = job.output.with_suffix(".png")
        save_png(picture, Image.fromarray(video_to_frames(render(one, SEED)[None, :, :1])[0]))
        jobs.append((job, picture))
    return jobs


def camera_flight() -> Tensor:
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


def _jobs(asked: list[Combination], folder: Path) -> list[Job]:
    from dcvideogen.pipelines.jobs import plan_jobs
    from dcvideogen.shapes_world import caption

    return plan_jobs([caption(one) for one in asked], 1, SEED, folder, many=True)


def _tell(words: str) -> None:
    console.err.print(f"note: {words}", markup=False, soft_wrap=True)
