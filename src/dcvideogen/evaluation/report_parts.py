"""What HTML pages that need nothing else are made of: the frame of a page, tables, pictures and videos embedded."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from dcvideogen.evaluation.report_style import STYLE
from dcvideogen.evaluation.svg import COLOURS
from dcvideogen.video import VideoWriter, iterate_frames, probe

WEBP_QUALITY = 90
ENLARGED = 2  # times, at most: small videos would be shown as large as their columns
MAX_VIDEO_BYTES = 24 * 2**20  # a page is read as a whole before anything of it plays
PLAYED_CRF = 18  # of videos that browsers cannot play, and that are written again: looks like the original


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """A whole document. body: HTML. style: CSS, behind what all pages have."""
    name = escape(title)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{name}</title><style>{STYLE}{style}</style></head><body><main>",
            f"<h1>{name}</h1>",
            *body,
            "</main></body></html>",
        ]
    )


def picture(path: Path, caption: str, exact: bool = False) -> str:
    """A picture file as it is, or as WebP. caption: its text, which also stands under it."""
    data, kind = path.read_bytes(), "png"
    with Image.open(io.BytesIO(data)) as opened:
        width, height = opened.size
        if not exact:
            packed = io.BytesIO()
            opened.convert("RGB").save(packed, "WEBP", quality=WEBP_QUALITY)
            data, kind = packed.getvalue(), "webp"
    words = escape(caption)
    return (
        f'<figure><img src="{_embedded(data, f"image/{kind}")}" width="{width}" height="{height}" alt="{words}" '
        f'loading="lazy"><figcaption>{words}</figcaption></figure>'
    )


def video(path: Path, label: str, caption: str) -> str:
    """A video that plays in the page, in a circle and without sound; one of over 24 MiB is only named.

    label: what is seen, for who cannot see it. caption: HTML under it. Lossless files, which no browser plays, are
    written again as H.264.
    """
    info = probe(path)
    data = path.read_bytes() if path.suffix.lower() == ".mp4" else _as_mp4(path)
    if len(data) > MAX_VIDEO_BYTES:
        size = f"{len(data) / 2**20:.0f} MiB are too many for this page"
        return f"<figure><p>{escape(path.name)}: {size}</p><figcaption>{caption}</figcaption></figure>"
    return (
        f'<figure><video src="{_embedded(data, "video/mp4")}" width="{info.width}" height="{info.height}" '
        f'style="max-width:{ENLARGED * info.width}px" controls loop muted playsinline '
        f'aria-label="{escape(label)}"></video>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def figure(plot: str, caption: str) -> str:
    """A drawing with HTML under it; nothing where there is no drawing."""
    return f"<figure>{plot}<figcaption>{caption}</figcaption></figure>" if plot else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; the first of a row is its head."""
    top = "".join(f'<th scope="col">{text}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{text}</td>" for text in row[1:])}</tr>' for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def swatch(index: int) -> str:
    """A spot in the colour of series `index`, which stays on the line of what follows."""
    return f'<span class="swatch b{index % COLOURS}"></span>&#8288;'


def _embedded(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _as_mp4(path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.mp4"
        with VideoWriter(copy, fps=probe(path).fps, crf=PLAYED_CRF) as writer:
            for frame in iterate_frames(path):
                writer.write(frame)
        return copy.read_bytes()
