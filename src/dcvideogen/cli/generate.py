"""`dcvideogen generate`: videos from text, or from an image and text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli import generate_options as given
from dcvideogen.cli import options
from dcvideogen.cli.heavy_imports import heavy_imports
from dcvideogen.errors import UserError

DEFAULT_MODEL, DEFAULT_IMAGE_MODEL = "shapes-dc", "shapes-i2v"


def generate(
    prompt: Annotated[str | None, typer.Argument(help="What should be seen.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="*.mp4, *.mkv (lossless) or a folder of PNG files; with several videos a folder."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A folder, or the name of a bundled model: ours, or a base model with --adapter. By default "
            f"{DEFAULT_MODEL}, and with --image {DEFAULT_IMAGE_MODEL}."
        ),
    ] = None,
    adapter: given.Adapter = None,
    autoencoder: given.Autoencoder = None,
    image: Annotated[Path | None, typer.Option(help="The first picture, for image-to-video models.")] = None,
    last_image: Annotated[Path | None, typer.Option(help="The last picture, beside --image.")] = None,
    height: given.Height = None,
    width: given.Width = None,
    num_frames: given.NumFrames = None,
    fps: given.Fps = None,
    steps: given.Steps = None,
    guidance: given.Guidance = None,
    image_guidance: given.ImageGuidance = None,
    negative_prompt: given.NegativePrompt = None,
    seed: given.Seed = 0,
    num_videos: Annotated[int, typer.Option(help="Different videos for each prompt.")] = 1,
    prompts: Annotated[
        Path | None, typer.Option(help="A file with a prompt per line, or a .jsonl; -o is a folder.")
    ] = None,
    memory: given.Memory = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print ways to do it with memory and time; wan2.1-t2v-14b needs no files.")
    ] = False,
    download: given.Download = False,
    keep_latents: Annotated[bool, typer.Option("--keep-latents", help="Leave the latents beside the video.")] = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    crf: options.Crf = 18,
) -> None:
    """Generate a video from a text, or from a picture and a text.

    Running it again goes on where it was stopped: videos that are there are kept, and latents that are there decoded.
    """
    from dcvideogen.pipelines.jobs import SUFFIXES, check_prompt, plan_jobs, read_prompts

    if dry_run and prompt is None and prompts is None:
        prompt = "anything"
    if (prompt is None) == (prompts is None):
        raise UserError(
            'a prompt is needed, such as `dcvideogen generate "a small red circle moves left"`, or --prompts FILE'
        )
    if output is None and dry_run:
        output = Path("out.mp4" if prompts is None and num_videos == 1 else "out")
    if output is None:
        raise UserError("-o is missing; give a name that ends in .mp4, or with several videos a folder")
    options.check_run(None, dtype, device)
    options.check_crf(crf)
    options.check_at_least_one("--num-videos", num_videos)
    given.check_numbers(height, width, num_frames, steps, guidance, image_guidance)
    _check_images(image, last_image, image_guidance)
    model = model or default_model(with_image=image is not None)
    rate = options.parse_fps(fps)
    many = prompts is not None or num_videos > 1
    if many and output.suffix:
        raise UserError(f"-o {output.name} came for several videos; a folder (a name without a suffix) is allowed")
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(f"-o {output.name} came; *.mp4, *.mkv or a folder (a name without a suffix) are allowed")
    if prompt is not None:
        check_prompt(prompt)
    texts = [prompt] if prompts is None else read_prompts(prompts)
    jobs = plan_jobs(texts, num_videos, seed, output, many=many)

    with heavy_imports():
        import torch

        from dcvideogen.cli.generate_plan import Source, tell_plans
        from dcvideogen.cli.generate_run import run_jobs
        from dcvideogen.pipelines.asking import Asked
        from dcvideogen.pipelines.memory_budget import parse_memory

    budget = parse_memory(memory)
    asked = Asked(
        height, width, num_frames, rate, steps, guidance, negative_prompt, image, last_image, crf, keep_latents,
        image_guidance,
    )  # fmt: skip
    chosen = torch.device(device) if dry_run and device.startswith("cuda") else options.choose_device(device)
    source = Source(model, adapter, autoencoder, download, chosen, options.choose_dtype(dtype))
    if dry_run:
        tell_plans(asked, source, budget)
    else:
        run_jobs(jobs, asked, source, budget)


def default_model(*, with_image: bool) -> str:
    """The bundled model that is taken where none is named; UserError where none is for images."""
    from dcvideogen.weights import bundled_adapters

    if with_image and DEFAULT_IMAGE_MODEL not in bundled_adapters():
        raise UserError("--image came without --model, and no bundled model is for image to video; name one that is")
    return DEFAULT_IMAGE_MODEL if with_image else DEFAULT_MODEL


def _check_images(image: Path | None, last_image: Path | None, image_guidance: float | None) -> None:
    if image_guidance is not None and image is None:
        raise UserError("--image-guidance came without --image; give the first picture too")
    if last_image is not None and image is None:
        raise UserError("--last-image came without --image; give the first picture too")
    for path in (image, last_image):
        if path is not None and not path.is_file():
            raise UserError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; give a picture file")
