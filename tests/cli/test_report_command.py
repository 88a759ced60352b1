"""`dcvideogen report` on what the other commands wrote, and on what only looks like it."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from dcvideogen.data.shapes import render
from dcvideogen.evaluation import report_parts, run_report_generated
from dcvideogen.evaluation.run_report_files import FIGURES_SUFFIX
from dcvideogen.files import write_json
from dcvideogen.shapes_world import parse_caption
from dcvideogen.video import video_to_frames, write_video
from dcvideogen.video.metadata import SETTINGS_KEY
from dcvideogen.weights import sha256

PROMPT = "a small red circle moves left on a navy background"
OTHER = "a large green square moves left on a navy background"
VOID = {"meta", "img", "line", "rect", "polyline", "circle"}


class Page(HTMLParser):
    """Notes what is fetched, what has no words for those who cannot see it, and what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.wordless, self.words = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.sources += [given[name] for name in ("src", "href", "poster") if name in given]
        if (tag == "img" and not given.get("alt")) or (tag == "video" and not given.get("aria-label")):
            self.wordless.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += data


@pytest.fixture
def page(dcvideogen, tmp_path):
    """page(folder, ...) -> the page, read; it must be whole, fetch nothing, and name all that is seen."""

    def make(*folders):
        output = tmp_path / "pages" / "report.html"
        result = dcvideogen("report", *folders, "-o", output)
        assert result.code == 0, result.err
        assert result.out == f"{output}\n"
        found = Page(output.read_text(encoding="utf-8").removeprefix("<!doctype html>"))
        assert (found.open, found.wordless) == ([], [])
        assert all(source.startswith("data:") for source in found.sources)
        return found

    return make


def write_generated(path, shown=PROMPT, figures=None, **settings):
    """A real clip of the world that claims to be generated."""
    told = {"prompt": PROMPT, "seed": 0, "model": "tiny", **settings}
    clip = render(parse_caption(shown), 0, num_frames=16, size=64)[None]
    write_video(path, clip, 16, 10, {SETTINGS_KEY: json.dumps(told)})
    if figures:
        write_json(path.with_name(path.stem + FIGURES_SUFFIX), figures)
    return path


def figures(seconds, tokens):
    return {
        "tokens": tokens, "passes": 40, "seconds": {"transformer": seconds, "decoder": 1.0, "total": seconds + 2},
        "peak_memory": {"gib": 0.5, "of": "the whole process"}, "device": "cpu, 1 thread",
    }  # fmt: skip


def test_a_reconstruction_is_shown_beside_the_dct(page, dcvideogen, model_folder, clip, tmp_path):
    assert dcvideogen("reconstruct", clip, "-o", tmp_path / "run", "--model", model_folder).code == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    found = page(tmp_path)  # which has the run in it
    assert [source[:15] for source in found.sources] == ["data:video/mp4;", "data:image/webp"]
    for number in (metrics["psnr_db"]["mean"], metrics["dct_baseline"]["psnr_db"]["mean"]):
        assert f"{number:.2f}" in found.words
    assert "fixed 3-D DCT" in found.words


def test_videos_of_a_prompt_stand_side_by_side_with_scores_and_speed(page, tmp_path):
    write_generated(tmp_path / "base" / "0.mp4", model="base", figures=figures(6.0, 512))
    write_generated(tmp_path / "moved" / "0.mp4", model="moved", figures=figures(2.0, 128), shown=OTHER)
    found = page(tmp_path / "base", tmp_path / "moved")
    assert found.words.count(PROMPT) == 1
    assert "✓ as asked" in found.words
    assert "✗ seen: size large, color green, shape square" in found.words
    assert "3.0x" in found.words  # 6 s for 2 s
    assert "4x" in found.words  # fewer tokens
    assert len(found.sources) == 2


def test_tokens_are_compared_as_they_are_where_a_busy_machine_made_fewer_of_them_the_slower(page, tmp_path):
    write_generated(tmp_path / "base" / "0.mp4", model="base", figures=figures(2.0, 512))
    write_generated(tmp_path / "moved" / "0.mp4", model="moved", figures=figures(5.0, 128))
    words = page(tmp_path / "base", tmp_path / "moved").words
    assert re.search(r"4x\s*fewer tokens in a video of moved than of base: 128 and 512", words)
    assert re.search(r"0\.4x\s*speed of the transformer of moved over that of base", words)


def test_a_lossless_video_is_written_so_that_browsers_play_it(page, tmp_path):
    write_generated(tmp_path / "0.mkv")
    assert page(tmp_path).sources[0].startswith("data:video/mp4;base64,")


def test_the_picture_that_was_given_is_shown_while_it_is_the_same(page, tmp_path):
    first = tmp_path / "first.png"
    Image.fromarray(video_to_frames(render(parse_caption(PROMPT), 0, num_frames=16, size=64)[None, :, :1])[0]).save(
        first
    )
    write_generated(tmp_path / "0.mp4", image=f"first.png {sha256(first)[:16]}")
    found = page(tmp_path)
    assert len(found.sources) == 2
    psnr = float(re.search(r"first frame, PSNR, dB([\d.]+)", found.words)[1])
    assert psnr > 25
    assert "retention1.00" in found.words
    Image.new("RGB", (64, 64)).save(first)
    assert len(page(tmp_path).sources) == 1


def test_scores_and_evaluations_have_their_tables(page, dcvideogen, model_folder, clip, tmp_path):
    write_generated(tmp_path / "videos" / "0.mp4")
    row = {"path": "0.mp4", "caption": PROMPT}
    (tmp_path / "videos" / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    scored = tmp_path / "scores" / "scores.json"
    assert dcvideogen("shapes", "score", tmp_path / "videos", "-o", scored).code == 0
    arguments = ("evaluate", "autoencoder", "--model", model_folder, "--data", clip, "-o", tmp_path / "evaluation")
    assert dcvideogen(*arguments).code == 0
    found = page(tmp_path / "scores", tmp_path / "evaluation")
    assert "Scores in scores.json" in found.words
    assert "Evaluation in evaluation" in found.words
    assert "numbers in the video per number in the latents" in found.words


def test_texts_of_files_are_no_html(page, tmp_path):
    write_generated(tmp_path / "0.mp4", prompt="<script>alert(1)</script>", model='"><img src=x>')
    assert "<script>alert(1)</script>" in page(tmp_path).words


def test_many_prompts_are_cut_and_large_videos_named(page, tmp_path, monkeypatch):
    for number in range(3):
        write_generated(tmp_path / f"{number}.mp4", seed=number)
    monkeypatch.setattr(run_report_generated, "MAX_ROWS", 2)
    found = page(tmp_path)
    assert len(found.sources) == 2
    assert "The first 2 of 3 prompts" in found.words
    monkeypatch.setattr(report_parts, "MAX_VIDEO_BYTES", 100)
    found = page(tmp_path)
    assert found.sources == []
    assert "0.mp4: 0 MiB are too many" in found.words


def test_a_folder_of_something_else_is_refused(refused, tmp_path):
    (tmp_path / "notes.json").write_text("[1]")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    write_video(tmp_path / "holiday.mp4", torch.zeros(1, 3, 2, 16, 16), 16)
    refused("holds nothing of reconstruct, generate", "report", tmp_path, "-o", tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_wrong_names_are_told(refused, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    refused("no such folder", "report", tmp_path / "nothing", "-o", "a.html")
    refused("a file; give the folder", "report", tmp_path / "file", "-o", "a.html")
    refused("ends in .html", "report", tmp_path, "-o", "a.pdf")
    refused("is a folder; the name of a file", "report", tmp_path, "-o", tmp_path / "folder.html")


def test_a_place_that_cannot_be_written_to_is_named(refused, tmp_path):
    write_generated(tmp_path / "0.mp4")
    (tmp_path / "file").write_text("")
    refused("cannot write", "report", tmp_path, "-o", tmp_path / "file" / "a.html")
