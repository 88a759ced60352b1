import json
import re
from html.parser import HTMLParser

import pytest
from pictures import waves, with_noise
from test_evaluation_run import Darker, clip, cut_clip

from dcvideogen.errors import UserError
from dcvideogen.evaluation.evaluation_run import evaluate
from dcvideogen.evaluation.measures import Networks
from dcvideogen.evaluation.report import write_report
from dcvideogen.evaluation.report_html import MAX_CLIPS, html
from dcvideogen.evaluation.report_table import summary_rows

SETTINGS = {"data": ["clips"], "height": 40, "width": 48, "num_frames": 80, "fps": None, "device": "cpu"}
VOID = {"meta", "img", "line", "rect", "polyline", "circle", "br", "link"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report with a peer, a clip with an awkward name, one that is left out, and what was written of it."""
    folder = tmp_path_factory.mktemp("report")
    clips = [clip("a", with_noise(waves(20, 40, 48), 6)), clip("b<i>|.mp4", waves(9, 40, 48)), cut_clip()]
    report = evaluate([Darker(), Darker("peer", "peer")], clips, folder, Networks(ffmpeg=None), settings=SETTINGS)
    return report, folder, write_report(report, folder)


class Checker(HTMLParser):
    """Notes what is opened and not closed, and what is fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.sources, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href", "action", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in ("line", "rect", "circle", "polyline")

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_fetches_nothing(made):
    _, _, paths = made
    text = paths["html"].read_text()
    page = Checker()
    page.feed(text.removeprefix("<!doctype html>"))
    assert (page.open, page.wrong) == ([], [])
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not re.search(r"https?:|<script|@import|url\(", text)
    assert "prefers-color-scheme:dark" in text
    assert 'name="viewport"' in text


def test_the_page_shows_every_part(made):
    report, _, paths = made
    page = Checker()
    page.feed(paths["html"].read_text())
    text = " ".join(page.text)
    for words in (
        "Evaluation of darker", "2 clips at 48x40, the first 80 frames", "Means over the clips", "Clip by clip", "peer",
        "fixed DCT", "PCA", "PSNR over frames", "Noise robustness", "Standard deviation per latent channel",
        "PSNR of blocks", "Flat fields", "#101010", "The worst 5 % of places", "Left out", "half.mp4",
        "cut after 3 frames", "No LPIPS: no weights: give --lpips-backbone and --lpips-heads", "b<i>|.mp4",
    ):  # fmt: skip
        assert words in text, words
    main = report["subjects"][0]
    pictures = sum(3 * len(c["pictures"]["frames"]) + len(c["pictures"]["worst_blocks"]) for c in main["clips"])
    others = 3 * 2 * 3  # input, reconstruction, error; two clips; peer, DCT and PCA
    assert len(page.sources) == pictures + others
    assert f"{main['mean']['psnr_db']:.2f}" in text


def test_chunk_edges_are_marked_in_the_plot_over_frames(made):
    text = made[2]["html"].read_text()
    assert text.count('class="mark"') == 2 + 1  # frames 8 and 16 of 20, frame 8 of 9


def test_the_json_holds_every_number_and_the_markdown_the_tables(made):
    report, _, paths = made
    assert json.loads(paths["json"].read_text()) == json.loads(json.dumps(report))
    text = paths["md"].read_text()
    assert "# Evaluation of darker" in text
    rows = [line for line in text.splitlines() if line.startswith("| darker")]
    assert f" {report['subjects'][0]['mean']['psnr_db']:.2f} |" in rows[0]
    assert "b&lt;i>\\|.mp4" in text
    assert "- half.mp4 (darker): half.mp4: cut after 3 frames; give the whole file" in text
    for words in ("## Noise on the latents", "## Flat fields", "## Latents", "No rFVD: no weights: give --i3d."):
        assert words in text
    links = re.findall(r"\]\((.+?\.png)\)", text)
    assert links
    assert all((made[1] / link).is_file() for link in links)


def test_the_best_of_a_column_is_bold(made):
    rows = summary_rows(made[0])
    best = max(row["psnr_db"] for row in rows)
    assert f"<b>{best:.2f}</b>" in made[2]["html"].read_text()


def test_of_many_clips_those_with_the_lowest_psnr_are_shown(made):
    report, folder, _ = made
    main = report["subjects"][0]
    many = []
    for number in range(MAX_CLIPS + 3):
        values = {**main["clips"][0]["values"], "psnr_db": 50.0 - number}
        many.append({**main["clips"][0], "clip": f"clip {number}", "values": values})
    text = html({**report, "subjects": [{**main, "clips": many}]}, folder)
    shown = re.findall(r"<h2>clip (\d+)</h2>", text)
    assert [int(number) for number in shown] == list(range(3, MAX_CLIPS + 3))
    assert f"the {MAX_CLIPS} clips with the lowest PSNR" in text


def test_a_folder_that_cannot_be_written_to_is_told_and_nothing_is_left(made, tmp_path):
    report, _, _ = made
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UserError, match=r"cannot write to .*free some space"):
        write_report(report, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
