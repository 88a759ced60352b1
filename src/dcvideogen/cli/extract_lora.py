"""`dcvideogen extract-lora`: what a tuned transformer has and its base has not, as a LoRA."""

from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli import options
from dcvideogen.cli.console import print_facts


def extract_lora(
    base: Annotated[
        Path, typer.Argument(help="The base model: a pipeline's folder or bundled name, or a transformer's folder.")
    ],
    tuned: Annotated[Path, typer.Argument(help="What was made of it: a transformer's folder, or one that holds it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write; new or empty.")],
    rank: Annotated[int, typer.Option(help="Of the LoRA in each layer, at most.")],
    targets: Annotated[str, typer.Option(help="The layers: a target set of the model's family.")] = "attention+ffn",
    dtype: Annotated[str, typer.Option(help="Of the files: auto (as TUNED is stored), fp32 or bf16.")] = "auto",
    device: options.Device = "auto",
) -> None:
    """Extract the LoRA of a rank that comes nearest to a fine-tuning, and say how much of it that is."""
    options.check_at_least_one("--rank", rank)
    options.check_run(None, dtype, device)
    options.check_new_folder(output)

    from dcvideogen.adaptation.extraction_run import extract_folders
    from dcvideogen.cli.progress import StageProgress

    chosen = options.choose_device(device)
    with StageProgress("extract-lora", ("layers",), None) as progress:
        facts = extract_folders(
            base,
            tuned,
            output,
            rank=rank,
            targets=targets,
            dtype=options.choose_dtype(dtype),
            device=chosen,
            done=lambda count, total: progress.advance("layers"),
        )
    print_facts(f"{output}: a LoRA out of {tuned}", facts)
