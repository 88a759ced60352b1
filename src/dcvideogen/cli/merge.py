"""`dcvideogen merge`: a base model and an adapter or LoRA file to one transformer."""

from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli import options
from dcvideogen.cli.console import print_facts


def merge(
    base: Annotated[
        Path, typer.Argument(help="The base model: a pipeline's folder or bundled name, or a transformer's folder.")
    ],
    adapter: Annotated[
        Path, typer.Argument(help="An adapter's folder, an export with one, or a LoRA file (diffusers, ComfyUI).")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The transformer folder to write; new or empty.")],
    dtype: Annotated[str, typer.Option(help="auto (as the base is stored), fp32 or bf16.")] = "auto",
) -> None:
    """Merge an adapter or a LoRA into its base model. Rank and alpha are read from the file."""
    options.check_choice("--dtype", dtype, tuple(options.DTYPES))
    options.check_new_folder(output)

    from dcvideogen.adaptation.merge_run import merge_folders

    for folder, facts in merge_folders(base, adapter, output, options.choose_dtype(dtype)).items():
        print_facts(f"{folder}: a merged transformer", facts)
