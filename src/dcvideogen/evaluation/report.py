"""A report as files: report.json with every number, report.md, and report.html, one page with the pictures in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dcvideogen.errors import UserError
from dcvideogen.evaluation.report_html import html
from dcvideogen.evaluation.report_markdown import markdown
from dcvideogen.files import write_json, write_text


def write_report(report: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Writes the three files into the folder that holds the clips' pictures; their paths, by kind.

    Each goes through a temporary name. Raises UserError when the folder cannot be written to.
    """
    paths = {kind: folder / f"report.{kind}" for kind in ("json", "md", "html")}
    try:
        write_json(paths["json"], report)
        write_text(paths["md"], markdown(report))
        write_text(paths["html"], html(report, folder))
    except OSError as error:
        told = error.strerror or str(error)
        raise UserError(f"cannot write to {folder}: {told}; free some space or choose another place") from error
    return paths
