"""`dcvideogen evaluate autoencoder`: everything that can be measured on clips, as JSON, Markdown and one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcvideogen.cli import console, options
from dcvideogen.errors import UserError
from dcvideogen.weights import DEFAULT_AUTOENCODER

if TYPE_CHECKING:
    import torch

    from dcvideogen.evaluation.subjects import Codec

DEFAULT_FRAMES = 80  # two chunks of the published models, and the length of the clips of the paper's tables

evaluate = typer.Typer(help="Measure what was trained.", rich_markup_mode=None)


@evaluate.callback(invoke_without_command=True)
def _evaluate(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@evaluate.command()
def autoencoder(
    data: Annotated[
        list[Path], typer.Option("--data", help="A folder, manifest, shard, video or image. Can be repeated.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the report; existing or new.")],
    model: Annotated[str, typer.Option(help=options.MODEL_HELP)] = DEFAULT_AUTOENCODER,
    height: options.Height = None,
    width: options.Width = None,
    num_frames: Annotated[
        int, typer.Option(help="At most so many frames of each clip; 0: all.", show_default=True)
    ] = DEFAULT_FRAMES,
    fps: options.Fps = None,
    peer_class: Annotated[
        list[str] | None, typer.Option(help="A diffusers video autoencoder beside it (AutoencoderKLWan, ...).")
    ] = None,
    peer: Annotated[list[Path] | None, typer.Option(help="The folder of its weights; as many as --peer-class.")] = None,
    lpips_backbone: Annotated[Path | None, typer.Option(help="LPIPS: torchvision's weights of alexnet.")] = None,
    lpips_heads: Annotated[Path | None, typer.Option(help="LPIPS: the published alex.pth, version 0.1.")] = None,
    i3d: Annotated[Path | None, typer.Option(help="rFVD: a state dict of I3D (RGB, Kinetics-400).")] = None,
    pca_data: Annotated[
        list[Path] | None, typer.Option(help="Fit the PCA on this data; on the other clips by default.")
    ] = None,
    rows_per_step: options.RowsPerStep = None,
    offload_state: options.OffloadState = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
) -> None:
    """Measure an autoencoder on clips, beside a fixed DCT, a PCA and any peers; write report.json, .md and .html.

    A clip that cannot be read is reported and left out. Running it again does only what is not there yet.
    """
    options.check_size(height, width)
    if num_frames < 0:
        raise UserError(f"--num-frames {num_frames} came; 1 or more is allowed, or 0 for all")
    options.check_run(rows_per_step, dtype, device)
    rate = options.parse_fps(fps)
    check_weights(lpips_backbone, lpips_heads, i3d)
    check_peers(peer_class or [], peer or [])
    if output.is_file():
        raise UserError(f"-o {output} is a file; a folder is allowed, existing or new")

    from dcvideogen.autoencoder.loading import load_autoencoder
    from dcvideogen.cli.evaluate_clips import find_clips
    from dcvideogen.cli.progress import StageProgress
    from dcvideogen.evaluation.clip_evaluation import STAGES
    from dcvideogen.evaluation.evaluation_run import evaluate as run_evaluation
    from dcvideogen.evaluation.evaluation_run import with_unique_names
    from dcvideogen.evaluation.measures import load_networks
    from dcvideogen.evaluation.report import write_report
    from dcvideogen.evaluation.subjects import ModelSubject
    from dcvideogen.pipelines.streaming import ClipOptions, model_name

    chosen = options.choose_device(device)
    read = ClipOptions(height, width, num_frames or None, rate)
    clips = find_clips(data, read)
    fitting = find_clips(pca_data, read) if pca_data else []
    networks = load_networks(lpips_backbone, lpips_heads, i3d, chosen)
    own = load_autoencoder(model, device=chosen, dtype=options.choose_dtype(dtype))
    subjects: list[Codec] = [
        ModelSubject(own, model_name(model), rows_per_step=rows_per_step, offload_state=offload_state),
        *load_peers(peer_class or [], peer or [], chosen, options.choose_dtype(dtype)),
    ]
    settings = {
        "data": [path.name for path in data],
        "height": height,
        "width": width,
        "num_frames": num_frames or None,
        "fps": rate and str(rate),
        "device": chosen.type,
    }
    report = run_evaluation(
        with_unique_names(subjects),
        clips,
        output,
        networks,
        pca_data=fitting,
        settings=settings,
        open_progress=lambda title, total: StageProgress(title, STAGES, total),
    )
    pages = write_report(report, output)
    print_report(report)
    console.out.print(f"report in {pages['html']} (also report.md, report.json)", markup=False, soft_wrap=True)


def check_weights(backbone: Path | None, heads: Path | None, i3d: Path | None) -> None:
    if (backbone is None) != (heads is None):
        raise UserError("only one of --lpips-backbone and --lpips-heads came; both or neither are allowed")
    for name, path in (("--lpips-backbone", backbone), ("--lpips-heads", heads), ("--i3d", i3d)):
        if path is not None and not path.is_file():
            raise UserError(f"{name} {path}: no such file; give the file of the weights, or leave the option out")


def check_peers(classes: list[str], folders: list[Path]) -> None:
    if len(classes) != len(folders):
        raise UserError(f"{len(classes)} --peer-class and {len(folders)} --peer came; one folder per class is allowed")


def load_peers(classes: list[str], folders: list[Path], device: torch.device, dtype: torch.dtype | None) -> list[Codec]:
    if not classes:
        return []
    from dcvideogen.evaluation.peers import load_peer

    return [load_peer(name, folder, device=device, dtype=dtype) for name, folder in zip(classes, folders, strict=True)]


def print_report(report: dict[str, Any]) -> None:
    """Means per subject, and what was left out."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from dcvideogen.evaluation.report_table import cell, missing_metrics, shown_columns, summary_rows

    rows, main = summary_rows(report), report["subjects"][0]
    table = Table(title=f"mean over {main['num_clips']} clips", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for row in rows:
        table.add_column(escape(row["name"]), justify="right", overflow="fold")
    for column in shown_columns(rows):
        table.add_row(column.title, *(cell(row[column.key], column) for row in rows))
    console.out.print(table)
    for title, reason in missing_metrics(report).items():
        console.out.print(f"no {title}: {reason}", markup=False, soft_wrap=True)
    for row in report["left_out"]:
        if row["subject"] == main["name"]:
            console.out.print(f"left out: {row['clip']}: {row['reason']}", markup=False, soft_wrap=True)
