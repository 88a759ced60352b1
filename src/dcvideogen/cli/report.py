"""`dcvideogen report`: one page of what other commands wrote."""

from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli import console
from dcvideogen.errors import UserError


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="What commands wrote, or folders of it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="*.html, one file that needs nothing else.")],
) -> None:
    """Put reconstructions, generated videos, scores and evaluations on one HTML page that plays from a file."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"-o {output} came; a name that ends in .html is allowed")
    if output.is_dir():
        raise UserError(f"-o {output} is a folder; the name of a file is allowed, existing or new")
    for folder in folders:
        if not folder.is_dir():
            what = "a file" if folder.exists() else "no such folder"
            raise UserError(f"{folder}: {what}; give the folder that a command wrote")

    from dcvideogen.cli.progress import CountProgress
    from dcvideogen.evaluation.run_report import write_run_report
    from dcvideogen.evaluation.run_report_files import find_runs

    with CountProgress() as progress:
        runs = find_runs(folders, progress.of("files looked at"))
    write_run_report(runs, output)
    console.out.print(str(output), markup=False, soft_wrap=True)
