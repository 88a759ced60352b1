"""`dcvideogen reconstruct`: real videos through the autoencoder and back, with everything that can be measured."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dcvideogen.cli import options
from dcvideogen.cli.console import err, number, out
from dcvideogen.errors import UserError
from dcvideogen.weights import DEFAULT_AUTOENCODER


def reconstruct(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Video files, images or folders of images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results; one per input if several.")],
    model: Annotated[str, typer.Option(help=options.MODEL_HELP)] = DEFAULT_AUTOENCODER,
    height: options.Height = None,
    width: options.Width = None,
    num_frames: options.NumFrames = None,
    fps: options.Fps = None,
    rows_per_step: options.RowsPerStep = None,
    offload_state: options.OffloadState = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    on_error: options.OnError = "raise",
    crf: options.Crf = 18,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Write reconstruction.mkv (FFV1, bit exact) in place of the mp4.")
    ] = False,
) -> None:
    """Encode and decode videos; write reconstruction, comparison, latents and metrics."""
    options.check_size(height, width)
    options.check_at_least_one("--num-frames", num_frames)
    options.check_run(rows_per_step, dtype, device)
    options.check_choice("--on-error", on_error, options.ON_ERROR)
    options.check_crf(crf)
    rate = options.parse_fps(fps)
    if output.is_file():
        raise UserError(f"-o {output} is a file; a folder is allowed, existing or new")
    if len(inputs) == 1:
        options.check_inputs_exist(inputs)

    from dcvideogen.autoencoder.loading import load_autoencoder
    from dcvideogen.cli.progress import StageProgress
    from dcvideogen.files import write_json
    from dcvideogen.pipelines.reconstruct_clip import Outputs, reconstruct_clip
    from dcvideogen.pipelines.streaming import ClipOptions, RunOptions, model_name

    chosen = options.choose_device(device)
    autoencoder = load_autoencoder(model, device=chosen, dtype=options.choose_dtype(dtype))
    clip = ClipOptions(height, width, num_frames, rate, on_error)
    run = RunOptions(rows_per_step, offload_state)
    results, failures = [], 0
    for path, folder in zip(inputs, output_folders(inputs, output), strict=True):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            result = reconstruct_clip(
                autoencoder, model_name(model), path, Outputs(folder, lossless), clip, run, crf, StageProgress
            )
        except BaseException as error:
            if made and not any(folder.iterdir()):
                folder.rmdir()
            if len(inputs) == 1 or not isinstance(error, UserError | OSError):
                raise
            failures += 1
            results.append({"input": path.name, "error": str(error)})
            err.print(f"error: {error}", markup=False, soft_wrap=True)
            continue
        results.append({**result, "folder": folder.name})
        if len(inputs) == 1:
            print_clip(result, folder)
        else:
            words = (
                f"{path.name}: PSNR {psnr_text(result['psnr_db'])} in {result['seconds']['total']:.1f} s, see {folder}"
            )
            out.print(words, markup=False, soft_wrap=True)
    if len(inputs) > 1:
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "summary.json", [summary_row(result) for result in results])
        print_summary(results, failures)
    if failures:
        raise typer.Exit(2)


def output_folders(inputs: list[Path], output: Path) -> list[Path]:
    """`output` itself for one input; else one folder in it per input, named after it, made unique by a number."""
    if len(inputs) == 1:
        return [output]
    names: list[str] = []
    for path in inputs:
        stem = path.resolve().stem
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return [output / name for name in names]


def summary_row(result: dict[str, Any]) -> dict[str, Any]:
    """One line per input: the means alone, or the error."""
    if "error" in result:
        return result
    return {
        **{key: result[key] for key in ("input", "folder", "height", "width", "num_frames", "fps")},
        "psnr_db": result["psnr_db"]["mean"],
        "ssim": result["ssim"]["mean"],
        "dct_psnr_db": result["dct_baseline"]["psnr_db"]["mean"],
        "dct_ssim": result["dct_baseline"]["ssim"]["mean"],
        "chunk_edge_ratio": result["chunk_edges"]["ratio"],
        "seconds": result["seconds"]["total"],
        "peak_memory_gib": result["peak_memory"]["gib"],
    }


def print_clip(result: dict[str, Any], folder: Path) -> None:
    """The table of one clip."""
    from rich.markup import escape
    from rich.table import Table

    size = f"{result['width']}x{result['height']}, {result['num_frames']} frames"
    table = Table(title=f"{escape(result['input'])} ({size})", title_justify="left")
    table.add_column("")
    table.add_column(escape(result["model"]), justify="right")
    table.add_column("fixed DCT", justify="right")
    baseline, seconds, worst = result["dct_baseline"], result["seconds"], result["worst_blocks"][:1]
    rows = [
        ("compression", number(result["compression_ratio"], 0, "x"), number(baseline["compression_ratio"], 0, "x")),
        ("PSNR", psnr_text(result["psnr_db"]), psnr_text(baseline["psnr_db"])),
        ("SSIM", number(result["ssim"]["mean"], 4), number(baseline["ssim"]["mean"], 4)),
        ("chunk edge / inside", number(result["chunk_edges"]["ratio"], 2), ""),
        ("encode", number(result["num_frames"] / seconds["encode"], 1, " frames/s"), ""),
        ("decode", number(result["num_frames"] / seconds["decode"], 1, " frames/s"), ""),
        ("in all", number(seconds["total"], 1, " s"), ""),
        ("peak memory", number(result["peak_memory"]["gib"], 2, " GiB"), ""),
    ]
    for block in worst:
        place = f"frame {block['frame']}, x {block['x']}, y {block['y']}"
        rows.insert(3, ("worst block", f"{block['psnr_db']:.2f} dB\n({place})", ""))
    for row in rows:
        table.add_row(*row)
    out.print(table)
    for name in ("ssim", "chunk_edges"):
        if result[name]["reason"]:
            out.print(f"- {name.replace('_', ' ')}: {result[name]['reason']}", markup=False, soft_wrap=True)
    out.print(f"results in {folder}", markup=False, soft_wrap=True)


def psnr_text(series: dict[str, Any]) -> str:
    return series["reason"] or "-" if series["mean"] is None else f"{series['mean']:.2f} dB"


def print_summary(results: list[dict[str, Any]], failures: int) -> None:
    """One line per input and the means over all."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    title = f"{len(results) - failures} of {len(results)} inputs"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("input", overflow="fold")
    for name in ("frames", "PSNR", "SSIM", "DCT PSNR", "DCT SSIM", "edge"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [summary_row(result) for result in results]
    for row in rows:
        if "error" in row:
            table.add_row(escape(row["input"]), "failed")
        else:
            table.add_row(escape(row["input"]), str(row["num_frames"]), *_means(row))
    done = [row for row in rows if "error" not in row]
    if len(done) > 1:
        keys = ("psnr_db", "ssim", "dct_psnr_db", "dct_ssim", "chunk_edge_ratio")
        values = {key: [row[key] for row in done if row[key] is not None] for key in keys}
        means = {key: sum(column) / len(column) if column else None for key, column in values.items()}
        table.add_section()
        table.add_row("mean", str(sum(row["num_frames"] for row in done)), *_means(means))
    out.print(table)


def _means(row: dict[str, Any]) -> list[str]:
    keys = (("psnr_db", 2), ("ssim", 4), ("dct_psnr_db", 2), ("dct_ssim", 4), ("chunk_edge_ratio", 2))
    return [number(row[key], digits) for key, digits in keys]
