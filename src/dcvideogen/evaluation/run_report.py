"""One page of whatever the commands wrote: videos that play in it, what was measured, and what the models are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dcvideogen.errors import UserError
from dcvideogen.evaluation.report_html import summary_section
from dcvideogen.evaluation.report_parts import figure, page, picture, swatch, table, video
from dcvideogen.evaluation.report_table import COLUMNS
from dcvideogen.evaluation.run_report_files import Generated, Runs
from dcvideogen.evaluation.run_report_generated import by_model, generated_section, seconds_of
from dcvideogen.evaluation.svg import Series, line_plot
from dcvideogen.files import write_text
from dcvideogen.version import __version__

STYLE = """
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:16px 0}
.tile{flex:1 1 128px;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.tile b{display:block;font-size:1.5rem;line-height:1.2;white-space:nowrap;font-variant-numeric:tabular-nums}
.tile span{color:var(--muted);font-size:.85rem;line-height:1.35;display:block}
video{display:block;width:100%;height:auto;border-radius:4px;background:#000}
.prompts,.tables{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:18px}
.tables{margin-top:12px;align-items:start}.tables>div{min-width:0}
.side{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(140px,45%),1fr));gap:10px;max-width:760px}
.side img{width:100%;max-width:256px;border-radius:4px}
.wide{max-width:760px;margin:0 auto 12px}.wide img{width:100%;border-radius:4px}
.prompts h3{margin:.2em 0 .4em}.prompts h3 span{font-weight:400;white-space:nowrap}
.right{color:var(--c2)}.wrong{color:var(--c1)}
section p{max-width:75ch}code{font-size:.9em}
button{font:inherit;font-size:.9rem;color:inherit;background:var(--card);border:1px solid var(--line);
border-radius:6px;padding:6px 14px;cursor:pointer;position:sticky;top:8px;z-index:2}
@media(max-width:560px){th,td{padding:4px 6px}th:first-child{white-space:normal}table{font-size:.85rem}}
"""
# Videos that belong together begin together, again and again; where the reader's system asks for less motion, when the
# button is pressed. Without scripts every video has its own buttons.
SCRIPT = """<script>
const groups = [...document.querySelectorAll(".side, .wide")].map(group => [...group.querySelectorAll("video")]);
const films = groups.flat(), button = document.createElement("button");
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
const show = () => {
  button.textContent = playing ? "Pause all videos" : "Play all videos";
  for (const film of films) if (playing && !film.ended) film.play().catch(() => {}); else film.pause();
};
for (const group of groups) for (const film of group) {
  film.loop = film.controls = false;
  film.addEventListener("ended", () => {
    if (group.every(one => one.ended)) for (const one of group) { one.currentTime = 0; one.play().catch(() => {}); }
  });
}
button.addEventListener("click", () => { playing = !playing; show(); });
if (films.length) { document.querySelector("h1").after(button); show(); }
</script>"""

# What the bundled models are, for readers who never saw their cards.
MODELS = {
    "dcae-small-f32t4c128": "An autoencoder for videos of your own: it keeps one number in 96. It had half an hour of "
    "training on two CPU cores and is about as good as the DCT that it started from: fine texture is lost, and blocks "
    "of 32 pixels show. The published ones are a hundred times larger.",
    "shapes-base": "The model that plays the part of a pretrained one: a small text-to-video transformer in diffusers' "
    "own classes with its own autoencoder (8x in space), trained by this package on two CPU cores. It knows captions "
    "of one form, one moving shape on a plain background, two seconds at 128x128, and nothing else.",
    "shapes-dc": "shapes-base moved into the latents of a deep compression autoencoder (32x in space) by "
    "<code>dcvideogen adapt</code>: a quarter of the tokens, the same knowledge. Its edges are softer, because its "
    "autoencoder is.",
    "shapes-i2v": "The same for image to video: it begins with the picture that it is given and moves it as the text "
    "says, in the same world of shapes. Edges are as soft as its autoencoder makes them, from the first frame on.",
}


def write_run_report(runs: Runs, path: Path, title: str = "What dcvideogen made") -> None:
    """One HTML file that needs nothing else. UserError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, run_report(runs, title))
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another place"
        ) from error


def run_report(runs: Runs, title: str) -> str:
    """The whole page; videos and pictures are read from where they lie."""
    texts = [one for one in runs.generated if "image" not in one.settings]
    images = [one for one in runs.generated if "image" in one.settings]
    compared = len(by_model(texts)) > 1
    beside = "Beside each other: the same prompt and the same seed." if compared else "One video for each prompt."
    pictures = all(one.image for one in images)
    onwards = "Each video goes on from " + ("the picture at its left." if pictures else "a picture.")
    return page(
        title,
        [
            *_tiles(runs, texts, images),
            *(line for found in runs.reconstructions for line in _reconstruction(*found)),
            *generated_section("Text to video", beside, texts),
            *generated_section("Image to video", onwards, images),
            *(line for found in runs.scores for line in _scores(*found)),
            *(line for found in runs.evaluations for line in _evaluation(*found)),
            *_notes(runs),
            SCRIPT,
        ],
        STYLE,
    )


def _tiles(runs: Runs, texts: Sequence[Generated], images: Sequence[Generated]) -> Iterator[str]:
    """The figures that matter most, large."""
    tiles: list[tuple[str, str]] = []
    for _, metrics in runs.reconstructions[:1]:
        psnr, baseline = metrics["psnr_db"]["mean"], metrics["dct_baseline"]["psnr_db"]["mean"]
        tiles.append((f"{metrics['compression_ratio']:.0f}x", "fewer numbers in the latents than in the clip"))
        if psnr is not None and baseline is not None:
            tiles.append((f"{psnr:.1f} dB", f"PSNR of the reconstruction; a DCT that keeps as many: {baseline:.1f} dB"))
    tiles += _compared(texts)
    for name, some in by_model([*texts, *images]).items():
        if scores := [one.score for one in some if one.score]:
            right = sum(score.joint for score in scores)
            tiles.append((f"{right:.0f} of {len(scores)}", f"videos of {name} show all that was asked for"))
    if tiles:
        yield '<div class="tiles">'
        yield from (f'<div class="tile"><b>{escape(b)}</b><span>{escape(words)}</span></div>' for b, words in tiles)
        yield "</div>"


def _compared(texts: Sequence[Generated]) -> list[tuple[str, str]]:
    """The model of the fewest tokens against that of the most, also where a busy machine made it the slower one; of as
    many or unknown ones the fastest against the slowest."""
    timed = {name: seconds_of(some, "transformer") for name, some in by_model(texts).items()}
    known = {name: seconds for name, seconds in timed.items() if seconds}
    if len(known) < 2:
        return []
    tokens = {one.model: one.figures.get("tokens") for one in texts}
    counted = all(tokens[name] for name in known)
    order = sorted(known, key=lambda name: (tokens[name] if counted else 0, known[name]))
    fast, slow = order[0], order[-1]
    tiles = [(f"{known[slow] / known[fast]:.1f}x", f"speed of the transformer of {fast} over that of {slow}")]
    if tokens[slow] and tokens[fast]:
        fewer = f"fewer tokens in a video of {fast} than of {slow}: {tokens[fast]} and {tokens[slow]}"
        tiles.insert(0, (f"{tokens[slow] / tokens[fast]:.0f}x", fewer))
    return tiles


def _reconstruction(path: Path, metrics: dict[str, Any]) -> Iterator[str]:
    folder, ours, baseline = path.parent, escape(metrics["model"]), metrics["dct_baseline"]
    seconds, frames = metrics["seconds"], metrics["num_frames"]
    yield f"<section><h2>Reconstruction of {escape(metrics['input'])}</h2>"
    if (folder / "side_by_side.mp4").is_file():
        words = f"Left: the clip. Right: the same, encoded and decoded by {ours}."
        label = f"{metrics['input']} beside its reconstruction by {metrics['model']}"
        yield f'<div class="wide">{video(folder / "side_by_side.mp4", label, words)}</div>'
    size = f"{metrics['width']}x{metrics['height']}"
    rows = [
        ["compression", f"{metrics['compression_ratio']:.0f}x", f"{baseline['compression_ratio']:.0f}x"],
        ["PSNR, dB", _mean(metrics["psnr_db"], 2), _mean(baseline["psnr_db"], 2)],
        ["SSIM", _mean(metrics["ssim"], 4), _mean(baseline["ssim"], 4)],
        ["latents", "x".join(str(side) for side in metrics["latent_shape"]), "-"],
        ["encoding, frames/s", f"{frames / seconds['encode']:.1f}", "-"],
        ["decoding, frames/s", f"{frames / seconds['decode']:.1f}", "-"],
        ["peak memory, GiB", f"{metrics['peak_memory']['gib']:.2f}", "-"],
    ]
    yield '<div class="tables"><div>' + table(["", swatch(0) + ours, swatch(1) + "fixed 3-D DCT"], rows)
    yield (
        f'<p class="muted">{frames} frames of {size}; {escape(metrics["device"])}. The DCT keeps as many numbers, the '
        "same ones of every block: what a codec does without learning anything. Memory: "
        f"{escape(str(metrics['peak_memory']['of']))}.</p></div>"
    )
    lines = [
        Series(str(metrics["model"]), range(frames), metrics["psnr_db"]["per_frame"], 0),
        Series("fixed 3-D DCT", range(frames), baseline["psnr_db"]["per_frame"], 1),
    ]
    plot = line_plot("PSNR over frames", lines, "frame", "PSNR, dB", metrics["chunk_edges"].get("frames") or ())
    yield f"<div>{figure(plot, 'PSNR over frames; dashed: where a chunk begins')}</div></div>"
    if (folder / "strip.png").is_file():
        words = "Frames of the clip, their reconstructions, and four times the error"
        yield f'<div class="wide">{picture(folder / "strip.png", words)}</div>'
    yield "</section>"


def _scores(path: Path, report: dict[str, Any]) -> Iterator[str]:
    rows = [
        [escape(name), f"{value:.3f}", f"{report['chance'][name]:.3f}" if name in report["chance"] else "-"]
        for name, value in report["mean"].items()
    ]
    yield f"<section><h2>Scores in {escape(path.name)}</h2><p>{report['num_videos']} videos of the shapes world.</p>"
    yield table(["", "score", "chance"], rows) + "</section>"


def _evaluation(path: Path, report: dict[str, Any]) -> Iterator[str]:
    yield from summary_section(report, f"Evaluation in {path.parent.name}")


def _notes(runs: Runs) -> Iterator[str]:
    used = dict.fromkeys(
        [str(metrics["model"]) for _, metrics in runs.reconstructions] + [one.model for one in runs.generated]
    )
    known = [name for name in used if name in MODELS]
    yield f"<section><h2>{'What these models are, and what they are not' if known else 'Notes'}</h2>"
    if known:
        yield "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{MODELS[name]}</dd>" for name in known) + "</dl>"
        yield (
            "<p>They came with the package so that every step can be watched and checked on a laptop. They are not "
            "video generators for people, places or stories, and nothing on this page says how good the published "
            "models look. Their speed-up is that of tiny networks on this machine; with the published ones attention "
            "over many more tokens weighs more, and the text encoder and the decoder less.</p>"
        )
    if devices := {str(d) for d in [m["device"] for _, m in runs.reconstructions] + _devices(runs.generated)}:
        yield f"<p>Measured on: {escape('; '.join(sorted(devices)))}. Whatever else ran there made it slower.</p>"
    if runs.evaluations:
        yield "<h3>Columns of the evaluations</h3><dl>"
        yield "".join(f"<dt>{c.title}</dt><dd>{c.meaning}</dd>" for c in COLUMNS) + "</dl>"
    yield f'<p class="muted">dcvideogen {escape(__version__)}. This page needs no network and no server.</p></section>'


def _devices(videos: Sequence[Generated]) -> list[Any]:
    return [one.figures["device"] for one in videos if "device" in one.figures]


def _mean(series: dict[str, Any], digits: int) -> str:
    return "-" if series["mean"] is None else f"{series['mean']:.{digits}f}"
