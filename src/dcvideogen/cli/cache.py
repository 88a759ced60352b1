"""`dcvideogen cache`: from a captioned dataset to latents, base latents and text embeddings."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcvideogen.cli import console
from dcvideogen.cli.options import check_at_least_one

if TYPE_CHECKING:
    from dcvideogen.adaptation.cache import CacheReport, CacheSettings, Skipped
    from dcvideogen.adaptation.cache_estimate import CacheEstimate

FILES_PER_REASON = 3
MIB = 2**20


def cache(
    source: Annotated[Path, typer.Argument(help="A folder, a manifest (.jsonl, .csv) with captions, or a shard.")],
    base: Annotated[Path, typer.Option(help="The base model: the folder of a diffusers pipeline.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for caches, one in it per key.")] = None,
    autoencoder: Annotated[
        str | None, typer.Option(help="Ours, a folder or a bundled name; without it the latents are the base's own.")
    ] = None,
    size: Annotated[str, typer.Option(help="Area of the buckets, such as 480x832 or 128x128.")] = "480x832",
    workers: Annotated[int, typer.Option(help="Processes on this machine; each loads the networks.")] = 1,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it would take, from one clip; cache nothing.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting: num_frames=32. Can be repeated.")
    ] = None,
) -> None:
    """Encode a dataset once, for all stages of an adaptation; killed and run again it goes on.

    What is in the cache makes its key, so that changed settings make a new cache beside the old one. On several
    machines that share the folder, run it with RANK and WORLD_SIZE set (torchrun does): each writes its own shards.
    """
    check_at_least_one("--workers", workers)
    settings = _settings(source, base, autoencoder, size, overrides or [])
    from dcvideogen.errors import UserError

    if plan:
        from dcvideogen.adaptation.cache_estimate import estimate

        with tempfile.TemporaryDirectory(prefix="dcvideogen-") as temporary:
            found = estimate(settings, output or Path(temporary))
            for line in plan_lines(found):
                console.out.print(line, markup=False, soft_wrap=True)
        return
    if output is None:
        raise UserError("-o is missing; give the folder for the cache, or --plan")

    from dcvideogen.adaptation.cache import build_cache
    from dcvideogen.cli.progress import CountProgress

    with CountProgress() as progress:
        report = build_cache(
            settings,
            output,
            workers=workers,
            checking=progress.of("files checked"),
            encoding=progress.of("clips encoded"),
        )
    if report.skipped:
        print_skipped(report.skipped)
    console.out.print(summary(report), markup=False, soft_wrap=True)


def _settings(source: Path, base: Path, autoencoder: str | None, size: str, overrides: list[str]) -> CacheSettings:
    from pydantic import ValidationError

    from dcvideogen.adaptation.cache_settings import CacheSettings
    from dcvideogen.errors import UserError
    from dcvideogen.recipes.recipe import explain, set_value

    height, cross, width = size.partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise UserError(f"--size {size} came; HEIGHTxWIDTH in pixels is allowed, such as 480x832")
    values: dict[str, Any] = {
        "source": str(source),
        "base": str(base),
        "autoencoder": autoencoder,
        "buckets": {"height": int(height), "width": int(width)},
    }
    for override in overrides:
        set_value(values, override)
    try:
        return CacheSettings.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(CacheSettings, error)) from error


def plan_lines(found: CacheEstimate) -> list[str]:
    """What `--plan` prints."""
    plan = found.plan
    held = sum(item.clip.held_out for item in plan.clips)
    aligned = sum(item.clip.aligned for item in plan.clips)
    buckets: dict[tuple[int, int, int], int] = {}
    for item in plan.clips:
        buckets[item.clip.bucket] = buckets.get(item.clip.bucket, 0) + 1
    sizes = ", ".join(f"{count} of {h}x{w}x{t}" for (t, h, w), count in buckets.items())
    return [
        f"clips: {len(plan.clips)} ({sizes}; held out {held}, with base latents {aligned}), {len(plan.texts)} texts, "
        f"{len(plan.skipped)} files or clips left out",
        f"shards: {len(plan.shards)}, of which {found.missing_shards} are missing with {found.clips} clips",
        f"bytes: {found.bytes / MIB:.4g} MiB",
        f"measured on one clip: {found.seconds_per_clip:.3g} s, with base latents {found.seconds_per_aligned:.3g} s; "
        f"{found.seconds_per_text:.2g} s per text",
        f"estimated: {_duration(found.seconds)} with one process; cache {plan.key}",
    ]


def summary(report: CacheReport) -> str:
    """The command's last line."""
    if not report.complete:
        return (
            f"{report.folder}: {report.shards_written} shards written in {_duration(report.seconds)}; others of the "
            f"{report.shards} are still to come from other processes"
        )
    return (
        f"{report.folder}: {report.clips} clips ({report.held_out} held out, {report.aligned} with base latents), "
        f"{report.texts} texts, {report.bytes / MIB:.4g} MiB, {len(report.skipped)} left out; {report.shards_written} "
        f"of {report.shards} shards written in {_duration(report.seconds)}"
    )


def print_skipped(skipped: tuple[Skipped, ...]) -> None:
    """A table of reasons, with some files each."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Left out", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("why", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("which", overflow="fold")
    for reason in sorted({item.reason for item in skipped}):
        items = [item for item in skipped if item.reason == reason]
        shown = [f"{item.name}: {item.detail}" for item in items[:FILES_PER_REASON]]
        if len(items) > FILES_PER_REASON:
            shown.append(f"and {len(items) - FILES_PER_REASON} more, see index.json")
        # Text, because a file's name may hold what looks like markup.
        table.add_row(reason, str(len(items)), Text("\n".join(shown)))
    console.out.print(table)


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.3g} s"
        if seconds < 120
        else f"{seconds / 60:.3g} min"
        if seconds < 7200
        else (f"{seconds / 3600:.3g} h")
    )
