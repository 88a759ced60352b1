"""`dcvideogen vbench`: the videos that VBench looks at, and the table of what it found. VBench itself is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli import console, options
from dcvideogen.cli import generate_options as given
from dcvideogen.errors import UserError

vbench = typer.Typer(
    help="Generate the videos that VBench scores; make the table of its results.", rich_markup_mode=None
)


@vbench.callback(invoke_without_command=True)
def _vbench(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@vbench.command()
def generate(
    prompts: Annotated[
        Path,
        typer.Argument(help="VBench_full_info.json, vbench2_i2v_full_info.json, or a .txt with a prompt per line."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the videos; existing or new.")],
    model: given.Model,
    adapter: given.Adapter = None,
    autoencoder: given.Autoencoder = None,
    augmented: Annotated[
        Path | None, typer.Option(help="A .txt whose lines the model is told in place of the list's.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="VBench-I2V's data/crop, with a folder per ratio.")] = None,
    ratio: Annotated[
        str | None, typer.Option(help="Of the pictures: 16-9, 7-4, 8-5, 1-1; by default the nearest to the video's.")
    ] = None,
    dimension: Annotated[
        list[str] | None, typer.Option(help="Only what VBench needs for this dimension. Can be repeated.")
    ] = None,
    shard: Annotated[str, typer.Option(help="2/8: the second of eight parts, one for each process.")] = "1/1",
    height: given.Height = None,
    width: given.Width = None,
    num_frames: given.NumFrames = None,
    fps: given.Fps = None,
    steps: given.Steps = None,
    guidance: given.Guidance = None,
    image_guidance: given.ImageGuidance = None,
    negative_prompt: given.NegativePrompt = None,
    seed: given.Seed = 0,
    memory: given.Memory = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how many videos there are to make, and memory and time.")
    ] = False,
    download: given.Download = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    crf: options.Crf = 18,
) -> None:
    """Generate videos as VBench's evaluation wants to find them.

    5 of every prompt and 25 of those of temporal flickering, as PROMPT-INDEX.mp4 in one folder. Running it again makes
    what is missing; processes with a --shard each may share the folder.
    """
    options.check_run(None, dtype, device)
    options.check_crf(crf)
    given.check_numbers(height, width, num_frames, steps, guidance, image_guidance)
    rate = options.parse_fps(fps)
    part = parse_shard(shard)
    if output.exists() and not output.is_dir():
        raise UserError(f"-o {output} is a file; a folder is allowed, existing or new")

    from dcvideogen.cli.vbench_run import find_videos
    from dcvideogen.evaluation.vbench_images import crops_folder
    from dcvideogen.evaluation.vbench_prompts import read_prompt_list, with_dimensions

    wanted = read_prompt_list(prompts, augmented)
    if dimension:
        wanted = with_dimensions(wanted, dimension, f"--dimension for {prompts}")
    check_task(prompts, images, ratio, image_guidance, of_pictures=wanted[0].image is not None)
    crops = None if images is None else crops_folder(images, ratio, height, width)
    videos = find_videos(wanted, output, seed, crops, part)
    for line in videos.told():
        console.err.print(f"note: {line}", markup=False, soft_wrap=True)

    import torch

    from dcvideogen.cli.generate_plan import Source
    from dcvideogen.cli.vbench_run import make_all, tell_time
    from dcvideogen.pipelines.asking import Asked
    from dcvideogen.pipelines.memory_budget import parse_memory

    budget = parse_memory(memory)
    asked = Asked(
        height=height,
        width=width,
        num_frames=num_frames,
        fps=rate,
        steps=steps,
        guidance=guidance,
        negative_prompt=negative_prompt,
        image=None,
        last_image=None,
        crf=crf,
        keep_latents=False,
        image_guidance=image_guidance,
    )
    chosen = torch.device(device) if dry_run and device.startswith("cuda") else options.choose_device(device)
    source = Source(model, adapter, autoencoder, download, chosen, options.choose_dtype(dtype))
    if dry_run:
        tell_time(videos, asked, source, budget)
    else:
        make_all(videos, asked, source, budget)


@vbench.command()
def score(
    results: Annotated[
        list[Path], typer.Argument(help="For each model a *_eval_results.json of VBench, or a folder of them.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for vbench.md and vbench.json; existing or new.")
    ] = None,
) -> None:
    """Print the scores of VBench's results as a table: total, quality, semantic or I2V, and every dimension.

    Normalised and weighted as on VBench's leaderboard, in percent. Without all dimensions there is no total.
    """
    from dcvideogen.evaluation.vbench_results import read_results
    from dcvideogen.evaluation.vbench_table import make_row, vbench_json, vbench_markdown
    from dcvideogen.files import write_json, write_text

    if output is not None and output.exists() and not output.is_dir():
        raise UserError(f"-o {output} is a file; a folder is allowed, existing or new")
    rows = [make_row(str(path), read_results(path)) for path in results]
    text = vbench_markdown(rows)
    console.out.print(text, markup=False, soft_wrap=True, end="")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / "vbench.md", text)
        write_json(output / "vbench.json", vbench_json(rows))
        console.err.print(f"note: {output / 'vbench.md'} and vbench.json have it", markup=False, soft_wrap=True)


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/8" -> (2, 8). UserError for a part that is none of so many."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UserError(f"--shard {text} came; 1/8 to 8/8 are allowed for 8 processes")
    return int(part), int(parts)


def check_task(
    prompts: Path, images: Path | None, ratio: str | None, image_guidance: float | None, *, of_pictures: bool
) -> None:
    if of_pictures and images is None:
        raise UserError(f"{prompts} is a list of VBench-I2V; give its pictures too, with --images")
    named = {"--images": images, "--ratio": ratio, "--image-guidance": image_guidance}
    came = [name for name, value in named.items() if value is not None]
    if not of_pictures and came:
        raise UserError(f"{came[0]} came, and {prompts} is a list without pictures; give vbench2_i2v_full_info.json")
