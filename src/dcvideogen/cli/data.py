"""`dcvideogen data check`: which files of a dataset can be trained on, and why the others cannot."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcvideogen.cli import console
from dcvideogen.cli.options import check_at_least_one

if TYPE_CHECKING:
    from dcvideogen.data.check import Report
    from dcvideogen.data.settings import CheckSettings

data = typer.Typer(help="Look at a dataset before training on it.", rich_markup_mode=None)

# Of every reason so many files are shown; rejected.jsonl has them all.
FILES_PER_REASON = 3


@data.callback(invoke_without_command=True)
def _data(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@data.command()
def check(
    source: Annotated[Path, typer.Argument(help="A folder, a manifest (.jsonl, .csv) or a shard (.tar).")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for the two lists; by default where training looks."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; as many as there are cores by default.")] = None,
    min_frames: Annotated[int | None, typer.Option(help="Shorter videos are left out; 8 by default.")] = None,
    min_side: Annotated[int | None, typer.Option(help="Smaller pictures are left out; 32 pixels by default.")] = None,
    max_black_share: Annotated[float | None, typer.Option(help="Of a file's frames, 0 to 1; 0.9 by default.")] = None,
    max_static_share: Annotated[
        float | None, typer.Option(help="Of frames that are like the one before, 0 to 1; 0.95 by default.")
    ] = None,
    codecs: Annotated[
        list[str] | None, typer.Option("--codec", help="Take this codec only (h264, ...). Can be repeated.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Any other threshold: cut_levels=20. Can be repeated.")
    ] = None,
) -> None:
    """Decode a sample of every file, in parallel; write index.jsonl, which training reads, and rejected.jsonl.

    Running it again decodes only what is new or changed. Exit code 2 when nothing usable is left.
    """
    check_at_least_one("--jobs", jobs)
    named = {
        "min_frames": min_frames,
        "min_side": min_side,
        "max_black_share": max_black_share,
        "max_static_share": max_static_share,
        "codecs": codecs,
    }
    settings = _settings({key: value for key, value in named.items() if value is not None}, overrides or [])

    from dcvideogen.cli.progress import CountProgress
    from dcvideogen.data.check import available_cores, check_source, nothing_left
    from dcvideogen.data.sources import index_folder

    output = output or index_folder(source)
    began = time.monotonic()
    with CountProgress() as progress:
        report = check_source(
            source, output, settings, jobs=jobs or available_cores(), progress=progress.of("files checked")
        )
    if report.rejected:
        _print_rejected(report)
    seconds = time.monotonic() - began
    console.out.print(_summary(report, seconds), markup=False, soft_wrap=True)
    if not report.usable:
        raise nothing_left(source, report, output)
    where = f"{output / 'index.jsonl'}: the usable files" + (", rejected.jsonl: the others" if report.rejected else "")
    console.out.print(where, markup=False, soft_wrap=True)


def _settings(named: dict[str, object], overrides: list[str]) -> CheckSettings:
    import yaml
    from pydantic import ValidationError

    from dcvideogen.data.settings import CheckSettings
    from dcvideogen.errors import UserError

    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or key not in CheckSettings.model_fields:
            known = ", ".join(CheckSettings.model_fields)
            raise UserError(f"--set {override} came; KEY=NUMBER is allowed, with a KEY of {known}")
        named[key] = yaml.safe_load(text)
    try:
        return CheckSettings.model_validate(named)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{option} {first['input']!r} came; {first['msg'][0].lower()}{first['msg'][1:]}") from error


def _summary(report: Report, seconds: float) -> str:
    videos = [record for record in report.usable if record.kind == "video"]
    images = len(report.usable) - len(videos)
    minutes = sum(record.duration_s for record in videos) / 60
    cuts = sum(len(record.cuts) for record in videos)
    return (
        f"{len(videos)} videos ({minutes:.1f} minutes, {sum(r.frames for r in videos)} frames, {cuts} scene cuts) and "
        f"{images} images are usable, {len(report.rejected)} files are left out; {report.scanned} were decoded in "
        f"{seconds:.1f} s"
    )


def _print_rejected(report: Report) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Left out", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("why", no_wrap=True)
    table.add_column("files", justify="right", no_wrap=True)
    table.add_column("which", overflow="fold")
    for reason, count in report.reasons().most_common():
        records = [record for record in report.rejected if record.reason == reason]
        shown = [f"{record.name}: {record.detail}" for record in records[:FILES_PER_REASON]]
        if count > FILES_PER_REASON:
            shown.append(f"and {count - FILES_PER_REASON} more, see rejected.jsonl")
        # Text, because a file's name may hold what looks like markup.
        table.add_row(reason, str(count), Text("\n".join(shown)))
    console.out.print(table)
