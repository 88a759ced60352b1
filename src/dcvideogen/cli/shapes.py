"""`dcvideogen shapes`: clips of a captioned world that can be checked, and the check of videos against its captions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcvideogen.cli import console
from dcvideogen.cli.options import check_at_least_one, check_choice
from dcvideogen.errors import UserError

if TYPE_CHECKING:
    from dcvideogen.cli.progress import CountProgress
    from dcvideogen.data.items import Item
    from dcvideogen.shapes_world import Combination

shapes = typer.Typer(help="Make clips of the shapes world; score videos of it.", rich_markup_mode=None)

# So many videos that miss their caption are named; the JSON file has them all.
MISSES_SHOWN = 5


@shapes.callback(invoke_without_command=True)
def _shapes(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@shapes.command("train-base")
def train_base(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a bundled one: shapes-base.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the stages; OUT/pipeline is the model.")],
    clips: Annotated[Path | None, typer.Option(help="manifest.jsonl of `shapes render`; --set clips=...")] = None,
    workers: Annotated[int, typer.Option(help="Processes that encode the clips.")] = 1,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change one value: key.of.the.recipe=value. Can be repeated.")
    ] = None,
) -> None:
    """Train a small text-to-video pipeline on clips of this world, or go on where the same command was stopped."""
    import json

    from dcvideogen.recipes.recipe import find_recipe, read_recipe
    from dcvideogen.recipes.shapes_base import train_shapes_base
    from dcvideogen.recipes.shapes_base_recipe import ShapesBaseRecipe

    check_at_least_one("--workers", workers)
    changes = [*(overrides or ()), *([f"clips={json.dumps(str(clips))}"] if clips is not None else [])]
    done = train_shapes_base(read_recipe(ShapesBaseRecipe, find_recipe(recipe), changes), output, workers=workers)
    told = f"{output / 'pipeline'}: trained" if done else f"stopped; the same command goes on, see {output}"
    console.out.print(told, markup=False, soft_wrap=True)


@shapes.command()
def render(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for clips and manifest; existing or new.")],
    clips: Annotated[int, typer.Option(help="How many; a folder that has fewer gets the rest.")] = 64,
    split: Annotated[str, typer.Option(help="train, test (never trained on) or all combinations.")] = "train",
    seed: Annotated[int, typer.Option(help="Of start, speed, radius, colours and texture.")] = 0,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 128,
    num_frames: Annotated[int, typer.Option(help="Of each clip, at 16 frames per second.")] = 32,
) -> None:
    """Write clips of moving shapes as mp4 files, and manifest.jsonl with their captions.

    Running it again writes only what is missing.
    """
    from dcvideogen.shapes_world import SPLITS

    check_at_least_one("--clips", clips)
    check_choice("--split", split, SPLITS)

    from dcvideogen.cli.progress import CountProgress
    from dcvideogen.data.shapes_files import MANIFEST, ShapesSettings, write_clips

    with CountProgress() as progress:
        written = write_clips(
            output, clips, ShapesSettings(split, seed, size, num_frames), progress=progress.of("clips written")
        )
    console.out.print(
        f"{output / MANIFEST}: {clips} clips, {written} of them new. A fifth of them stand still: as data they need "
        f"`dcvideogen data check --max-static-share 1`, or in a recipe data.check.max_static_share",
        markup=False,
        soft_wrap=True,
    )


@shapes.command()
def score(
    source: Annotated[Path, typer.Argument(help="A manifest with captions, a folder of videos, or a video.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="Captions, by file name; by default the manifest.jsonl in the folder, or beside a video."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file with every number.")] = None,
) -> None:
    """Score videos of the shapes world against their captions, without any learned judge.

    A video that cannot be read is reported and left out.
    """
    if output is not None and output.suffix != ".json":
        raise UserError(f"-o {output} came; a name that ends in .json is allowed")

    from dcvideogen.cli.progress import CountProgress
    from dcvideogen.files import write_json

    videos = _find_videos(source, manifest)
    with CountProgress() as progress:
        report = _score_all(videos, progress)
    if not report["videos"]:
        first = report["left_out"][0]
        raise UserError(f"{source}: no video could be read; the first: {first['video']}: {first['reason']}")
    _print_report(report)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, report)
        console.out.print(f"every number in {output}", markup=False, soft_wrap=True)


def _find_videos(source: Path, manifest: Path | None) -> list[tuple[Item, Combination]]:
    """Videos with what their captions ask for; UserError for a caption that is missing or not of this world."""
    from dcvideogen.data.items import VIDEO_SUFFIXES
    from dcvideogen.data.shapes_files import MANIFEST
    from dcvideogen.data.sources import MANIFEST_SUFFIXES, check_exists, file_item, list_items
    from dcvideogen.shapes_world import parse_caption

    check_exists(source)
    if source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES:
        items = [file_item(source, source.name)]
        manifest = manifest or source.with_name(MANIFEST)
    elif source.is_dir() and (manifest or not (source / MANIFEST).is_file()):
        items = [item for item in list_items(source) if Path(item.file_name).suffix.lower() in VIDEO_SUFFIXES]
    else:
        items = list_items(source / MANIFEST if source.is_dir() else source)
    if not items:
        raise UserError(f"{source}: holds no video; give a manifest, a folder of videos, or a video")
    captions: dict[str, str | None] = {}
    if manifest is not None:
        if manifest.suffix.lower() not in MANIFEST_SUFFIXES or not manifest.is_file():
            raise UserError(f"--manifest {manifest}: no such manifest; a .jsonl or .csv file with captions is allowed")
        captions = {Path(item.name).stem: item.caption for item in list_items(manifest)}
    found = []
    for item in items:
        text = captions.get(Path(item.file_name).stem) if manifest else item.caption
        if text is None:
            where = manifest or source
            raise UserError(f"{where}: no caption for {item.name}; name a manifest that has one with --manifest")
        try:
            found.append((item, parse_caption(text)))
        except UserError as error:
            raise UserError(f"{item.name}: {error}") from error
    return found


def _score_all(videos: list[tuple[Item, Combination]], progress: CountProgress) -> dict[str, Any]:
    """The report as plain JSON values."""
    from dcvideogen.evaluation.shapes_reading import read_shapes
    from dcvideogen.evaluation.shapes_score import chance, mean_scores, score_reading
    from dcvideogen.shapes_world import ATTRIBUTES, caption
    from dcvideogen.version import __version__
    from dcvideogen.video import read_video

    rows: list[dict[str, Any]] = []
    scores, asked, left_out = [], [], []
    for done, (item, combination) in enumerate(videos, start=1):
        try:
            with item.local() as path:
                video, _ = read_video(path)
            reading = read_shapes(video[0])
        except UserError as error:
            left_out.append({"video": item.name, "reason": str(error)})
        else:
            scores.append(score_reading(reading, combination))
            asked.append(combination)
            seen = {name: getattr(reading, name) for name in ATTRIBUTES}
            rows.append(
                {
                    "video": item.name,
                    "caption": caption(combination),
                    "num_frames": video.shape[2],
                    "seen": seen,
                    "score": scores[-1].as_json(),
                }
            )
        progress.show("videos scored", done, len(videos))
    return {
        "version": __version__,
        "num_videos": len(rows),
        "mean": mean_scores(scores) if scores else None,
        "chance": chance(asked, asked) if asked else None,
        "videos": rows,
        "left_out": left_out,
    }


def _print_report(report: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=f"mean over {report['num_videos']} videos", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("score", justify="right")
    table.add_column("chance", justify="right")
    for name, value in report["mean"].items():
        table.add_row(name, f"{value:.3f}", console.number(report["chance"].get(name), 3))
    console.out.print(table)
    missed = [row for row in report["videos"] if not row["score"]["joint"]]
    for row in missed[:MISSES_SHOWN]:
        wrong = ", ".join(f"{name} {row['seen'][name] or 'none'}" for name in row["seen"] if not row["score"][name])
        console.out.print(f"{row['video']}: {row['caption']}; seen: {wrong}", markup=False, soft_wrap=True)
    if len(missed) > MISSES_SHOWN:
        console.out.print(f"and {len(missed) - MISSES_SHOWN} more", markup=False, soft_wrap=True)
    for row in report["left_out"]:
        console.out.print(f"left out: {row['video']}: {row['reason']}", markup=False, soft_wrap=True)
