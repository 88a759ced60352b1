"""`dcvideogen shapes`: the clips it writes are a dataset, and its score reads them as what they are."""

import json
from pathlib import Path

import pytest
import torch

from dcvideogen.data.dataset import open_dataset
from dcvideogen.data.settings import CheckSettings, DataSettings
from dcvideogen.data.shapes import plan_clips, render
from dcvideogen.data.sources import list_items
from dcvideogen.shapes_world import caption, is_test, parse_caption
from dcvideogen.video import probe, read_video, write_video


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Eight small clips of the test split."""
    from dcvideogen.cli.main import run

    folder = tmp_path_factory.mktemp("shapes") / "clips"
    arguments = ["--clips", "8", "--split", "test", "--size", "64", "--num-frames", "16"]
    assert run(["shapes", "render", "-o", str(folder), *arguments]) == 0
    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_clips_show_the_plan_and_captions_arrive(rendered):
    plan = plan_clips("test", 8, seed=0)
    assert [row["path"] for row in rows(rendered)] == [f"clips/{index:06d}.mp4" for index in range(8)]
    assert [item.caption for item in list_items(rendered / "manifest.jsonl")] == [
        caption(clip.combination) for clip in plan
    ]
    assert all(is_test(parse_caption(row["caption"])) for row in rows(rendered))
    path = rendered / rows(rendered)[0]["path"]
    assert (probe(path).fps, probe(path).width, probe(path).height) == (16, 64, 64)
    video, _ = read_video(path)
    expected = render(plan[0].combination, plan[0].seed, num_frames=16, size=64)
    assert video.shape[2] == 16
    # 31 dB; 32.4 measured: at the edge, four pixels share their hue. Elsewhere the file is the render.
    assert (video[0] - expected).square().mean() < 4 * 10**-3.1
    assert (video[0] - expected).abs().median() < 2 / 127.5


def test_it_is_a_dataset_for_check_and_training(rendered, dcvideogen, tmp_path):
    manifest = rendered / "manifest.jsonl"
    result = dcvideogen("data", "check", manifest, "--max-static-share", 1, "--jobs", 1, "-o", tmp_path / "index")
    assert result.code == 0, result
    assert "8 videos" in result.out
    assert "0 files are left out" in result.out
    captions = [row["caption"] for row in rows(rendered)]
    for settings in (
        DataSettings(source=manifest, index=tmp_path / "index"),
        DataSettings(source=manifest, check=CheckSettings(max_static_share=1)),
    ):
        dataset = open_dataset(settings, tmp_path / "cache")
        assert [record.caption for record in dataset.train] == captions


def test_running_it_again_keeps_what_is_there_and_adds_what_is_missing(rendered, dcvideogen, tmp_path):
    folder = tmp_path / "clips"
    arguments = ("shapes", "render", "-o", folder, "--size", 32, "--num-frames", 4)
    assert "3 clips, 3 of them new" in dcvideogen(*arguments, "--clips", 3).out
    dates = {path.name: path.stat().st_mtime_ns for path in (folder / "clips").iterdir()}
    (folder / "clips" / "000001.mp4").unlink()
    assert "5 clips, 3 of them new" in dcvideogen(*arguments, "--clips", 5).out
    now = {path.name: path.stat().st_mtime_ns for path in (folder / "clips").iterdir()}
    assert sorted(now) == [f"{index:06d}.mp4" for index in range(5)]
    assert (now["000000.mp4"], now["000002.mp4"]) == (dates["000000.mp4"], dates["000002.mp4"])
    assert len(rows(folder)) == 5


def test_a_folder_of_other_clips_is_left_alone(rendered, refused, tmp_path):
    before = (rendered / "manifest.jsonl").read_text()
    refused("choose another folder", "shapes", "render", "-o", rendered, "--clips", 8, "--seed", 1)
    assert (rendered / "manifest.jsonl").read_text() == before
    (tmp_path / "manifest.jsonl").write_text("")
    refused("holds other clips or another manifest", "shapes", "render", "-o", tmp_path)
    refused("is a file", "shapes", "render", "-o", tmp_path / "manifest.jsonl")


def test_rendered_clips_score_full_marks(rendered, dcvideogen, tmp_path):
    result = dcvideogen("shapes", "score", rendered, "-o", tmp_path / "new" / "score.json")
    assert result.code == 0, result
    report = json.loads((tmp_path / "new" / "score.json").read_text())
    assert (report["num_videos"], report["left_out"]) == (8, [])
    assert report["mean"]["joint"] == 1
    assert report["mean"]["quality"] > 0.9
    assert report["chance"]["joint"] == 1 / 8
    first = report["videos"][0]
    assert (first["caption"], first["num_frames"]) == (rows(rendered)[0]["caption"], 16)
    assert first["score"]["semantic"] == 1
    assert "mean over 8 videos" in result.out
    assert "seen:" not in result.out


def test_a_single_video_takes_its_caption_from_the_manifest_that_is_named(rendered, dcvideogen):
    result = dcvideogen("shapes", "score", rendered / "clips" / "000003.mp4", "--manifest", rendered / "manifest.jsonl")
    assert result.code == 0, result
    assert "mean over 1 videos" in result.out


def test_generated_videos_meet_the_captions_of_another_folder_by_name(rendered, dcvideogen, tmp_path):
    """One right, one with the object of another caption, one empty, one broken."""
    plan = plan_clips("test", 8, seed=0)
    for index, clip in enumerate((plan[0], plan[2])):
        video = render(clip.combination, 9, num_frames=12, size=64)
        write_video(tmp_path / f"{index:06d}.mkv", video[None], 16)
    write_video(tmp_path / "000002.mkv", torch.zeros(1, 3, 12, 64, 64), 16)
    (tmp_path / "000003.mp4").write_bytes(b"no video")
    output = tmp_path / "score.json"
    result = dcvideogen("shapes", "score", tmp_path, "--manifest", rendered / "manifest.jsonl", "-o", output)
    assert result.code == 0, result
    report = json.loads(output.read_text())
    assert [row["score"]["joint"] for row in report["videos"]] == [1, 0, 0]
    assert [row["video"] for row in report["left_out"]] == ["000003.mp4"]
    assert f"000001.mkv: {caption(plan[1].combination)}; seen: " in result.out
    assert "left out: 000003.mp4: " in result.out
    assert set(report["videos"][2]["seen"].values()) <= {"gray", None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("render", "-o", "x", "--clips", 0), "--clips 0 came"),
        (("render", "-o", "x", "--split", "validation"), "--split validation came; train, test, all are allowed"),
        (("render", "-o", "x", "--size", 8), "8 pixels came"),
        (("render", "-o", "x", "--seed", -1), "seed -1 came"),
        (("score", "missing"), "no such file or folder"),
        (("score", ".", "-o", "score.txt"), "a name that ends in .json is allowed"),
        (("score", "."), "holds no video"),
        (("score", "captions.jsonl"), "caption 'a dog' came"),
        (("score", "none.jsonl"), "no caption for a.mp4"),
        (("score", "a.mp4"), "no such manifest"),
        (("score", "broken.jsonl"), "no video could be read; the first: a.mp4"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(refused, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    if arguments[1] != ".":
        Path("a.mp4").write_bytes(b"no video")
        Path("captions.jsonl").write_text('{"path": "a.mp4", "caption": "a dog"}\n')
        Path("none.jsonl").write_text('{"path": "a.mp4"}\n')
        good = {"path": "a.mp4", "caption": "a small red circle moves left on a black background"}
        Path("broken.jsonl").write_text(json.dumps(good) + "\n")
    refused(message, "shapes", *arguments)
    assert not Path("x/manifest.jsonl").exists()
